"""One clip's frames in a small file of its own: the unit of work that survives an interruption.

Worker processes import this module: it needs PyAV, Pillow and NumPy, never TensorFlow or JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from vtr_jax.data.frame_store.early_ends import FrameCounts
from vtr_jax.data.frame_store.encoding import encode_frame
from vtr_jax.data.frame_store.jobs import ClipJob, ClipSource, is_unchanged, source_of
from vtr_jax.data.frame_store.report import BadClip
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.resize import resize_picture, resize_short_side
from vtr_jax.data.sampling import sample_pictures
from vtr_jax.data.video import UnreadableVideo
from vtr_jax.files import write_atomically


@dataclasses.dataclass(frozen=True)
class Part:
    """One clip as its part file holds it; `frames` are encoded images.

    chosen_frames: how many its rule takes; a video that ends early gives fewer.
    """

    clip_id: str
    source: ClipSource
    frames: list[bytes]
    frame_indices: np.ndarray
    fps: float
    video_frame_count: int
    source_width: int
    source_height: int
    chosen_frames: int


def make_part(job: ClipJob, settings: StoreSettings) -> Part | BadClip:
    """Decodes and encodes one clip; returns why not where the video is at fault."""
    try:
        part = _decoded_part(job, settings)
    except UnreadableVideo as error:
        return BadClip(job.clip_id, job.file, f"{error.reason}: {error.message}")
    except (OSError, ValueError, av.FFmpegError) as error:
        # settings and times were checked before the first job: what is left lies in the file
        return BadClip(job.clip_id, job.file, f"cannot be read: {error}")
    except MemoryError:
        return BadClip(job.clip_id, job.file, "cannot be read: not enough memory for its pictures")
    if len(part.frames) < settings.min_frames:
        found = f"too short: {len(part.frames)} frames, at least {settings.min_frames} wanted"
        return BadClip(job.clip_id, job.file, found)
    return part


def _decoded_part(job: ClipJob, settings: StoreSettings) -> Part:
    source = source_of(job)
    sampled = sample_pictures(job.found_path, settings.sampling, job.start, job.end)
    frames: list[bytes] = []
    frame_indices: list[int] = []
    height = width = 0
    for index, picture in sampled.pictures:
        if not frames:
            height, width = picture.shape[:2]
        # encoded at once: a clip's whole pictures together could be gigabytes
        frames.append(encode_frame(as_stored(picture, settings), settings))
        frame_indices.append(index)
    return Part(
        clip_id=job.clip_id,
        source=source,
        frames=frames,
        frame_indices=np.array(frame_indices, np.int64),
        fps=sampled.fps,
        video_frame_count=sampled.frame_count,
        source_width=width,
        source_height=height,
        chosen_frames=sampled.chosen,
    )


def as_stored(picture: np.ndarray, settings: StoreSettings) -> np.ndarray:
    """A decoded picture, uint8 [H,W,3], in the size in which a store of these settings keeps it."""
    if settings.stored_side is None:
        return resize_picture(picture, settings.resize)
    if 0 < settings.stored_side < min(picture.shape[:2]):
        return resize_short_side(picture, settings.stored_side, settings.interpolation)
    return picture


def write_part(path: Path, part: Part) -> None:
    """Writes a part file; OSError where it cannot be (a full disk) is no fault of the video."""
    about = {
        "clip_id": part.clip_id,
        "source": dataclasses.asdict(part.source),
        "fps": part.fps,
        "video_frame_count": part.video_frame_count,
        "source_width": part.source_width,
        "source_height": part.source_height,
        "chosen_frames": part.chosen_frames,
    }
    content = io.BytesIO()
    np.savez(
        content,
        about=np.array(json.dumps(about)),
        sizes=np.array([len(frame) for frame in part.frames], np.int64),
        frame_indices=part.frame_indices,
        frames=np.frombuffer(b"".join(part.frames), np.uint8),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())


def read_part(path: Path) -> Part:
    """Reads a part file; raises OSError naming the file where it is damaged."""
    with _opened_part(path) as part:
        about = json.loads(str(part["about"]))
        ends = np.cumsum(part["sizes"])
        joined = part["frames"].tobytes()
        frame_indices = part["frame_indices"]
    starts = ends - np.diff(ends, prepend=0)
    frames = [joined[a:b] for a, b in zip(starts, ends, strict=True)]
    source = ClipSource(**about.pop("source"))
    return Part(source=source, frames=frames, frame_indices=frame_indices, **about)


@contextlib.contextmanager
def _opened_part(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file, np.load(file) as part:
            yield part
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise OSError(
            f"{path}: damaged part file ({error}); delete it and run `vtr prepare` again"
        ) from error


def read_part_counts(path: Path) -> FrameCounts:
    """How many frames a part file holds, and how many were chosen; OSError names a damaged one."""
    with _opened_part(path) as part:
        return FrameCounts(len(part["sizes"]), json.loads(str(part["about"]))["chosen_frames"])


def _read_part_source(path: Path) -> ClipSource | None:
    try:
        with path.open("rb") as file, np.load(file) as part:
            about = json.loads(str(part["about"]))
            # a part of a former version does not say whether its video ends early
            return ClipSource(**about["source"]) if "chosen_frames" in about else None
    except (FileNotFoundError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


@dataclasses.dataclass(frozen=True)
class PartFolder:
    """Part files, each found by its clip's id, and the settings that they are made with."""

    root: Path
    settings: StoreSettings

    def path_of(self, clip_id: str) -> Path:
        """The part file of a clip; ids may hold characters that file names may not."""
        name = hashlib.sha256(clip_id.encode()).hexdigest()
        return self.root / name[:2] / f"{name[2:34]}.npz"

    def has(self, job: ClipJob) -> bool:
        """Whether a whole part file of this clip is there, its video unchanged since."""
        path = self.path_of(job.clip_id)
        source = _read_part_source(path)
        return source is not None and is_unchanged(source, job, path.stat().st_mtime)

    def make(self, job: ClipJob) -> BadClip | None:
        """Makes and writes the part file of a clip; returns why not where the video is at fault."""
        part = make_part(job, self.settings)
        if isinstance(part, BadClip):
            return part
        write_part(self.path_of(job.clip_id), part)
        return None
