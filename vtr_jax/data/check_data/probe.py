"""What `vtr prepare` would find in a video, from its choice of frames and a few decoded ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from vtr_jax.data.frame_store.early_ends import FrameCounts
from vtr_jax.data.frame_store.encoding import encode_frame
from vtr_jax.data.frame_store.part import MAX_RECORD_BYTES, as_stored, note_on, too_short
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.sampling import FramePlan, plan_frames, read_images
from vtr_jax.data.video_file import UnreadableVideo, check_video_file

Stretch = tuple[float | None, float | None]
BEYOND = "start beyond the end"
# Reasons that hold for a stretch of a video, not for all of it.
_OF_A_STRETCH = (BEYOND, "no frame chosen")


@dataclasses.dataclass(frozen=True)
class FileToProbe:
    """A video file (or folder of images) and the stretches that its clips are cut from."""

    path: Path
    stretches: tuple[Stretch, ...]


@dataclasses.dataclass
class Probe:
    """What is wrong with a file.

    reason: why it cannot be read at all; None = it can. rejected: stretch -> why `vtr prepare`
    would leave it out. counts: stretch -> frame counts of one that ends early.
    """

    reason: str | None = None
    rejected: dict[Stretch, str] = dataclasses.field(default_factory=dict)
    counts: dict[Stretch, FrameCounts] = dataclasses.field(default_factory=dict)


def probe(file: FileToProbe, settings: StoreSettings) -> Probe:
    """Judge a file by the frames that `vtr prepare` would read, with the same settings.

    The first, the middle and the last frame of all its clips are decoded. If one of them cannot
    be, every frame is. Damage between them that the decoder does not stop at is not found.
    """
    found = Probe()
    plans: dict[Stretch, FramePlan] = {}
    try:
        if not settings.sampling.reads_folders:
            check_video_file(file.path)
        for stretch in file.stretches:
            plan = _plan(file.path, settings, stretch, found)
            if plan is not None:
                plans[stretch] = plan
        if plans and _reads_all(list(plans.values()), settings, plans, found):
            _count_as_chosen(plans, found)
        else:
            _count_by_decoding(plans, settings, found)
    except UnreadableVideo as error:
        return Probe(error.reason)
    except (OSError, ValueError) as error:
        return Probe(f"cannot be read: {error}")
    return found


def _plan(path: Path, settings: StoreSettings, stretch: Stretch, found: Probe) -> FramePlan | None:
    try:
        plan = plan_frames(path, settings.sampling, *stretch)
    except UnreadableVideo as error:
        if error.reason not in _OF_A_STRETCH:
            raise
        found.rejected[stretch] = f"{error.reason}: {error.message}"
        return None
    if len(plan.indices) < settings.min_frames:
        found.rejected[stretch] = too_short(len(plan.indices), settings)
        return None
    return plan


def _reads_all(
    every: list[FramePlan], settings: StoreSettings, plans: dict[Stretch, FramePlan], found: Probe
) -> bool:
    """Decode a few of the frames; return whether that worked, and reject what is too large."""
    indices = sorted({index for plan in every for index in plan.indices})
    wanted = sorted({indices[0], indices[len(indices) // 2], indices[-1]})
    try:
        images = [image for _, image in read_images(every[0], indices=wanted)]
    except UnreadableVideo:
        return False
    if len(images) < len(wanted):
        return False
    for stretch, plan in list(plans.items()):
        size = _record_size(plan, images, settings)
        if size > MAX_RECORD_BYTES:
            found.rejected[stretch] = f"too large: a record of about {size / 1e9:.1f} GB"
            del plans[stretch]
    return True


def _record_size(plan: FramePlan, images: list[np.ndarray], settings: StoreSettings) -> float:
    """Estimate the size of a clip's record, bytes; 0 where it cannot be too large."""
    if len(plan.indices) * max(image.nbytes for image in images) < MAX_RECORD_BYTES:
        return 0.0
    sizes = [len(encode_frame(as_stored(image, settings), settings)) for image in images]
    return float(np.mean(sizes)) * len(plan.indices)


def _count_as_chosen(plans: dict[Stretch, FramePlan], found: Probe) -> None:
    for stretch, plan in plans.items():
        counts = FrameCounts(len(plan.indices), plan.chosen, note_on(plan, stretch[1]))
        if counts.ends_early:
            found.counts[stretch] = counts


def _count_by_decoding(
    plans: dict[Stretch, FramePlan], settings: StoreSettings, found: Probe
) -> None:
    """Decode every frame; raise UnreadableVideo only if no stretch of the file can be read."""
    failed: dict[Stretch, UnreadableVideo] = {}
    for stretch, plan in plans.items():
        try:
            decoded = sum(1 for _ in read_images(plan))
        except UnreadableVideo as error:
            failed[stretch] = error
            continue
        counts = FrameCounts(decoded, plan.chosen, note_on(plan, stretch[1]))
        if decoded < settings.min_frames:
            found.rejected[stretch] = too_short(decoded, settings)
        elif counts.ends_early:
            found.counts[stretch] = counts
    for why in failed.values():
        if len(failed) == len(plans) and not found.rejected and why.reason not in _OF_A_STRETCH:
            raise why
    found.rejected |= {each: f"{why.reason}: {why.message}" for each, why in failed.items()}
