"""One clip's frames in a small file of its own: the unit of work that survives an interruption.

Worker processes import this module: it needs PyAV, Pillow and NumPy, never TensorFlow or JAX.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import av
import numpy as np

from vtr_jax.data.frame_store.encoding import encode_frame
from vtr_jax.data.frame_store.report import BadClip
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.frame_store.source import ClipJob, ClipSource, source_of
from vtr_jax.data.video import SampledFrames, UnreadableVideo, sample_frames
from vtr_jax.files import write_atomically


@dataclasses.dataclass(frozen=True)
class Part:
    """One clip as its part file holds it; `frames` are encoded images."""

    clip_id: str
    source: ClipSource
    frames: list[bytes]
    frame_indices: np.ndarray
    fps: float
    video_frame_count: int
    source_width: int
    source_height: int


def make_part(job: ClipJob, path: Path, settings: StoreSettings) -> BadClip | None:
    """Decodes one clip and writes its part file; returns why not where the video is at fault.

    An OSError in writing (a full disk) is raised: it is no fault of the video.
    """
    try:
        source = source_of(job)
        sampled = sample_frames(
            job.found_path,
            framerate=settings.framerate,
            start=job.start,
            end=job.end,
            resolution=settings.resolution,
        )
    except UnreadableVideo as error:
        return BadClip(job.clip_id, job.file, f"{error.reason}: {error.message}")
    except (OSError, ValueError, MemoryError, av.FFmpegError) as error:
        # settings and times were checked before the first job: what is left lies in the file
        return BadClip(job.clip_id, job.file, f"cannot be read: {type(error).__name__}: {error}")
    if len(sampled.frames) < settings.min_frames:
        found = f"too short: {len(sampled.frames)} frames, at least {settings.min_frames} wanted"
        return BadClip(job.clip_id, job.file, found)
    _write_part(path, job.clip_id, source, sampled, settings)
    return None


def _write_part(
    path: Path, clip_id: str, source: ClipSource, sampled: SampledFrames, settings: StoreSettings
) -> None:
    encoded = [encode_frame(frame, settings) for frame in sampled.frames]
    about = {
        "clip_id": clip_id,
        "source": dataclasses.asdict(source),
        "fps": sampled.fps,
        "video_frame_count": sampled.frame_count,
        "source_width": sampled.width,
        "source_height": sampled.height,
    }
    content = io.BytesIO()
    np.savez(
        content,
        about=np.array(json.dumps(about)),
        sizes=np.array([len(frame) for frame in encoded], np.int64),
        frame_indices=np.asarray(sampled.frame_indices, np.int64),
        frames=np.frombuffer(b"".join(encoded), np.uint8),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())


def read_part_source(path: Path) -> ClipSource | None:
    """What a part file was made from, None where there is no whole part file."""
    try:
        with path.open("rb") as file, np.load(file) as part:
            return ClipSource(**json.loads(str(part["about"]))["source"])
    except (FileNotFoundError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def read_part(path: Path) -> Part:
    """Reads a part file; raises OSError naming the file where it is damaged."""
    try:
        with path.open("rb") as file, np.load(file) as part:
            about = json.loads(str(part["about"]))
            ends = np.cumsum(part["sizes"])
            joined = part["frames"].tobytes()
            frame_indices = part["frame_indices"]
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise OSError(
            f"{path}: damaged part file ({error}); delete it and run `vtr prepare` again"
        ) from error
    starts = ends - np.diff(ends, prepend=0)
    frames = [joined[a:b] for a, b in zip(starts, ends, strict=True)]
    source = ClipSource(**about.pop("source"))
    return Part(source=source, frames=frames, frame_indices=frame_indices, **about)
