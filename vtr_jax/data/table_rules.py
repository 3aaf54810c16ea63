"""The frames that a rule takes of a video file, chosen from its time table.

At a constant rate the rules count frames, as the originals do (`frame_rules.choose_frames`). At a
variable rate, below one frame per second and at fractions of seconds they cannot: there the time
stamps decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from vtr_jax.data.frame_choice import are_whole_seconds, whole_second_frames
from vtr_jax.data.frame_rules import Sampling, StatedLength, choose_frames
from vtr_jax.data.opencv_frames import opencv_reads, opencv_reads_sensibly
from vtr_jax.data.time_table import TimeTable

_TINY = 1e-6


def choose_from_table(
    sampling: Sampling, table: TimeTable, start: float | None = None, end: float | None = None
) -> list[int]:
    """Return the indices of the frames that a rule takes of a file, ascending; some may repeat.

    Frames that the file states, but does not contain, count only for "xpool", which divides the
    stated length.

    Args:
        sampling: a rule for files.
        table: the time table of the file.
        start: seconds; None = from the beginning.
        end: seconds; None = to the end.

    Raises:
        ValueError: the rule asks for more frames per second than there are.
    """
    if sampling.frame_rule == "opencv":
        return _whole_seconds_of(table, sampling.framerate, start, end)
    stated = table.lacking_frames if sampling.frame_rule == "xpool" else 0
    length = StatedLength(table.fps, table.frame_count + stated)
    if table.constant_fps is None:
        if (start or 0) >= table.end:
            return []
        start, end = _at_constant_rate(table, start, 0.25), _at_constant_rate(table, end, 0.75)
    if sampling.frame_rule == "decord" and table.fps < 1:
        # Fewer frames than seconds: the stride would be zero.
        every = Sampling("decord", 1)
        slow = table.fps
        start, end = (None if time is None else time * slow for time in (start, end))
        return choose_frames(every, StatedLength(1.0, length.frame_count), start, end)
    return choose_frames(sampling, length, start, end)


def lacking_choices(
    sampling: Sampling, table: TimeTable, start: float | None = None, end: float | None = None
) -> int:
    """Return how many more frames a rule would take if the file had its stated duration."""
    if not table.lacking_seconds or sampling.frame_rule == "xpool":
        return 0
    stretch = max(start or 0.0, table.end), min(math.inf if end is None else end, table.stated_end)
    seconds = max(stretch[1] - stretch[0], 0.0)
    return round(seconds * (sampling.framerate or table.fps))


def _at_constant_rate(table: TimeTable, time: float | None, into: float) -> float | None:
    """Return the time at which a constant rate would be `into` the frame that `time` shows."""
    return None if time is None else (table.shown_at(time) + into) / table.fps


def _whole_seconds_of(
    table: TimeTable, framerate: int, start: float | None, end: float | None
) -> list[int]:
    is_whole = are_whole_seconds(start, end)
    if is_whole and table.constant_fps is not None and table.fps >= 1:
        # Drifting seconds included: 29 frames count as a second at 29.97.
        return whole_second_frames(table.frame_count, table.fps, framerate, start, end)
    if start and start >= table.end:
        return []
    if not is_whole:
        return _moment(table, framerate, start or 0.0, end)
    if table.fps < 1:
        return _every_frame(table, start or 0.0, end)
    if not framerate:
        return _every_frame(table, start or 0.0, None if end is None else end + 1)
    if opencv_reads_sensibly(table, framerate):
        return opencv_reads(table, framerate, start, end)
    return [table.shown_at(time) for time in _whole_times(table, framerate, start, end)]


def _whole_times(
    table: TimeTable, framerate: int, start: float | None, end: float | None
) -> Iterator[float]:
    first, last = int(start or 0), math.ceil(table.end)
    if end is not None:
        last = min(max(int(end), first + 1), last)
    for second in range(first, last + 1):
        for part in range(framerate):
            time = second + part / framerate
            if time < table.end - _TINY:
                yield time


def _every_frame(table: TimeTable, start: float, end: float | None) -> list[int]:
    """All frames that are on screen between two times, at least one."""
    first = table.shown_at(start)
    behind = table.frame_count if end is None else table.first_from(end)
    return list(range(first, max(behind, first + 1)))


def _moment(table: TimeTable, framerate: int, start: float, end: float | None) -> list[int]:
    """Frames at even steps from `start` on, all within [start, end); at least one.

    The first is the first frame that appears within the stretch; in a stretch without one, the
    frame that is on screen.
    """
    first = table.first_from(start)
    behind = table.frame_count if end is None else table.first_from(end)
    if first >= behind:
        return [table.shown_at(start)]
    if not framerate or table.fps < 1:
        return list(range(first, behind))
    last = table.end if end is None else min(end, table.end)
    steps = np.arange(start, last - _TINY, 1 / framerate)
    return [min(max(table.shown_at(float(time)), first), behind - 1) for time in steps]
