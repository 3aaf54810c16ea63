"""The whole-second rule, the choice among frames and their order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from vtr_jax.data.frame_choice import order_frames, slice_positions, whole_second_frames


@pytest.mark.parametrize("fps", [1, 3, 23.976, 25, 29.97])
@pytest.mark.parametrize("framerate", [1, 2, 3])
@pytest.mark.parametrize("stretch", [(None, None), (0, 1), (1, 3), (2, 100), (7, 9)])
def test_rule_told_as_seeking_and_reading(fps, framerate, stretch):
    """The rule as the specification tells it, in plain loops over seeks and reads."""
    frame_count = 113
    second = int(fps)
    if framerate > second:
        with pytest.raises(ValueError, match="expected at most"):
            whole_second_frames(frame_count, fps, framerate, *stretch)
        return
    duration = (frame_count + second - 1) // second
    start, end = (0, duration) if stretch[0] is None else (stretch[0], min(stretch[1], duration))
    read = []
    offsets = list(range(0, second, max(second // framerate, 1)))[:framerate]
    for at in range(start, end + 1):
        read += [at * second + offset for offset in offsets]
    expected = read[: next((n for n, index in enumerate(read) if index >= frame_count), None)]
    assert whole_second_frames(frame_count, fps, framerate, *stretch) == expected


def test_whole_seconds_of_a_compressed_clip():
    assert whole_second_frames(50, 3.0) == list(range(0, 50, 3))


def test_framerate_zero_takes_every_frame():
    assert whole_second_frames(100, 29.97, 0) == list(range(100))
    assert whole_second_frames(100, 25, 0, start=1, end=2) == list(range(25, 75))


def test_the_end_second_is_included():
    assert whole_second_frames(1000, 25, 1, 0, 1) == [0, 25]
    assert whole_second_frames(1000, 25, 1, 1, 3) == [25, 50, 75]


def test_times_are_cut_down_to_whole_seconds():
    assert whole_second_frames(1000, 25, 1, 1.9, 3.9) == [25, 50, 75]
    assert whole_second_frames(1000, 25, 1, 1.2, 1.8) == [25, 50]
    assert whole_second_frames(1000, 25, 1, None, 1.5) == [0, 25]
    assert whole_second_frames(60, 25, 1, 1.5) == [25, 50]


def test_start_beyond_the_end_gives_nothing():
    assert whole_second_frames(50, 25, 1, 3, 4) == []
    assert whole_second_frames(50, 25, 1, 1000) == []
    assert whole_second_frames(0, 25) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((100, 0.8), "frame rate is 0.8, expected at least 1"),
        ((100, 0.0), "expected at least 1"),
        ((100, float("nan")), "expected at least 1"),
        ((100, float("inf")), "expected at least 1"),
        ((100, 2.5, 3), "framerate is 3, expected at most 2: the video has 2.5 frames"),
        ((100, 25, -1), "framerate is -1, expected a whole number"),
        ((100, 25, 1.5), "framerate is 1.5, expected a whole number"),
        ((100, 25, 1, 2, 2), "start is 2 and end is 2, expected start before end"),
        ((100, 25, 1, 3, 2), "start is 3 and end is 2"),
        ((100, 25, 1, None, 0), "start is 0 and end is 0"),
        ((100, 25, 1, -1, 2), "start is -1, expected seconds from 0 on"),
        ((100, 25, 1, 0, float("inf")), "end is inf, expected seconds"),
        ((100, 25, 1, float("nan"), 2), "start is nan"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        whole_second_frames(*arguments)


def test_absurd_frame_rate_costs_no_time():
    assert whole_second_frames(7, 1e12, 0) == list(range(7))
    assert whole_second_frames(7, 1e12, 1) == [0]


@pytest.mark.parametrize("max_frames", [1, 2, 4, 12, 64])
def test_slices(max_frames):
    for frame_count in [0, 1, 2, 5, 12, 13, 65, 154, 1000]:
        head, tail, uniform = (slice_positions(frame_count, max_frames, at) for at in (0, 1, 2))
        count = min(frame_count, max_frames)
        every = np.arange(frame_count)
        np.testing.assert_array_equal(head, every[:count])
        np.testing.assert_array_equal(tail, every[frame_count - count :])
        assert len(uniform) == count
        assert head.dtype == tail.dtype == uniform.dtype == np.int64
        assert (np.diff(uniform) > 0).all()
        if count > 1:
            assert (uniform[0], uniform[-1]) == (0, frame_count - 1)


def test_uniform_positions_are_cut_down_in_double_precision():
    frame_count, max_frames = 154, 64
    ours = slice_positions(frame_count, max_frames, 2)
    exact = [int(Fraction(i * (frame_count - 1), max_frames - 1)) for i in range(max_frames)]
    step = (frame_count - 1) / (max_frames - 1)
    assert ours[:-1].tolist() == [int(i * step) for i in range(max_frames - 1)]
    assert set(exact - ours) == {0, 1}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((5, 0, 2), "max_frames is 0, expected at least 1"),
        ((-1, 4, 2), "frame_count is -1"),
        ((5, 4, 3), r"slice_framepos is 3, expected 0 \(head\), 1 \(tail\) or 2 \(uniform\)"),
    ],
)
def test_slice_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        slice_positions(*arguments)


def test_order():
    positions = np.array([3, 5, 8, 9, 11])
    assert order_frames(positions, 0, None).tolist() == [3, 5, 8, 9, 11]
    assert order_frames(positions, 1, None).tolist() == [11, 9, 8, 5, 3]
    drawn = [order_frames(positions, 2, np.random.default_rng(seed)).tolist() for seed in range(9)]
    assert drawn[0] == order_frames(positions, 2, np.random.default_rng(0)).tolist()
    assert all(sorted(each) == positions.tolist() for each in drawn)
    assert len({tuple(each) for each in drawn}) > 1
    assert positions.tolist() == [3, 5, 8, 9, 11]


def test_order_refuses():
    with pytest.raises(ValueError, match="frame_order is 3, expected 0"):
        order_frames(np.arange(3), 3, None)
    with pytest.raises(ValueError, match="pass rng"):
        order_frames(np.arange(3), 2, None)
