"""Which frames are read of a video file or a folder of frames, and their images, one at a time.

plan = plan_frames("video7.mp4", Sampling("opencv"), start=4.1, end=9)
plan.indices, plan.times, plan.warnings              # nothing was decoded yet
for index, image in read_images(plan): ...
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from vtr_jax.data.decode import frames_at
from vtr_jax.data.frame_choice import check_choice
from vtr_jax.data.frame_rules import CAP4VIDEO_FPS, Sampling, StatedLength, choose_frames
from vtr_jax.data.table_rules import choose_from_table, lacking_choices
from vtr_jax.data.time_table import TimeTable, read_time_table
from vtr_jax.data.video_file import UnreadableVideo

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclasses.dataclass(frozen=True, eq=False)
class FramePlan:
    """The frames that a rule reads of one stretch of a video.

    Attributes:
        path: the video file or the folder of images.
        sampling: the rule.
        indices: places of the frames in the order of showing, ascending; some may repeat. Never
            empty.
        times: seconds from the first frame at which each of them appears; for a folder by its
            rule's rate.
        fps: frames per second of the whole file.
        frame_count: frames of the whole file, those that it states but lacks included.
        seconds: duration that the frames of the whole file cover.
        stated_seconds: duration that the file states for its image.
        chosen: number of frames that the rule takes if the file has its stated duration; larger
            than the number of `indices` if the file ends early.
        warnings: what is wrong with the file although it can be read, one sentence each.
        table: the time table of a file; None for a folder.
    """

    path: str
    sampling: Sampling
    indices: tuple[int, ...]
    times: tuple[float, ...]
    fps: float
    frame_count: int
    seconds: float
    stated_seconds: float
    chosen: int
    warnings: tuple[str, ...] = ()
    table: TimeTable | None = None

    @property
    def ends_early(self) -> bool:
        """Whether the frames of the file cover clearly less than its stated duration."""
        return self.table is not None and self.table.ends_early


class SampledPictures(NamedTuple):
    """Frames of one stretch of a video.

    fps, frame_count: of the whole video as it states them. chosen: how many frames the rule takes
    of a video of that length; a damaged or cut off one gives fewer. pictures: (index, uint8
    [H, W, 3] RGB), ascending, decoded while they are taken. warnings: as of FramePlan.
    """

    fps: float
    frame_count: int
    chosen: int
    pictures: Iterator[tuple[int, np.ndarray]]
    warnings: tuple[str, ...] = ()


def plan_frames(
    path: str | os.PathLike[str],
    sampling: Sampling,
    start: float | None = None,
    end: float | None = None,
) -> FramePlan:
    """Choose the frames of a video without decoding any.

    Args:
        path: a video file, or the folder of image files that a folder rule reads.
        sampling: the rule.
        start: seconds; None = from the beginning.
        end: seconds; None = to the end.

    Raises:
        UnreadableVideo: the file cannot be opened, or the rule takes no frame of it.
        ValueError: the times make no sense.
    """
    check_choice(sampling.framerate, start, end)
    if sampling.reads_folders:
        return _folder_plan(path, sampling, start, end)
    table = read_time_table(path)
    if table.is_encrypted:
        raise UnreadableVideo(
            path, "encrypted", "the video is protected by a key: get it without encryption"
        )
    if not table.frame_count:
        raise nothing_decoded(path, 0)
    _check_rate(path, sampling, table)
    indices = choose_from_table(sampling, table, start, end)
    if not indices:
        raise _nothing_chosen(path, sampling, table, start)
    length = table.frame_count + table.lacking_frames
    return FramePlan(
        path=os.fspath(path),
        sampling=sampling,
        indices=tuple(indices),
        times=tuple(_times(table, indices)),
        fps=table.fps,
        frame_count=length,
        seconds=table.end,
        stated_seconds=max(table.stated_end, table.end) if table.lacking_seconds else table.end,
        chosen=len(indices) + lacking_choices(sampling, table, start, end),
        warnings=tuple(_warnings(table)),
        table=table,
    )


def _times(table: TimeTable, indices: Sequence[int]) -> list[float]:
    behind = table.frame_count - 1
    return [
        float(table.seconds[min(index, behind)]) + max(index - behind, 0) / (table.fps or 1)
        for index in indices
    ]


def _warnings(table: TimeTable) -> Iterator[str]:
    if table.ends_early:
        yield (
            f"its frames cover {table.end:.1f} of the {table.stated_end:.1f} seconds that it "
            "states: cut off or damaged"
        )


def _check_rate(path: str | os.PathLike[str], sampling: Sampling, table: TimeTable) -> None:
    """Reject more frames per second than there are; below one per second, every frame is read."""
    most = max(int(table.fps), 1)
    if sampling.frame_rule == "decord" and table.fps >= 1:
        most = int(2 * table.fps)
    if sampling.frame_rule in ("opencv", "decord") and sampling.framerate > most:
        raise UnreadableVideo(
            path,
            "frame rate too low",
            f"{table.fps:g} frames a second, expected at least {sampling.framerate}: set a lower "
            "framerate",
        )


def _nothing_chosen(
    path: str | os.PathLike[str], sampling: Sampling, table: TimeTable, start: float | None
) -> UnreadableVideo:
    if start and start < table.end + table.lacking_seconds:
        return nothing_decoded(path, round(start * table.fps) or 1)
    if start:
        found = f"start is {start:g}, the video has {table.end:.1f} seconds"
        return UnreadableVideo(path, "start beyond the end", found)
    return _too_few(path, sampling, table.frame_count)


def _too_few(path: str | os.PathLike[str], sampling: Sampling, frame_count: int) -> UnreadableVideo:
    return UnreadableVideo(
        path,
        "no frame chosen",
        f"{frame_count} frames are too few for the rule {sampling.frame_rule!r} at framerate "
        f"{sampling.framerate}",
    )


def _folder_plan(
    path: str | os.PathLike[str], sampling: Sampling, start: float | None, end: float | None
) -> FramePlan:
    files = image_files(path, sampling)
    length = StatedLength(float(CAP4VIDEO_FPS), len(files))
    indices = choose_frames(sampling, length, start, end)
    seconds = len(files) / length.fps
    if not indices and start:
        found = f"start is {start:g}, the video has {seconds:.1f} seconds"
        raise UnreadableVideo(path, "start beyond the end", found)
    if not indices:
        raise _too_few(path, sampling, len(files))
    return FramePlan(
        path=os.fspath(path),
        sampling=sampling,
        indices=tuple(indices),
        times=tuple(index / length.fps for index in indices),
        fps=length.fps,
        frame_count=len(files),
        seconds=seconds,
        stated_seconds=seconds,
        chosen=len(indices),
    )


def read_images(
    plan: FramePlan, thread_type: str = "NONE", indices: Sequence[int] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode the frames of a plan while they are taken, one image at a time.

    The first frame that cannot be decoded ends the video, as in the originals; under "xpool",
    which needs a fixed number of frames, it is an error.

    Args:
        plan: from `plan_frames`.
        thread_type: how PyAV decodes: "NONE" (one thread), "AUTO", "FRAME" or "SLICE".
        indices: those of the plan's indices to read, ascending; None = all.

    Yields:
        (index, uint8 [H, W, 3] RGB), ascending.

    Raises:
        UnreadableVideo: no frame can be decoded.
    """
    wanted = plan.indices if indices is None else indices
    if plan.table is None:
        yield from _opened_images(image_files(plan.path, plan.sampling), wanted)
        return
    times = Counter(wanted)
    ordered = sorted(times)
    needs_all = plan.sampling.frame_rule == "xpool"
    reached = 0
    for index, image in frames_at(plan.path, ordered, thread_type, plan.table):
        if needs_all and index != ordered[reached]:
            break
        reached += 1
        for _ in range(times[index]):
            yield index, image
    if not reached:
        raise nothing_decoded(plan.path, ordered[0])
    if needs_all and reached < len(ordered):
        raise UnreadableVideo(
            plan.path,
            "cut off",
            f"frame {ordered[reached]} cannot be decoded, and the rule needs all of "
            f"{len(wanted)}: fetch the file again, or use another rule",
        )


def sample_pictures(
    path: str | os.PathLike[str],
    sampling: Sampling,
    start: float | None = None,
    end: float | None = None,
    thread_type: str = "NONE",
) -> SampledPictures:
    """Choose the frames of a video, to be decoded while they are taken.

    Args:
        path, sampling, start, end: as of `plan_frames`.
        thread_type: as of `read_images`.

    Raises:
        UnreadableVideo: here or while images are taken, if there is none to take.
        ValueError: the times make no sense.
    """
    plan = plan_frames(path, sampling, start, end)
    images = read_images(plan, thread_type)
    return SampledPictures(plan.fps, plan.frame_count, plan.chosen, images, plan.warnings)


def nothing_decoded(path: str | os.PathLike[str], first_wanted: int) -> UnreadableVideo:
    """The error for a video of which no wanted frame could be decoded."""
    if first_wanted == 0:
        return UnreadableVideo(
            path, "no decodable frame", "not even the first frame can be decoded: fetch it again"
        )
    return UnreadableVideo(
        path,
        "start beyond the end",
        f"frame {first_wanted} was wanted first, but decoding ends before it",
    )


def image_files(path: str | os.PathLike[str], sampling: Sampling) -> list[Path]:
    """The image files of a folder of frames in the order in which its rule counts them.

    By name for EMCL-Net, by the number behind the last underscore for the others.

    Raises UnreadableVideo where there is no folder, no image, or a name without a number.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UnreadableVideo(path, "missing", "no such folder of frames")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_EXTENSIONS)
    if not files:
        raise UnreadableVideo(
            path, "empty folder", f"no image files ({', '.join(IMAGE_EXTENSIONS)}) in it"
        )
    if sampling.frame_rule == "emcl_folder":
        return files
    numbers = [re.fullmatch(r"(?:.*_)?(\d+)", file.stem) for file in files]
    if None in numbers:
        name = files[numbers.index(None)].name
        raise UnreadableVideo(
            path, "not numbered", f"{name}: expected names that end in _NUMBER, as img_00001.jpg"
        )
    order = np.argsort([int(number[1]) for number in numbers if number], kind="stable")
    return [files[place] for place in order]


def _opened_images(
    files: Sequence[Path], indices: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
    for index in indices:
        try:
            with Image.open(files[index]) as image:
                picture = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise UnreadableVideo(
                files[index], "not an image", f"damaged or cut off ({error})"
            ) from error
        yield index, picture
