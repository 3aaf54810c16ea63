"""Video files to frames: the originals' choice of frames and their pixels.

frames, frame_mask = read_video("video7.mp4", max_frames=12)
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from vtr_jax.data.decode import StatedLength, UnreadableVideo, frames_at, stated_length
from vtr_jax.data.frame_choice import (
    UNIFORM,
    check_choice,
    order_frames,
    slice_positions,
)
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.resize import Resize, resize_and_crop, resize_picture
from vtr_jax.data.sampling import chosen_indices, nothing_decoded

__all__ = [
    "SampledFrames",
    "UnreadableVideo",
    "read_video",
    "resize_and_crop",
    "sample_frames",
]


@dataclass(frozen=True, eq=False)
class SampledFrames:
    """Frames sampled from one stretch of a video.

    Attributes:
        frames: uint8 [N, R, R, 3] RGB, resized and cropped; N is at least 1.
        frame_indices: int64 [N], their places in the file, ascending.
        fps: frames a second as the file states them.
        frame_count: frames of the whole file as it states them.
        width: of the upright picture before resizing, pixels.
        height: of the upright picture before resizing, pixels.
    """

    frames: np.ndarray
    frame_indices: np.ndarray
    fps: float
    frame_count: int
    width: int
    height: int


def sample_frames(
    path: str | os.PathLike[str],
    *,
    framerate: int = 1,
    start: float | None = None,
    end: float | None = None,
    resolution: int = 224,
    thread_type: str = "NONE",
) -> SampledFrames:
    """Sample a video by the whole-second rule (`frame_choice.whole_second_frames`).

    Frames behind the first one that cannot be decoded are left out.

    Args:
        path: a video file.
        framerate: frames a second; 0 = every frame.
        start: seconds from the beginning; None = from the beginning.
        end: seconds; None = to the end.
        resolution: R, the side of the square frames, pixels.
        thread_type: how PyAV decodes: "NONE" (one thread), "AUTO", "FRAME" or "SLICE".

    Raises:
        UnreadableVideo: the file gives no frame for this stretch, or too few a second.
        ValueError: an option is out of its range.
    """
    _check_resolution(resolution)
    length, indices = _chosen_indices(path, framerate, start, end)
    frames: list[np.ndarray] = []
    reached: list[int] = []
    width = height = 0
    for index, image in frames_at(path, indices, thread_type):
        if not reached:
            height, width = image.shape[:2]
        frames.append(resize_and_crop(image, resolution))
        reached.append(index)
    if not reached:
        raise nothing_decoded(path, indices[0])
    return SampledFrames(
        frames=np.stack(frames),
        frame_indices=np.array(reached, dtype=np.int64),
        fps=length.fps,
        frame_count=length.frame_count,
        width=width,
        height=height,
    )


def read_video(
    path: str | os.PathLike[str],
    max_frames: int = 12,
    start: float | None = None,
    end: float | None = None,
    *,
    framerate: int = 1,
    slice_framepos: int = UNIFORM,
    frame_order: int = 0,
    resolution: int = 224,
    resize: Resize | None = None,
    rng: np.random.Generator | None = None,
    thread_type: str = "AUTO",
) -> tuple[np.ndarray, np.ndarray]:
    """Read one video clip as a model takes it, as CLIP4Clip's loader picks its frames.

    Sampled by the whole-second rule, then at most `max_frames` of those. Only the pictures that
    are returned are kept in memory.

    Args:
        path: a video file.
        max_frames: F, at least 1.
        start: seconds from the beginning; None = from the beginning.
        end: seconds; None = to the end.
        framerate: frames a second; 0 = every frame.
        slice_framepos: which of too many frames: 0 first, 1 last, 2 evenly spaced.
        frame_order: 0 as shown, 1 reversed, 2 shuffled by `rng`.
        resolution: R, the side of the square frames, pixels.
        resize: how pictures become squares; None = shorter side to `resolution`, bicubic, middle
            square. Its own resolution replaces `resolution`.
        rng: needed by `frame_order` 2.
        thread_type: how PyAV decodes: "AUTO", "FRAME", "SLICE" or "NONE" (one thread).

    Returns:
        frames uint8 [F, R, R, 3] RGB, zeros behind the last one, and frame_mask int32 [F].

    Raises:
        UnreadableVideo: the file gives no frame for this stretch, or too few a second.
        ValueError: an option is out of its range.
    """
    _check_resolution(resolution)
    resize = resize or Resize(resolution)
    # Wrong options are refused before anything is decoded.
    order_frames(slice_positions(0, max_frames, slice_framepos), frame_order, rng)
    _, indices = _chosen_indices(path, framerate, start, end)

    def pictures(of: list[int]) -> list[np.ndarray]:
        kept = [of[place] for place in slice_positions(len(of), max_frames, slice_framepos)]
        decoded = frames_at(path, kept, thread_type)
        return [resize_picture(image, resize) for _, image in decoded]

    images = pictures(indices)
    if len(images) < min(len(indices), max_frames):
        # The file ends before its stated length, so the choice is among fewer frames.
        images = pictures([index for index, _ in frames_at(path, indices, thread_type)])
    if not images:
        raise nothing_decoded(path, indices[0])
    frames = np.zeros((max_frames, resize.resolution, resize.resolution, 3), np.uint8)
    frames[: len(images)] = np.stack(images)[order_frames(np.arange(len(images)), frame_order, rng)]
    return frames, (np.arange(max_frames) < len(images)).astype(np.int32)


def _chosen_indices(
    path: str | os.PathLike[str], framerate: int, start: float | None, end: float | None
) -> tuple[StatedLength, list[int]]:
    check_choice(framerate, start, end)
    length = stated_length(path)
    return length, chosen_indices(path, Sampling("opencv", framerate), length, start, end)


def _check_resolution(resolution: int) -> None:
    if resolution < 1:
        raise ValueError(f"resolution is {resolution}, expected at least 1 pixel")
