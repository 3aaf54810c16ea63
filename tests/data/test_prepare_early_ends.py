"""Preparing videos that end before their stated length: stored as far as they go, and listed."""

from __future__ import annotations

import json

import pytest

from vtr_jax.data.frame_store import FrameStore, TooManyBadVideos, prepare
from vtr_jax.data.frame_store.early_ends import FrameCounts
from vtr_jax.data.split import Split, VideoClip

WRONG = ("half.mp4", "hole.mp4")


def split_of(*files: str) -> Split:
    clips = tuple(VideoClip(file.removesuffix(".mp4"), file) for file in files)
    return Split("toy", "train", clips, (), [])


@pytest.mark.parametrize("rule", ["opencv", "decord"])
def test_clips_that_end_early_are_listed_in_every_run(faststart, tmp_path, rule):
    split = split_of("whole.mp4", *WRONG)
    options = {"resolution": 32, "workers": 1, "max_bad_share": 0.7, "frame_rule": rule}
    report = prepare(split, faststart, tmp_path / "store", **options)
    store = FrameStore.open(tmp_path / "store")
    stored = {clip: int(store.num_frames[store.index_of(clip)]) for clip in ("half", "hole")}
    assert all(2 <= frames <= 6 for frames in stored.values()), stored
    assert [(clip.clip_id, clip.reason) for clip in report.early] == [
        (name, f"ends early: {frames} of 10 chosen frames") for name, frames in stored.items()
    ]
    assert (report.bad, report.lost_much, report.bad_share) == ((), 2, 2 / 3)
    assert "WARNING: 2 clips are stored with fewer frames" in str(report)
    again = prepare(split, faststart, tmp_path / "store", **options)
    assert (again.already_done, again.early) == (3, report.early)
    written = json.loads((tmp_path / "store" / "report.json").read_text())
    assert [clip["file"] for clip in written["early"]] == list(WRONG)


def test_too_many_that_end_early_fail_and_mended_ones_are_forgotten(faststart, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("whole.mp4", *WRONG):
        (videos / name).write_bytes((faststart / name).read_bytes())
    split, options = split_of("whole.mp4", *WRONG), {"resolution": 32, "workers": 1}
    for _ in range(2):
        with pytest.raises(TooManyBadVideos, match=r"\n2 of 3 clips .* or end early") as failure:
            prepare(split, videos, tmp_path / "store", **options)
    assert (failure.value.report.already_done, failure.value.report.prepared) == (3, 0)
    assert "half.mp4" in str(failure.value)
    two = split_of("whole.mp4", "half.mp4")
    prepare(two, videos, tmp_path / "store", max_bad_share=1, **options)
    for name in WRONG:
        (videos / name).write_bytes((faststart / "whole.mp4").read_bytes())
    mended = prepare(split, videos, tmp_path / "store", **options)
    assert (mended.already_done, mended.prepared, mended.early) == (1, 2, ())
    assert prepare(split, videos, tmp_path / "store", **options).early == ()


def test_the_last_frame_of_an_overstated_length_is_no_damage():
    assert FrameCounts(9, 10).ends_early
    assert not FrameCounts(9, 10).lost_much
    assert FrameCounts(8, 10).lost_much
    assert not FrameCounts(90, 100).lost_much
    assert not FrameCounts(10, 10).ends_early
