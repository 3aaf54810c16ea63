"""Splits: their checks, hash, restriction, overlap, and the search for their video files."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from vtr_jax.data.annotations import read_split
from vtr_jax.data.split import (
    Split,
    VideoClip,
    check_overlap,
    clip_name,
    find_video_files,
)


def make_split(*clips: VideoClip, name: str = "train", captions_each: int = 1) -> Split:
    relation = np.repeat(np.arange(len(clips)), captions_each)
    captions = tuple(f"caption {i} of {clips[i].clip_id}" for i in relation)
    return Split("table", name, clips, captions, relation)


def files(*names: str) -> Split:
    return make_split(*(VideoClip(clip_name(name), name) for name in names))


@pytest.fixture
def mixed() -> Split:
    clips = tuple(VideoClip(name, f"{name}.mp4") for name in "abc")
    return Split("table", "test", clips, ("c0", "a0", "c1", "b0"), np.array([2, 0, 2, 1]))


def test_captions_of(mixed):
    assert [mixed.captions_of(index) for index in range(3)] == [[1], [3], [0, 2]]
    mixed.captions_of(2).clear()
    assert mixed.captions_of(2) == [0, 2]


def test_relation_is_a_read_only_int32_copy():
    relation = np.array([0], np.int64)
    split = Split("table", "train", (VideoClip("a", "a.mp4"),), ("x",), relation)
    relation[0] = 5
    assert split.caption_clip.dtype == np.int32 and split.caption_clip[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        split.caption_clip[0] = 1


@pytest.mark.parametrize(
    "clips, captions, relation, message",
    [
        (("a", "a"), ("x", "y"), [0, 1], r"table train: 1 clip ids occur more than once.*'a'"),
        (("a",), ("x", "y"), [0], r"caption_clip has shape \(1,\), expected \(2,\)"),
        (("a",), ("x",), [1], r"caption_clip holds 1\.\.1, expected indices into 1 clips"),
        (("a",), ("x",), [-1], r"caption_clip holds -1\.\.-1"),
    ],
)
def test_refuses_what_does_not_fit(clips, captions, relation, message):
    with pytest.raises(ValueError, match=message):
        Split(
            "table",
            "train",
            tuple(VideoClip(clip, f"{clip}.mp4") for clip in clips),
            captions,
            np.array(relation),
        )


def test_restrict_keeps_order_and_relation(mixed):
    kept = mixed.restrict(["c", "a"])
    assert [clip.clip_id for clip in kept.clips] == ["a", "c"]
    assert kept.captions == ("c0", "a0", "c1")
    assert kept.caption_clip.tolist() == [1, 0, 1]
    assert kept.sha256() != mixed.sha256()
    assert mixed.restrict(["a", "b", "c"]).sha256() == mixed.sha256()
    nothing = mixed.restrict([])
    assert (nothing.clips, nothing.captions, len(nothing.caption_clip)) == ((), (), 0)


def test_restrict_refuses_unknown_clips(mixed):
    with pytest.raises(ValueError, match="1 clip ids to keep are not in the split.*'zebra'"):
        mixed.restrict(["a", "zebra"])


def test_hash_follows_content_and_order_only(mixed):
    def changed(**fields) -> str:
        return dataclasses.replace(mixed, **fields).sha256()

    assert changed(dataset="msrvtt", name="train") == mixed.sha256()
    moved = tuple(dataclasses.replace(clip, file=f"x/{clip.file}") for clip in mixed.clips)
    assert changed(clips=moved) == mixed.sha256()
    whole = dataclasses.replace(mixed.clips[0], start=1, end=2)
    real = dataclasses.replace(mixed.clips[0], start=1.0, end=2.0)
    rest = mixed.clips[1:]
    assert changed(clips=(whole, *rest)) == changed(clips=(real, *rest))
    hashes = {
        mixed.sha256(),
        changed(clips=(whole, *rest)),
        changed(clips=mixed.clips[::-1]),
        changed(captions=("c0", "a0", "c1", "other")),
        changed(captions=mixed.captions[::-1]),
        changed(caption_clip=np.array([2, 1, 2, 0])),
    }
    assert len(hashes) == 6


def test_what_is_hashed():
    split = Split("table", "train", (VideoClip("a", "a.mp4", 0.5),), ("café",), np.array([0]))
    content = b'[[["a", 0.5, null]], ["caf\\u00e9"], [0]]'
    assert split.sha256() == hashlib.sha256(content).hexdigest()


def test_overlap_by_id_and_by_time():
    train = make_split(
        VideoClip("same", "x.mp4"),
        VideoClip("cut#5-10", "cut.mp4", 5, 10),
        VideoClip("whole", "whole.mp4"),
        VideoClip("open", "open.mp4", 20, None),
    )
    test = make_split(
        VideoClip("whole#3-4", "whole.mp4", 3, 4),
        VideoClip("same", "y.mp4"),
        VideoClip("cut#0-5", "cut.mp4", 0, 5),
        VideoClip("cut#9-12", "cut.mp4", 9, 12),
        VideoClip("open#0-20", "open.mp4", None, 20),
        VideoClip("open#0-21", "open.mp4", None, 21),
        VideoClip("other", "other.mp4"),
        name="test",
    )
    assert check_overlap(train, test) == ["whole#3-4", "same", "cut#9-12", "open#0-21"]
    assert check_overlap(train, make_split(VideoClip("new", "new.mp4"))) == []


def test_finds_files_in_place_deeper_and_with_other_extensions(tmp_path):
    for name in ("a.mp4", "deep/er/b.mp4", "c.webm", "deep/d.AVI", "x/e.mp4", "00.05.16.065.mkv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    split = files("a.mp4", "b.mp4", "c.mp4", "d.mp4", "x/e.mov", "00.05.16.065", "none.mp4")
    found, missing = find_video_files(split, tmp_path)
    assert {clip: str(path.relative_to(tmp_path)) for clip, path in found.items()} == {
        "a": "a.mp4",
        "b": "deep/er/b.mp4",
        "c": "c.webm",
        "d": "deep/d.AVI",
        "x/e": "x/e.mp4",
        "00.05.16.065": "00.05.16.065.mkv",
    }
    assert set(missing) == {"none"}
    assert "none.mp4: not in" in missing["none"]


def test_the_named_place_wins_and_folders_count(tmp_path):
    for name in ("a.mp4", "x/a.mp4", "y/b.mp4", "z/b.mp4", "y/c.avi", "z/c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found, missing = find_video_files(files("a.mp4", "z/b.mp4", "c.mp4"), tmp_path)
    assert missing == {}
    assert [str(path.relative_to(tmp_path)) for path in found.values()] == [
        "a.mp4",
        "z/b.mp4",
        "z/c.mp4",
    ]
    assert find_video_files(files("w/a.mp4"), tmp_path)[0] == {}


def test_reports_ambiguous_files(tmp_path):
    for name in ("x/b.mp4", "y/b.mp4", "c.avi", "c.webm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found, missing = find_video_files(files("b.mp4", "c.mp4"), tmp_path)
    assert found == {}
    assert "2 files" in missing["b"] and "x/b.mp4, y/b.mp4" in missing["b"]
    assert "c.avi, c.webm" in missing["c"]


def test_absolute_paths_and_linked_folders(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    videos = tmp_path / "videos"
    elsewhere.mkdir()
    videos.mkdir()
    (elsewhere / "a.mp4").write_bytes(b"x")
    (videos / "link").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(videos)
    absolute = str(elsewhere / "a.mp4")
    split = make_split(
        VideoClip("absolute", absolute),
        VideoClip("linked", "a.mp4"),
        VideoClip("gone", str(elsewhere / "gone.mp4")),
    )
    found, missing = find_video_files(split, videos)
    assert str(found["absolute"]) == absolute
    assert found["linked"] == videos / "link" / "a.mp4"
    assert missing["gone"].endswith("gone.mp4: no such file")


def test_other_names_count_after_the_own_one(tmp_path):
    for name in ("v_a.mp4", "a.mp4", "deep/b.mkv", "deep/dot.", "x/d.mp4", "y/d.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    split = make_split(
        *(VideoClip(name, f"v_{name}.mp4", other_names=(f"{name}.mp4",)) for name in "abcd"),
        VideoClip("dot.", "dot.", other_names=("dot.mp4",)),
    )
    found, missing = find_video_files(split, tmp_path)
    assert {clip: str(path.relative_to(tmp_path)) for clip, path in found.items()} == {
        "a": "v_a.mp4",
        "b": "deep/b.mkv",
        "dot.": "deep/dot.",
    }
    assert missing["c"].startswith("v_c.mp4, or c.mp4: not in")
    assert "2 files in" in missing["d"] and "x/d.mp4, y/d.mp4" in missing["d"]


def test_a_folder_of_the_name_is_said_to_be_one(tmp_path):
    (tmp_path / "a").mkdir()
    _, missing = find_video_files(files("a.mp4", "b.mp4"), tmp_path)
    assert missing["a"].endswith("a is a folder; of images? Then give --frame_rule=..._folder")
    assert "folder;" not in missing["b"]


def test_other_names_are_no_part_of_what_a_clip_is():
    plain = VideoClip("a", "v_a.mp4")
    other = VideoClip("a", "v_a.mp4", other_names=("a.mp4",))
    assert plain == other and hash(plain) == hash(other)


def test_notes_stay_with_what_is_kept_and_out_of_the_hash(mixed):
    noted = dataclasses.replace(mixed, notes=("2 left out",))
    assert noted.restrict(["a"]).notes == ("2 left out",)
    assert noted.sha256() == mixed.sha256()


def test_videos_folder_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.*no such folder"):
        find_video_files(files("a.mp4"), tmp_path / "nowhere")


def test_clip_name_cuts_video_extensions_only():
    names = ["video7.mp4", "x/y.MOV", "00.05.16.065-00.05.21.941", "plain", "a.b.webm"]
    assert [clip_name(name) for name in names] == [
        *("video7", "x/y", "00.05.16.065-00.05.21.941", "plain", "a.b")
    ]


def test_read_split_finds_the_reader(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("video,caption,split\na.mp4,hello,train\n")
    assert read_split("table", path, "train").captions == ("hello",)


def test_read_split_refuses_unknown_names(tmp_path):
    with pytest.raises(ValueError, match="dataset is 'msrvt', expected one of .*mean msrvtt"):
        read_split("msrvt", tmp_path, "train")
    with pytest.raises(
        ValueError,
        match="msrvtt has no option trainlist; its options: train_list, test_list, .*train_list",
    ):
        read_split("msrvtt", tmp_path, "train", trainlist="9k")
    with pytest.raises(ValueError, match="table has no option x; its options: none"):
        read_split("table", tmp_path, "train", x=1)
