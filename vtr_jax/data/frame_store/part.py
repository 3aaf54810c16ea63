"""One clip's frames in a small file of its own: the unit of work that survives an interruption.

Worker processes import this module: it needs PyAV, Pillow and NumPy, never TensorFlow or JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import zipfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from vtr_jax.data.frame_store.early_ends import FrameCounts
from vtr_jax.data.frame_store.encoding import encode_frame
from vtr_jax.data.frame_store.jobs import ClipJob, ClipSource, is_unchanged, source_of
from vtr_jax.data.frame_store.report import TOO_LARGE, BadClip
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.resize import resize_picture, resize_short_side
from vtr_jax.data.sampling import FramePlan, plan_frames, read_images
from vtr_jax.data.video_file import UnreadableVideo
from vtr_jax.files import open_atomically

# Protocol buffers hold less than 2 GiB; file name, settings and the like need a little of it.
MAX_RECORD_BYTES = 2**31 - 2**20
# A frame's tag and length, and its index, in the record.
_BYTES_PER_FRAME = 16
_FRAME = "frame_{}"


@dataclasses.dataclass(frozen=True)
class Part:
    """One clip as its part file describes it; the frames are read one at a time.

    sizes: bytes of each encoded frame. chosen_frames: how many its rule takes; a video that ends
    early has fewer. note: what is wrong with the file although it can be read.
    """

    clip_id: str
    source: ClipSource
    sizes: list[int]
    frame_indices: np.ndarray
    fps: float
    video_frame_count: int
    source_width: int
    source_height: int
    chosen_frames: int
    note: str = ""


def encode_clip(
    job: ClipJob, settings: StoreSettings, max_bytes: int = MAX_RECORD_BYTES
) -> Generator[bytes, None, Part | BadClip]:
    """Decode and encode one clip, one frame in memory at a time.

    Args:
        job: the clip.
        settings: of the store.
        max_bytes: the frames of a clip that would take more are given up at once.

    Yields:
        the encoded frames; what was yielded counts only if a Part is returned.

    Returns:
        the clip, or why it cannot be stored if the video is at fault.
    """
    try:
        part = yield from _encoded(job, settings, max_bytes)
    except UnreadableVideo as error:
        return BadClip(job.clip_id, job.file, f"{error.reason}: {error.message}")
    except OSError as error:
        return BadClip(job.clip_id, job.file, _why_unreadable(job, error))
    except (ValueError, av.FFmpegError) as error:
        # settings and times were checked before the first job: what is left lies in the file
        return BadClip(job.clip_id, job.file, f"cannot be read: {error}")
    except MemoryError:
        return BadClip(job.clip_id, job.file, "cannot be read: not enough memory for its pictures")
    if len(part.sizes) < settings.min_frames:
        return BadClip(job.clip_id, job.file, too_short(len(part.sizes), settings))
    return part


def _why_unreadable(job: ClipJob, error: OSError) -> str:
    """Return why a file gave an error that could be read at the start: it may be gone."""
    try:
        source_of(job)
    except UnreadableVideo as now:
        return f"{now.reason}: {now.message}"
    except OSError as now:
        error = now
    return f"cannot be read: {error.strerror or error}"


def too_short(frames: int, settings: StoreSettings) -> str:
    """Return why a clip of so few frames is left out."""
    return f"too short: {frames} frames, at least {settings.min_frames} wanted"


def _encoded(job: ClipJob, settings: StoreSettings, max_bytes: int) -> Generator[bytes, None, Part]:
    source = source_of(job)
    plan = plan_frames(job.found_path, settings.sampling, job.start, job.end)
    sizes: list[int] = []
    frame_indices: list[int] = []
    height = width = needed = 0
    for index, picture in read_images(plan):
        if not sizes:
            height, width = picture.shape[:2]
        frame = encode_frame(as_stored(picture, settings), settings)
        sizes.append(len(frame))
        frame_indices.append(index)
        needed += len(frame) + _BYTES_PER_FRAME
        if needed > max_bytes:
            raise UnreadableVideo(job.found_path, TOO_LARGE, _too_large(sizes, plan, settings))
        yield frame
    return Part(
        clip_id=job.clip_id,
        source=source,
        sizes=sizes,
        frame_indices=np.array(frame_indices, np.int64),
        fps=plan.fps,
        video_frame_count=plan.frame_count,
        source_width=width,
        source_height=height,
        chosen_frames=plan.chosen,
        note=note_on(plan, job.end),
    )


def note_on(plan: FramePlan, end: float | None) -> str:
    """Return what is wrong with a file that can be read, if a clip up to `end` is affected."""
    return "; ".join(plan.warnings) if end is None or end > plan.seconds else ""


def _too_large(sizes: list[int], plan: FramePlan, settings: StoreSettings) -> str:
    ways = [
        *(["--encoding=jpeg"] if settings.encoding == "png" else []),
        *(["a smaller --stored_side"] if settings.stored_side is not None else []),
        *(["a lower --framerate"] if settings.framerate else []),
    ]
    return (
        f"its first {len(sizes)} of {plan.chosen} frames take {sum(sizes) / 1e9:.1f} GB, "
        "more than one record of a store can contain (2.1 GB): use "
        f"{', '.join([*ways, 'or shorter clips (start and end in the annotations)'])}"
    )


def as_stored(picture: np.ndarray, settings: StoreSettings) -> np.ndarray:
    """A decoded picture, uint8 [H,W,3], in the size in which a store of these settings keeps it."""
    if settings.stored_side is None:
        return resize_picture(picture, settings.resize)
    if 0 < settings.stored_side < min(picture.shape[:2]):
        return resize_short_side(picture, settings.stored_side, settings.interpolation)
    return picture


def make_part(
    path: Path, job: ClipJob, settings: StoreSettings, max_bytes: int = MAX_RECORD_BYTES
) -> Part | BadClip:
    """Decode a clip into a part file, frame by frame; return why not if the video is at fault.

    Raises:
        OSError: the part file cannot be written (a full disk), which is not the fault of the video.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = encode_clip(job, settings, max_bytes)
    with contextlib.suppress(_Abandoned), open_atomically(path) as file:
        with zipfile.ZipFile(file, "w") as archive:
            part = _write_frames(archive, frames)
            if isinstance(part, Part):
                _write_description(archive, part)
        if isinstance(part, BadClip):
            raise _Abandoned
    return part


class _Abandoned(Exception):
    """The part file is not wanted: its clip is bad."""


def _write_frames(
    archive: zipfile.ZipFile, frames: Generator[bytes, None, Part | BadClip]
) -> Part | BadClip:
    for count in itertools.count():
        try:
            frame = next(frames)
        except StopIteration as end:
            return end.value
        _write_array(archive, _FRAME.format(count), np.frombuffer(frame, np.uint8))
    raise AssertionError("unreachable")


def _write_description(archive: zipfile.ZipFile, part: Part) -> None:
    about = dataclasses.asdict(part)
    _write_array(archive, "sizes", np.array(about.pop("sizes"), np.int64))
    _write_array(archive, "frame_indices", about.pop("frame_indices"))
    _write_array(archive, "about", np.array(json.dumps(about)))


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    # as numpy.savez writes it, which wants all arrays at once
    with archive.open(f"{name}.npy", "w") as entry:
        np.lib.format.write_array(entry, array, allow_pickle=False)


@contextlib.contextmanager
def open_part(path: Path) -> Iterator[tuple[Part, Iterator[bytes]]]:
    """Open a part file: the clip, and its encoded frames, read one at a time.

    Raises:
        DamagedPart: at the start, or while frames are read.
    """
    with _opened_part(path) as part:
        about = json.loads(str(part["about"]))
        source = ClipSource(**about.pop("source"))
        sizes = part["sizes"].tolist()
        clip = Part(source=source, sizes=sizes, frame_indices=part["frame_indices"], **about)
        yield clip, _frames_of(part, sizes)


def _frames_of(part: Any, sizes: list[int]) -> Iterator[bytes]:
    if "frames" in part:  # a former version wrote them as one array
        frames = part["frames"]
        for end, size in zip(np.cumsum(sizes).tolist(), sizes, strict=True):
            yield frames[end - size : end].tobytes()
        return
    for count in range(len(sizes)):
        yield part[_FRAME.format(count)].tobytes()


class DamagedPart(OSError):
    """A part file is not as it was written."""


@contextlib.contextmanager
def _opened_part(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file, np.load(file) as part:
            yield part
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedPart(
            f"{path}: damaged part file ({error}); delete it and run `vtr prepare` again"
        ) from error


def read_part_counts(path: Path) -> FrameCounts:
    """How many frames a part file holds, and how many were chosen; OSError names a damaged one."""
    with _opened_part(path) as part:
        about = json.loads(str(part["about"]))
        return FrameCounts(len(part["sizes"]), about["chosen_frames"], about.get("note", ""))


def _read_part_source(path: Path) -> ClipSource | None:
    try:
        with _opened_part(path) as part:
            about = json.loads(str(part["about"]))
            # a part of a former version does not say whether its video ends early
            return ClipSource(**about["source"]) if "chosen_frames" in about else None
    except (FileNotFoundError, DamagedPart):
        return None


@dataclasses.dataclass(frozen=True)
class PartFolder:
    """Part files, each found by its clip's id, and the settings that they are made with."""

    root: Path
    settings: StoreSettings
    max_bytes: int = MAX_RECORD_BYTES

    def path_of(self, clip_id: str) -> Path:
        """The part file of a clip; ids may hold characters that file names may not."""
        name = hashlib.sha256(clip_id.encode()).hexdigest()
        return self.root / name[:2] / f"{name[2:34]}.npz"

    def has(self, job: ClipJob) -> bool:
        """Whether a whole part file of this clip is there, its video unchanged since.

        One that a former version made too large for a record does not count.
        """
        path = self.path_of(job.clip_id)
        source = _read_part_source(path)
        if source is None or path.stat().st_size > self.max_bytes:
            return False
        return is_unchanged(source, job, path.stat().st_mtime)

    def make(self, job: ClipJob) -> BadClip | None:
        """Make and write the part file of a clip; return why not if the video is at fault."""
        part = make_part(self.path_of(job.clip_id), job, self.settings, self.max_bytes)
        return part if isinstance(part, BadClip) else None
