"""Overlap of two splits, judged by the frames that are read of their clips."""

from __future__ import annotations

import json

import pytest

from vtr_jax.data.check_data import check_data
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.overlap import PlannedFrames
from vtr_jax.data.sampling import plan_frames
from vtr_jax.data.split import Split, VideoClip, check_overlap

MOMENTS = [
    ((0.0, 3.0), (3.0, 5.0)),
    ((0.0, 3.0), (5.0, 7.0)),
    ((0.0, 3.0), (3.5, 5.0)),
    ((4.1, 4.5), (4.5, 4.9)),
    ((4.1, 4.15), (4.16, 4.19)),
    ((1.0, 4.0), (3.5, 6.0)),
    ((None, None), (8.0, 9.0)),
    ((90.0, 95.0), (95.0, 99.0)),
]


def split_of(name, stretch, file="clip5.mp4"):
    start, end = stretch
    return Split("toy", name, (VideoClip(f"{name}#{start}-{end}", file, start, end),), (), [])


def frames_of(path, sampling, stretch):
    try:
        return set(plan_frames(path, sampling, *stretch).indices)
    except ValueError:
        return set()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling("decord", 2), Sampling("opencv", 0)])
@pytest.mark.parametrize(("one", "other"), MOMENTS)
def test_two_clips_overlap_if_they_share_time_or_a_frame(video_folder, sampling, one, other):
    """At 5 frames per second: shorter moments get the frame that is on screen."""
    path = video_folder / "clip5.mp4"
    train, test = split_of("train", one), split_of("test", other)
    found = {split.clips[0].clip_id: path for split in (train, test)}
    shared = frames_of(path, sampling, one) & frames_of(path, sampling, other)
    in_time = (one[0] or 0) < (other[1] or 99) and (other[0] or 0) < (one[1] or 99)
    overlap = check_overlap(train, test, PlannedFrames(found, sampling))
    assert bool(overlap) == bool(shared or in_time)


def test_the_moments_of_both_kinds_occur(video_folder):
    """So that the test above tells the two ways of judging apart."""
    path = video_folder / "clip5.mp4"
    shared = [
        bool(frames_of(path, Sampling(), one) & frames_of(path, Sampling(), other))
        for one, other in MOMENTS
    ]
    by_time = [
        bool(check_overlap(split_of("train", one), split_of("test", other)))
        for one, other in MOMENTS
    ]
    assert any(s and not t for s, t in zip(shared, by_time, strict=True))
    assert any(not s and not t for s, t in zip(shared, by_time, strict=True))


def test_prepare_and_check_data_report_the_shared_frame(videos, prepare_small, tmp_path):
    train, test = split_of("train", (0.0, 3.0)), split_of("test", (3.0, 5.0))
    assert check_overlap(train, test) == []
    assert prepare_small([train, test]).overlaps == {"test": ["test#3.0-5.0"]}
    written = json.loads((tmp_path / "store" / "report.json").read_text())
    assert written["overlaps"] == {"test": ["test#3.0-5.0"]}
    table = tmp_path / "own.csv"
    table.write_text("video,caption,split,start,end\nclip5.mp4,x,train,0,3\nclip5.mp4,x,test,3,5\n")
    report = check_data("table", table, videos_dir=videos, workers=1)
    assert report.overlaps[0].clips == ("clip5#3-5",)


def test_a_file_that_cannot_be_read_shares_nothing(video_folder):
    train, test = (
        split_of(name, t, "junk.mp4") for name, t in (("train", (0.0, 3.0)), ("test", (3.0, 5.0)))
    )
    found = {split.clips[0].clip_id: video_folder / "junk.mp4" for split in (train, test)}
    assert check_overlap(train, test, PlannedFrames(found, Sampling())) == []
