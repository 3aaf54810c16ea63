"""Which frames of a video are taken: the whole-second rule and the choice among its frames.

Both reproduce CLIP4Clip's raw video loader, whose choice the published numbers rest on.
"""

from __future__ import annotations

import math

import numpy as np

HEAD, TAIL, UNIFORM = 0, 1, 2
NORMAL, REVERSED, SHUFFLED = 0, 1, 2


def whole_second_frames(
    frame_count: int,
    reported_fps: float,
    framerate: int = 1,
    start: float | None = None,
    end: float | None = None,
) -> list[int]:
    """Choose the first `framerate` evenly stepped frames of every whole second.

    A second is `int(reported_fps)` frames: 29.97 counts as 29, so the choice drifts against real
    time by about one frame a second. The second that `end` names is included.

    Args:
        frame_count: frames of the video, as its container states them.
        reported_fps: frames a second, as its container states them; at least 1.
        framerate: wanted frames a second; 0 = every frame.
        start: seconds, cut down to whole ones; None = from the beginning.
        end: seconds, cut down to whole ones; one second more if that equals `start`.

    Returns:
        Indices of frames, ascending, all below `frame_count`; empty if `start` is beyond the end.

    Raises:
        ValueError: an argument is out of its range, or `framerate` exceeds `int(reported_fps)`.
    """
    check_choice(framerate, start, end)
    second = frames_a_second(reported_fps)
    if framerate > second:
        raise ValueError(
            f"framerate is {framerate}, expected at most {second}: the video has {reported_fps:g} "
            "frames a second"
        )
    last = math.ceil(frame_count / second)
    first = 0 if start is None else int(start)
    if end is not None:
        last = min(max(int(end), first + 1), last)
    step = max(second // framerate, 1) if framerate else 1
    offsets = range(second)[::step][: framerate or None]
    indices: list[int] = []
    for offset_of_second in range(first * second, (last + 1) * second, second):
        for offset in offsets:
            if offset_of_second + offset >= frame_count:
                return indices
            indices.append(offset_of_second + offset)
    return indices


def are_whole_seconds(start: float | None, end: float | None) -> bool:
    """Return whether a stretch has no fractions of seconds: the originals know no others."""
    return all(time is None or float(time).is_integer() for time in (start, end))


def cut_to_whole_seconds(start: float, end: float) -> tuple[float, float]:
    """Cut the times of a clip down to whole seconds, as the originals' loader does.

    Args:
        start: seconds.
        end: seconds, after `start`.

    Returns:
        start and end, `end` one second later if both would be equal.
    """
    first = float(int(start))
    return first, max(float(int(end)), first + 1.0)


def check_choice(framerate: int, start: float | None, end: float | None) -> None:
    """Refuse a frame rate and a stretch of time that no video could satisfy.

    Raises:
        ValueError: `framerate` is negative or no whole number, a time is negative or not finite,
            or `start` is not before `end`.
    """
    if framerate != int(framerate) or framerate < 0:
        raise ValueError(
            f"framerate is {framerate}, expected a whole number of frames a second, 0 for all"
        )
    for name, time in (("start", start), ("end", end)):
        if time is not None and not 0 <= time < math.inf:
            raise ValueError(f"{name} is {time}, expected seconds from 0 on")
    if end is not None and (start or 0) >= end:
        raise ValueError(f"start is {start or 0} and end is {end}, expected start before end")


def frames_a_second(reported_fps: float) -> int:
    """The frame rate cut down to a whole number, as the whole-second rule counts.

    Raises:
        ValueError: less than 1 frame a second, or not a finite number.
    """
    if not 1 <= reported_fps < math.inf:
        raise ValueError(f"the frame rate is {reported_fps:g}, expected at least 1 frame a second")
    return int(reported_fps)


def slice_positions(frame_count: int, max_frames: int, slice_framepos: int) -> np.ndarray:
    """Choose at most `max_frames` of `frame_count` frames.

    Uniform positions are cut down, not rounded, after multiplying with a step in double precision;
    for 64 frames that differs from the exact fraction now and then.

    Args:
        frame_count: frames there are.
        max_frames: frames wanted at most, at least 1.
        slice_framepos: 0 the first, 1 the last, 2 evenly spaced ones, the first and the last
            frame included.

    Returns:
        int64 [min(frame_count, max_frames)], ascending.

    Raises:
        ValueError: an argument is out of its range.
    """
    if max_frames < 1:
        raise ValueError(f"max_frames is {max_frames}, expected at least 1")
    if frame_count < 0:
        raise ValueError(f"frame_count is {frame_count}, expected 0 or more")
    if slice_framepos not in (HEAD, TAIL, UNIFORM):
        raise ValueError(
            f"slice_framepos is {slice_framepos}, expected 0 (head), 1 (tail) or 2 (uniform)"
        )
    if frame_count <= max_frames or slice_framepos == HEAD:
        return np.arange(min(frame_count, max_frames), dtype=np.int64)
    if slice_framepos == TAIL:
        return np.arange(frame_count - max_frames, frame_count, dtype=np.int64)
    return np.linspace(0, frame_count - 1, num=max_frames).astype(np.int64)


def order_frames(
    positions: np.ndarray, frame_order: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Put chosen frames in order: 0 as they are, 1 reversed, 2 a random permutation from `rng`.

    Raises:
        ValueError: another `frame_order`, or a random order without `rng`.
    """
    if frame_order == NORMAL:
        return positions
    if frame_order == REVERSED:
        return positions[::-1]
    if frame_order != SHUFFLED:
        raise ValueError(
            f"frame_order is {frame_order}, expected 0 (normal), 1 (reversed) or 2 (shuffled)"
        )
    if rng is None:
        raise ValueError("frame_order 2 (shuffled) draws: pass rng=np.random.default_rng(seed)")
    return rng.permutation(positions)
