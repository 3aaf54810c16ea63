"""Video files to frames: the originals' choice of frames and their pixels.

frames, frame_mask = read_video("video7.mp4", max_frames=12)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vtr_jax.data.frame_choice import UNIFORM, order_frames, slice_positions
from vtr_jax.data.frame_rules import FILE_RULES, Sampling
from vtr_jax.data.resize import Resize, resize_and_crop, resize_picture
from vtr_jax.data.sampling import plan_frames, read_images
from vtr_jax.data.video_file import UnreadableVideo

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
        fps: frames per second of the file.
        frame_count: frames of the whole file, those that it states but lacks included.
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
    """Sample a video by the whole-second rule (docs/preparing.md, "Which frames").

    Frames after the first one that cannot be decoded are left out.

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
    plan = plan_frames(path, Sampling("opencv", framerate), start, end)
    frames: list[np.ndarray] = []
    reached: list[int] = []
    width = height = 0
    for index, image in read_images(plan, thread_type):
        if not reached:
            height, width = image.shape[:2]
        frames.append(resize_and_crop(image, resolution))
        reached.append(index)
    return SampledFrames(
        frames=np.stack(frames),
        frame_indices=np.array(reached, dtype=np.int64),
        fps=plan.fps,
        frame_count=plan.frame_count,
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
    frame_rule: str = "opencv",
) -> tuple[np.ndarray, np.ndarray]:
    """Read one video clip as a model takes it, as CLIP4Clip's loader picks its frames.

    Sampled by a frame rule, then at most `max_frames` of those. Only the images that are returned
    are kept in memory.

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
        frame_rule: "opencv" (whole seconds), "decord" (a stride) or "xpool" (the middles of
            `max_frames` segments), as `vtr prepare --frame_rule`.

    Returns:
        frames uint8 [F, R, R, 3] RGB, zeros after the last one, and frame_mask int32 [F].

    Raises:
        UnreadableVideo: the file gives no frame for this stretch, or too few a second.
        ValueError: an option is out of its range.
    """
    _check_resolution(resolution)
    resize = resize or Resize(resolution)
    if frame_rule not in FILE_RULES:
        raise ValueError(f"frame_rule is {frame_rule!r}, expected one of {', '.join(FILE_RULES)}")
    # Wrong options are rejected before the file is opened.
    order_frames(slice_positions(0, max_frames, slice_framepos), frame_order, rng)
    plan = plan_frames(path, Sampling(frame_rule, framerate, max_frames), start, end)

    def images_of(indices: Sequence[int]) -> list[np.ndarray]:
        kept = [
            indices[place] for place in slice_positions(len(indices), max_frames, slice_framepos)
        ]
        decoded = read_images(plan, thread_type, kept)
        return [resize_picture(image, resize) for _, image in decoded]

    try:
        images = images_of(plan.indices)
    except UnreadableVideo:
        images = []
    if len(images) < min(len(plan.indices), max_frames):
        # The file ends before its stated length, so the choice is among fewer frames.
        images = images_of([index for index, _ in read_images(plan, thread_type)])
    frames = np.zeros((max_frames, resize.resolution, resize.resolution, 3), np.uint8)
    frames[: len(images)] = np.stack(images)[order_frames(np.arange(len(images)), frame_order, rng)]
    return frames, (np.arange(max_frames) < len(images)).astype(np.int32)


def _check_resolution(resolution: int) -> None:
    if resolution < 1:
        raise ValueError(f"resolution is {resolution}, expected at least 1 pixel")
