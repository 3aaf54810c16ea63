"""The frames that OpenCV delivers to CLIP4Clip's loader, derived from a file's time table.

The loader seeks to a frame number for every frame. OpenCV turns the number into a time with the
average frame rate, seeks to a key frame at least 16 numbers before it, converts the time stamp of
that key frame into a number again, and counts frames from there. At a constant rate it arrives at
the frame with that number. At a variable rate it arrives somewhere near, and may stop early or go
back in time; then the time stamps decide instead.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator

import numpy as np

from vtr_jax.data.time_table import TimeTable

_STEPS_BACK = 16
# A frame is of the right moment if it appears at most this many seconds before or after it.
_MOMENT = 1.0


def opencv_reads(
    table: TimeTable, framerate: int, start: float | None = None, end: float | None = None
) -> list[int]:
    """Return the frames that OpenCV delivers for the whole-second rule, in their order.

    Args:
        table: the time table of the file.
        framerate: wanted frames per second, at least 1.
        start: whole seconds; None = from the beginning.
        end: whole seconds; None = to the end.

    Returns:
        Indices of frames, up to the first one that cannot be read.
    """
    return [frame for _, frame in _reads(table, framerate, start, end)]


def opencv_reads_sensibly(table: TimeTable, framerate: int) -> bool:
    """Return whether OpenCV delivers, in order and to the end, frames of the right moments.

    The right moment of a frame number is the number divided by the average rate, or its share of
    the duration: not every average is that of the whole file.
    """
    if table.average_fps < 1 or table.opencv_count < 2 or not table.is_exact:
        return False
    seconds = table.seconds
    longest = float(np.diff(seconds).max(initial=0.0))
    allowed = _MOMENT + min(longest, _MOMENT)
    before = -1
    for number, frame in _reads(table, framerate):
        moments = number / table.average_fps, number / table.opencv_count * table.end
        distance = min(abs(seconds[frame] - moment) for moment in moments)
        if frame <= before or distance > allowed:
            return False
        before = frame
    return before >= 0 and table.end - float(seconds[before]) <= 1 / framerate + allowed


def _reads(
    table: TimeTable, framerate: int, start: float | None = None, end: float | None = None
) -> Iterator[tuple[int, int]]:
    """Frame numbers, at most OpenCV's count of frames, and the frames delivered for them."""
    passed = (table.ticks - table.start_tick) * table.tick
    numbers = (table.average_fps * passed + 0.5).astype(np.int64).tolist()
    keys, seek_ticks = table.key_frames.tolist(), table.seek_ticks.tolist()
    before = -1
    for request in _requests(table, framerate, start, end):
        number = min(request, table.opencv_count)
        frame = _delivered(table, numbers, keys, seek_ticks, number)
        if frame >= table.frame_count or (number < request and frame <= before):
            return
        yield number, frame
        before = frame


def _steps(table: TimeTable, framerate: int) -> tuple[int, int]:
    second = int(table.average_fps)
    return second, max(second // framerate, 1)


def _requests(
    table: TimeTable, framerate: int, start: float | None, end: float | None
) -> Iterator[int]:
    """Frame numbers in the order in which the loader asks for them."""
    second, step = _steps(table, framerate)
    first, last = int(start or 0), math.ceil(table.opencv_count / second)
    if end is not None:
        last = min(max(int(end), first + 1), last)
    for offset in range(first * second, (last + 1) * second, second):
        yield from range(offset, offset + second, step)[:framerate]


def _delivered(
    table: TimeTable, numbers: list[int], keys: list[int], seek_ticks: list[int], number: int
) -> int:
    """The frame that OpenCV reads after a seek to a frame number."""
    if number <= 1:
        return number
    back = _STEPS_BACK
    while True:
        target = max(number - back, 0)
        tick = table.start_tick + int(target / table.average_fps / table.tick + 0.5)
        frame = keys[max(bisect.bisect_right(seek_ticks, tick) - 1, 0)]
        reached = numbers[min(frame, len(numbers) - 1)] - max(numbers[0], 0)
        if 0 <= reached < number:
            return frame + number - reached
        if target == 0:
            return frame + 1
        back = back * 2 if back < 16 else back * 3 // 2
