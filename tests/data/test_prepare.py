"""Preparing a frame store: repeated, enlarged, with stretches of videos."""

from __future__ import annotations

import os
import time

from vtr_jax.data.frame_store import FrameStore
from vtr_jax.data.split import Split, VideoClip


def test_the_same_command_again_has_nothing_to_do(contents, prepare_small, tmp_path, whole_split):
    first = prepare_small(whole_split)
    before = contents(tmp_path / "store")
    times = {name: (tmp_path / "store" / name).stat().st_mtime_ns for name in before}
    second = prepare_small(whole_split)
    assert (first.already_done, first.prepared, first.frames) == (0, 10, 36)
    assert (second.already_done, second.prepared, second.frames) == (10, 0, 36)
    assert (
        second.bytes == first.bytes == sum(len(before[name]) for name in before if "-of-" in name)
    )
    assert contents(tmp_path / "store") == before
    assert times == {name: (tmp_path / "store" / name).stat().st_mtime_ns for name in before}


def test_progress_says_how_many_clips_are_done(prepare_small, whole_split, capsys):
    prepare_small(whole_split.restrict(["clip0", "clip4", "clip8"]))
    capsys.readouterr()
    prepare_small(whole_split)
    assert "prepare (3 already done)" in capsys.readouterr().err


def test_a_store_grows_to_what_it_would_be_if_made_at_once(
    contents, prepare_small, tmp_path, whole_split, store_dir
):
    prepare_small(whole_split.restrict(["clip7", "clip2", "clip5"]))
    report = prepare_small(whole_split.restrict(["clip5", "clip0", "clip9"]))
    assert (report.clips, report.already_done, report.prepared) == (3, 1, 2)
    prepare_small(whole_split)
    assert contents(tmp_path / "store") == contents(store_dir)


def test_splits_are_united_and_a_clip_in_both_is_decoded_once(
    contents, prepare_small, tmp_path, whole_split, store_dir, split_of_files
):
    test = split_of_files(["clip3.mp4", "clip4.mp4"], name="test")
    report = prepare_small([whole_split, test])
    assert (report.clips, report.prepared) == (10, 10)
    assert contents(tmp_path / "store") == contents(store_dir)


def test_a_changed_video_is_decoded_again_and_a_touched_one_is_not(
    prepare_small, tmp_path, videos, whole_split, render
):
    prepare_small(whole_split)
    before = FrameStore.open(tmp_path / "store")
    render(videos / "clip3.mp4", 2, 10, 77)
    os.utime(videos / "clip4.mp4", (time.time() + 9, time.time() + 9))
    report = prepare_small(whole_split)
    assert (report.already_done, report.prepared) == (9, 1)
    after = FrameStore.open(tmp_path / "store")
    assert after.num_frames[after.index_of("clip3")] == 2
    assert after.read(4) == before.read(4)


def test_videos_may_be_deleted_once_they_are_stored(prepare_small, videos, whole_split):
    prepare_small(whole_split)
    (videos / "clip6.mp4").unlink()
    report = prepare_small(whole_split)
    assert (report.already_done, report.bad) == (10, ())


def test_a_stored_clip_whose_video_became_bad_leaves_the_store(
    prepare_small, tmp_path, videos, whole_split
):
    prepare_small(whole_split)
    (videos / "clip6.mp4").write_bytes(b"")
    report = prepare_small(whole_split, max_bad_share=0.1)
    assert [bad.clip_id for bad in report.bad] == ["clip6"]
    assert "clip6" not in FrameStore.open(tmp_path / "store")


def test_start_and_end_choose_the_stretch(prepare_small, tmp_path, videos):
    clips = (
        VideoClip("whole", "clip5.mp4"),
        VideoClip("middle", "clip5.mp4", 2.0, 5.0),
        VideoClip("rest", "clip5.mp4", 6.0),
    )
    prepare_small(Split("toy", "train", clips, (), []))
    opened = FrameStore.open(tmp_path / "store")
    frames = {clip_id: opened.read(opened.index_of(clip_id)) for clip_id in opened.clip_ids}
    assert frames["middle"] == frames["whole"][2:6]
    assert frames["rest"] == frames["whole"][6:]
    moved = (*clips[:2], VideoClip("rest", "clip5.mp4", 7.0))
    report = prepare_small(Split("toy", "train", moved, (), []))
    assert (report.already_done, report.prepared) == (2, 1)
