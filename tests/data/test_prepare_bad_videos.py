"""Preparing a frame store from bad videos, and settings that do not fit."""

from __future__ import annotations

import json
import shutil

import pytest

from vtr_jax.data.frame_store import FrameStore, TooManyBadVideos, prepare
from vtr_jax.data.split import Split, VideoClip


def test_bad_videos_are_left_out_counted_and_listed(prepare_small, tmp_path, split_of_files):
    files = ["clip0.mp4", "clip1.mp4", "empty.mp4", "junk.mp4", "cut.mp4", "lost.mp4"]
    report = prepare_small(split_of_files(files), max_bad_share=0.7)
    reasons = {clip_id: reason.split(":")[0] for clip_id, _, reason in report.bad}
    assert reasons == {
        "cut": "cut off",
        "empty": "empty file",
        "junk": "not a video",
        "lost": "missing",
    }
    assert (report.clips, report.prepared, report.bad_share) == (6, 2, 4 / 6)
    assert FrameStore.open(tmp_path / "store").clip_ids == ("clip0", "clip1")
    written = json.loads((tmp_path / "store" / "report.json").read_text())
    assert written["bad"] == [bad._asdict() for bad in report.bad]
    assert written["clips"] == 6
    text = str(report)
    assert "6 clips asked for, 0 already done, 2 prepared" in text
    assert all(line in text for line in ("lost.mp4", "empty file: 0 bytes", "4 bad (66.7%)"))


def test_too_many_bad_videos_fail_and_mending_them_costs_nothing_twice(
    prepare_small, tmp_path, videos, split_of_files
):
    split = split_of_files(["clip0.mp4", "clip1.mp4", "clip2.mp4", "junk.mp4", "empty.mp4"])
    with pytest.raises(TooManyBadVideos, match=r"(?s)junk\.mp4.*\n2 of 5 .*40.0%.*report\.json$"):
        prepare_small(split)
    report = json.loads((tmp_path / "store" / "report.json").read_text())
    assert [bad["clip_id"] for bad in report["bad"]] == ["empty", "junk"]
    assert not (tmp_path / "store" / "dataset_info.json").exists()

    with pytest.raises(TooManyBadVideos) as again:
        prepare_small(split)
    assert (again.value.report.already_done, again.value.report.prepared) == (3, 0)
    for name in ("junk", "empty"):
        shutil.copy(videos / "clip3.mp4", videos / f"{name}.mp4")
    mended = prepare_small(split)
    assert (mended.already_done, mended.prepared, mended.bad) == (3, 2, ())


def test_known_bad_videos_are_not_decoded_again(prepare_small, tmp_path, split_of_files):
    split = split_of_files(["clip0.mp4", "junk.mp4"])
    prepare_small(split, max_bad_share=0.5)
    noted = tmp_path / "store" / "bad_clips.jsonl"
    with noted.open("a") as file:
        file.write('[["cut", "cut.mp4", "half a li')
    marked = noted.read_text().replace("not a video", "as noted before")
    noted.write_text(marked)
    again = prepare_small(split, max_bad_share=0.5)
    assert again.bad[0].reason.startswith("as noted before")
    finer = prepare_small(split, tmp_path / "other", max_bad_share=0.5)
    assert finer.bad[0].reason.startswith("not a video")


def test_missing_videos_fail_before_anything_is_decoded(prepare_small, tmp_path, split_of_files):
    split = split_of_files(["clip0.mp4", "lost.mp4", "gone.mp4"])
    with pytest.raises(TooManyBadVideos, match="2 of 3 clips") as failure:
        prepare_small(split)
    assert failure.value.report.prepared == 0
    assert not list((tmp_path / "store").glob(".work/parts/*/*.npz"))


def test_not_even_one_good_clip_is_a_failure(prepare_small, split_of_files):
    with pytest.raises(TooManyBadVideos, match=r"\nnot one of 1 clips can be prepared"):
        prepare_small(split_of_files(["junk.mp4"]), max_bad_share=1.0)


def test_a_clip_with_too_few_frames_is_too_short(prepare_small, split_of_files):
    split = split_of_files(["clip0.mp4", "clip1.mp4", "clip2.mp4"])
    report = prepare_small(split, min_frames=3, max_bad_share=0.9)
    assert [(bad.clip_id, bad.reason) for bad in report.bad] == [
        ("clip0", "too short: 1 frames, at least 3 wanted"),
        ("clip2", "too short: 2 frames, at least 3 wanted"),
    ]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"framerate": 2}, "framerate 1, not 2"),
        ({"resolution": 48}, "resolution 32, not 48"),
        ({"encoding": "png"}, "encoding 'jpeg', not 'png'; jpeg_quality 95, not None"),
        ({"jpeg_quality": 80}, "jpeg_quality 95, not 80"),
        ({"min_frames": 2}, "min_frames 1, not 2"),
    ],
)
def test_a_store_with_other_settings_is_refused(
    video_folder, store_dir, whole_split, tmp_path, other, said
):
    store = shutil.copytree(store_dir, tmp_path / "store")
    with pytest.raises(ValueError, match=f"was made with {said}: use the same settings"):
        prepare(whole_split, video_folder, store, **({"resolution": 32} | other))


def test_unfinished_work_with_other_settings_is_refused(prepare_small, split_of_files):
    split = split_of_files(["clip0.mp4", "junk.mp4"])
    with pytest.raises(TooManyBadVideos):
        prepare_small(split)
    with pytest.raises(ValueError, match=r"\.work was made with framerate 1, not 2"):
        prepare_small(split, framerate=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"framerate": -1}, "framerate: expected a whole number, 0 or more, got -1"),
        ({"framerate": 1.5}, "framerate: expected a whole number"),
        ({"resolution": 0}, "resolution: expected a whole number, 1 or more"),
        ({"encoding": "gif"}, r"encoding: expected one of \('jpeg', 'png'\), got 'gif'"),
        ({"jpeg_quality": 101}, "jpeg_quality: expected a whole number, 1 to 95, got 101"),
        ({"num_frames": 5}, "num_frames: frame_rule 'opencv' does not read it, leave it out"),
        ({"frame_rule": "xpool", "framerate": 3}, "framerate: frame_rule 'xpool' does not read"),
        ({"frame_rule": "decord", "framerate": 0}, "framerate: expected a whole number, 1 or"),
        ({"encoding": "png", "jpeg_quality": 50}, "jpeg_quality: encoding 'png' does not read"),
        ({"min_frames": 0}, "min_frames: expected a whole number, 1 or more"),
        ({"workers": 0}, "workers: expected 1 or more, got 0"),
        ({"max_bad_share": 1.1}, "max_bad_share: expected a share from 0 to 1, got 1.1"),
        ({"shard_bytes": 0}, "shard_bytes: expected 1 or more, got 0"),
    ],
)
def test_options_out_of_range_are_refused(prepare_small, tmp_path, whole_split, options, said):
    with pytest.raises(ValueError, match=said):
        prepare_small(whole_split, **options)
    assert not (tmp_path / "store").exists()


def test_a_store_that_is_a_file_or_the_videos_folder_is_refused(
    prepare_small, tmp_path, videos, whole_split
):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(NotADirectoryError, match="file: is a file, expected the folder of a frame"):
        prepare_small(whole_split, tmp_path / "file")
    with pytest.raises(OSError, match=r"file/store: .*cannot make the folder"):
        prepare_small(whole_split, tmp_path / "file" / "store")
    with pytest.raises(ValueError, match="videos: is the folder of the videos, expected a folder"):
        prepare_small(whole_split, videos / ".." / "videos")


def test_a_store_inside_the_videos_folder_is_warned_of(
    prepare_small, videos, split_of_files, caplog
):
    split = split_of_files(["clip0.mp4"])
    assert prepare_small(split, videos / "store").prepared == 1
    assert "store: the store lies inside the folder of the videos" in caplog.text
    assert prepare_small(split, videos / "store").already_done == 1


def test_clips_that_contradict_each_other_are_refused(prepare_small, whole_split):
    other = Split("toy", "test", (VideoClip("clip3", "clip4.mp4"),), (), [])
    with pytest.raises(ValueError, match=r"'clip3' means two things.*clip3\.mp4.*clip4\.mp4"):
        prepare_small([whole_split, other])


def test_times_that_make_no_sense_are_refused_by_clip(prepare_small):
    split = Split("toy", "train", (VideoClip("back", "clip0.mp4", 5.0, 2.0),), (), [])
    with pytest.raises(ValueError, match=r"clip 'back', file clip0\.mp4: .*start before end"):
        prepare_small(split)


def test_no_clip_at_all_is_refused(prepare_small):
    with pytest.raises(ValueError, match="no video clip to prepare: 1 splits"):
        prepare_small(Split("toy", "train", (), (), []))


def test_a_missing_folder_of_videos_is_named(tmp_path, whole_split):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prepare(whole_split, tmp_path / "nowhere", tmp_path / "store")


def test_notes_on_bad_clips_go_once_the_clips_are_mended(
    prepare_small, tmp_path, videos, split_of_files
):
    split = split_of_files(["clip0.mp4", "junk.mp4", "cut.mp4"])
    prepare_small(split, max_bad_share=0.9)
    noted = tmp_path / "store" / "bad_clips.jsonl"
    assert {json.loads(line)[0][0] for line in noted.read_text().splitlines()} == {"cut", "junk"}
    shutil.copy(videos / "clip3.mp4", videos / "junk.mp4")
    prepare_small(split, max_bad_share=0.9)
    assert [json.loads(line)[0][0] for line in noted.read_text().splitlines()] == ["cut"]


def test_training_clips_in_another_split_are_reported(prepare_small, tmp_path, split_of_files):
    train = split_of_files(["clip0.mp4", "clip1.mp4", "clip2.mp4"])
    test = split_of_files(["clip2.mp4", "clip3.mp4"], name="test")
    report = prepare_small([train, test])
    assert report.overlaps == {"test": ["clip2"]}
    assert "WARNING: 1 clips of test are also in train: clip2" in str(report)
    written = json.loads((tmp_path / "store" / "report.json").read_text())
    assert written["overlaps"] == {"test": ["clip2"]}
