"""MSR-VTT's lists and captions: the upstream loaders' pairs, real lists, and broken files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from vtr_jax.data.annotations import MissingSplit
from vtr_jax.data.annotations.msrvtt import read_msrvtt
from vtr_jax.data.split import check_overlap, find_video_files


@pytest.fixture(scope="module")
def real(real_annotations) -> Path:
    return real_annotations / "msrvtt"


@pytest.fixture
def synthetic(real, tmp_path) -> tuple[Path, dict]:
    """The synthetic excerpt under the public names, and what the upstream loaders gave for it."""
    for source, name in {
        "MSRVTT_data.synthetic.json": "MSRVTT_data.json",
        "MSRVTT_train.synthetic.csv": "MSRVTT_train.9k.csv",
        "MSRVTT_test.synthetic.csv": "MSRVTT_JSFUSION_test.csv",
    }.items():
        shutil.copyfile(real / source, tmp_path / name)
    shutil.copyfile(tmp_path / "MSRVTT_JSFUSION_test.csv", tmp_path / "MSRVTT_test.full.csv")
    return tmp_path, json.loads((real / "synthetic.expected.json").read_text())


def test_training_pairs_are_those_of_the_upstream_loaders(synthetic, pairs):
    folder, expected = synthetic
    split = read_msrvtt(folder, "train")
    assert pairs(split) == expected["train_expanded"]
    listed = expected["train_not_expanded"]
    assert [clip.clip_id for clip in split.clips] == listed["video_of_each_item"]
    choices = {clip.clip_id: len(split.captions_of(i)) for i, clip in enumerate(split.clips)}
    assert choices == listed["caption_choices_per_video"]


def test_test_pairs_are_those_of_the_upstream_loaders(synthetic, pairs):
    folder, expected = synthetic
    split = read_msrvtt(folder, "test")
    assert pairs(split) == expected["test"]
    assert split.clips[0].file == "video7.mp4"
    assert (split.dataset, split.name) == ("msrvtt", "test")


def test_full_test_set_is_grouped_by_clip(synthetic, pairs):
    folder, expected = synthetic
    split = read_msrvtt(folder, "test", test_list="full")
    upstream = expected["multi_sentence_test_of_test_csv_videos"]
    ours = pairs(split)
    assert len(ours) == upstream["sentence_num"] and len(split.clips) == upstream["video_num"]
    assert [clip.clip_id for clip in split.clips] == ["video7", "video8", "video9"]
    assert sorted(split.caption_clip.tolist()) == split.caption_clip.tolist()
    for video_id in ("video7", "video8", "video9"):
        theirs = [pair for pair in upstream["pairs"] if pair[0] == video_id]
        assert [pair for pair in ours if pair[0] == video_id] == theirs


def test_training_pairs_of_xpool_are_grouped_in_list_order(synthetic, pairs):
    folder, expected = synthetic
    assert (
        pairs(read_msrvtt(folder, "train", system="xpool"))
        == expected["train_expanded_xpool_order"]
    )


def test_train_and_test_are_disjoint(synthetic):
    folder, _ = synthetic
    assert check_overlap(read_msrvtt(folder, "train"), read_msrvtt(folder, "test")) == []


def test_real_test_list(real, digest):
    split = read_msrvtt(real, "test")
    assert len(split.clips) == len(split.captions) == 1000
    assert split.caption_clip.tolist() == list(range(1000))
    assert len(set(split.captions)) == 995
    assert split.clips[0].clip_id == "video9770"
    assert split.clips[-1].clip_id == "video9871"
    assert [digest(split.captions[n]) for n in (0, -1)] == ["a94d4a834b77", "bf1a1b6612ac"]


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory) -> Path:
    """A data file of the real one's form with two captions a video, not in blocks."""
    path = tmp_path_factory.mktemp("data") / "captions.json"
    ids = [f"video{number}" for number in range(10_000)]
    sentences = [
        {"sen_id": n, "video_id": video_id, "caption": f"caption {n}"}
        for n, video_id in enumerate(ids + ids[::-1])
    ]
    videos = [{"video_id": video_id} for video_id in ids]
    path.write_text(json.dumps({"info": {}, "videos": videos, "sentences": sentences}))
    return path


@pytest.mark.parametrize(
    "split, options, clips",
    [
        ("train", {"train_list": "9k"}, 9000),
        ("train", {"train_list": "7k"}, 7010),
        ("train", {"train_list": "full"}, 6513),
        ("val", {"train_list": "full"}, 497),
        ("test", {"test_list": "full"}, 2990),
        ("train", {"train_list": "1k-B"}, 6656),
        ("test", {"test_list": "1k-B"}, 1000),
    ],
)
def test_real_lists(real, ten_thousand, split, options, clips):
    read = read_msrvtt(real, split, data_file=ten_thousand, **options)
    assert len(read.clips) == clips
    assert len(read.captions) == 2 * clips
    assert all(len(read.captions_of(index)) == 2 for index in range(0, clips, 97))


def test_relations_of_the_real_lists(real, ten_thousand):
    def ids(split: str, **options) -> set[str]:
        read = read_msrvtt(real, split, data_file=ten_thousand, **options)
        return {clip.clip_id for clip in read.clips}

    nine, seven, test = ids("train"), ids("train", train_list="7k"), ids("test")
    assert seven < nine and not nine & test and len(nine | test) == 10_000
    assert test < ids("test", test_list="full")
    validation = ids("val", train_list="full")
    assert validation < seven
    assert not validation & ids("train", train_list="full")
    assert not ids("train", train_list="1k-B") & ids("test", test_list="1k-B")
    assert len(ids("test", test_list="1k-B") & test) == 296
    assert len(ids("train", train_list="1k-B") & test) == 453
    assert len(ids("train", train_list="1k-B") & validation) == 360


def test_lists_of_collaborative_experts_are_taken_where_there_are_no_others(real, tmp_path):
    """The 9k list under its other name gives the same clips in the same order."""
    shutil.copyfile(real / "train_list_jsfusion.txt", tmp_path / "train_list_jsfusion.txt")
    data = {"videos": [], "sentences": []}
    data["sentences"] = [{"video_id": f"video{n}", "caption": "x"} for n in range(10_000)]
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps(data))
    ours = read_msrvtt(tmp_path, "train")
    theirs = read_msrvtt(real, "train", data_file=tmp_path / "MSRVTT_data.json")
    assert ours.sha256() == theirs.sha256() and len(ours.clips) == 9000


def test_validation_list_is_refused_with_a_training_list_that_holds_it(real):
    for train_list in ("9k", "7k"):
        with pytest.raises(MissingSplit, match=f"{train_list} training list; use"):
            read_msrvtt(real, "val", train_list=train_list)


# Files made here, small and broken in one way each.


@pytest.fixture
def folder(tmp_path) -> Path:
    data = {
        "videos": [{"video_id": f"video{n}"} for n in range(4)],
        "sentences": [
            {"video_id": "video1", "caption": "one"},
            {"video_id": "video0", "caption": "zero"},
            {"video_id": "video3", "caption": "elsewhere"},
            {"video_id": "video1", "caption": "one again"},
        ],
    }
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps(data))
    (tmp_path / "MSRVTT_train.9k.csv").write_text("video_id\nvideo0\nvideo1\n")
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text(
        "key,vid_key,video_id,sentence\nret0,msr2,video2,hello\n"
    )
    return tmp_path


def test_captions_keep_the_order_of_the_data_file(folder, pairs):
    assert pairs(read_msrvtt(folder, "train")) == [
        ["video1", "one"],
        ["video0", "zero"],
        ["video1", "one again"],
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfvideo_id\nvideo0\nvideo1\n",
        b"video_id\r\nvideo0\r\nvideo1\r\n",
        b" Video_ID ,extra\nvideo0,x\n\n video1 ,y",
    ],
)
def test_byte_order_mark_line_ends_and_extra_columns(folder, content):
    (folder / "MSRVTT_train.9k.csv").write_bytes(content)
    clips = read_msrvtt(folder, "train").clips
    assert [clip.clip_id for clip in clips] == ["video0", "video1"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", r"9k.csv: the file is empty, expected the columns video_id"),
        ("video_id\n", r"9k.csv: no videos"),
        ("video0\nvideo1\n", r"must name the columns video_id; missing: video_id; found: video0"),
        ("video_id\nvideo0\nvideo1\nvideo0\n", r"line 4: video0 stands on line 2 too"),
        ("video_id,x\nvideo0,1\nvideo1\n", r"line 3: 1 fields, the first line names 2"),
        ("video_id,x\n,1\n", r"line 2: no video id"),
        ("video_id,video_id\nvideo0,1\n", r"names a column twice"),
        ('video_id\n"video0\nvideo1\n', r"9k.csv, line 2: broken quoting"),
        (
            "video_id\nvideo0\nvideo2\n",
            r"1 of 2 videos have no caption in .*, e.g. video2",
        ),
        ("video_id\nvideo0\nvideo77\n", r"1 of 2 videos have no caption.*video77"),
    ],
)
def test_broken_lists(folder, content, message):
    (folder / "MSRVTT_train.9k.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_msrvtt(folder, "train")


@pytest.mark.parametrize(
    "content, message",
    [
        ("key,vid_key,video_id\nret0,msr2,video2\n", "missing: sentence; found: key, vid_key"),
        ("key,vid_key,video_id,sentence\nr,m,video2,\n", "line 2: no sentence"),
        ("key,vid_key,video_id,sentence\nr,m,v,a, b\n", "line 2: 5 fields.*quote texts"),
        ("key,vid_key,video_id,sentence\nr,m,v,a\nr,m,v,b\n", "line 3: v stands on line 2 too"),
    ],
)
def test_broken_test_lists(folder, content, message):
    (folder / "MSRVTT_JSFUSION_test.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_msrvtt(folder, "test")


def test_quoted_sentences(folder):
    with (folder / "MSRVTT_JSFUSION_test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "vid_key", "video_id", "sentence"])
        writer.writerow(["r", "m", "video2", 'a "dog", and\na cat'])
    assert read_msrvtt(folder, "test").captions == ('a "dog", and\na cat',)


def test_wrong_encoding_names_the_line(folder):
    (folder / "MSRVTT_train.9k.csv").write_bytes(b"video_id\nvideo0\nvid\xe9o1\n")
    with pytest.raises(ValueError, match="9k.csv, line 3: byte 0xe9 is not UTF-8"):
        read_msrvtt(folder, "train")


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", r"MSRVTT_data.json: not JSON"),
        ("[" * 100_000, r"MSRVTT_data.json: not JSON"),
        ("[]", r"expected an object with the lists 'videos' and 'sentences'"),
        ('{"videos": []}', r"expected an object with the lists"),
        ('{"videos": [], "sentences": [{"video_id": "video0"}]}', r"sentences\[0\] is .*expected"),
        ('{"videos": [], "sentences": ["x"]}', r"sentences\[0\] is x"),
        ('{"videos": [], "sentences": []}', r"2 of 2 videos have no caption"),
    ],
)
def test_broken_data_files(folder, content, message):
    (folder / "MSRVTT_data.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_msrvtt(folder, "train")


def test_data_file_under_another_name(folder):
    expected = read_msrvtt(folder, "train").sha256()
    (folder / "MSRVTT_data.json").rename(folder / "captions.json")
    (folder / "other.json").write_text('{"videos": []}')
    assert read_msrvtt(folder, "train").sha256() == expected
    shutil.copyfile(folder / "captions.json", folder / "copy.json")
    with pytest.raises(ValueError, match="as --data_file: captions.json, copy.json"):
        read_msrvtt(folder, "train")
    assert read_msrvtt(folder, "train", data_file=folder / "copy.json").sha256() == expected


def test_missing_files(folder):
    with pytest.raises(FileNotFoundError, match="elsewhere: no such folder"):
        read_msrvtt(folder / "elsewhere", "train")
    with pytest.raises(MissingSplit, match="MSRVTT_train.7k.csv: no such annotation file"):
        read_msrvtt(folder, "train", train_list="7k")
    with pytest.raises(FileNotFoundError, match="absent.json: no such annotation file"):
        read_msrvtt(folder, "train", data_file=folder / "absent.json")
    (folder / "MSRVTT_data.json").unlink()
    with pytest.raises(MissingSplit, match="MSRVTT_data.json: no such file, and no other"):
        read_msrvtt(folder, "train")
    assert read_msrvtt(folder, "test").captions == ("hello",)


def test_unknown_names(folder):
    with pytest.raises(ValueError, match="split is 'dev', expected one of train, val, test"):
        read_msrvtt(folder, "dev")
    with pytest.raises(ValueError, match="train_list is '8k', expected one of 9k, 7k, full, 1k-B"):
        read_msrvtt(folder, "train", train_list="8k")
    with pytest.raises(
        ValueError, match="test_list is '1k-C', expected one of 1k-A, full.*mean 1k-B"
    ):
        read_msrvtt(folder, "test", test_list="1k-C")


def test_video_files_of_any_kind_and_place(folder):
    split = read_msrvtt(folder, "train")
    (folder / "TrainVal").mkdir()
    (folder / "TrainVal" / "video0.webm").write_bytes(b"x")
    found, missing = find_video_files(split, folder)
    assert found == {"video0": folder / "TrainVal" / "video0.webm"}
    assert set(missing) == {"video1"}
