"""Readers by name: their options, and which splits a folder has."""

from __future__ import annotations

import json

import pytest

from vtr_jax.data.annotations import (
    READERS,
    MissingSplit,
    available_splits,
    read_available_splits,
    read_split,
    reader_options,
)


@pytest.fixture
def msrvtt(tmp_path):
    sentences = [{"video_id": f"video{n}", "caption": "x"} for n in range(3)]
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps({"videos": [], "sentences": sentences}))
    (tmp_path / "MSRVTT_train.9k.csv").write_text("video_id\nvideo0\nvideo1\n")
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text("video_id,sentence\nvideo2,hello\n")
    return tmp_path


def test_splits_that_exist(msrvtt):
    assert available_splits("msrvtt", msrvtt) == ("train", "test")
    splits, missing = read_available_splits("msrvtt", msrvtt)
    assert [split.name for split in splits.values()] == ["train", "test"]
    assert set(missing) == {"val"} and "9k training list" in missing["val"]
    assert issubclass(MissingSplit, ValueError)


def test_options_count_for_the_splits_that_exist(msrvtt):
    (msrvtt / "MSRVTT_train.full.csv").write_text("video_id\nvideo0\n")
    (msrvtt / "MSRVTT_val.full.csv").write_text("video_id\nvideo1\n")
    assert available_splits("msrvtt", msrvtt, train_list="full") == ("train", "val", "test")
    assert available_splits("msrvtt", msrvtt, train_list="7k") == ("test",)


def test_captions_that_are_missing_do_not_hide_the_test_split(msrvtt):
    (msrvtt / "MSRVTT_data.json").unlink()
    splits, missing = read_available_splits("msrvtt", msrvtt)
    assert list(splits) == ["test"] and "fetch MSR-VTT's captions" in missing["train"]


def test_no_split_at_all_says_what_was_looked_for(tmp_path):
    with pytest.raises(
        MissingSplit, match=r"MSRVTT_train.9k.csv[^$]*\n.*: no split of msrvtt is there$"
    ):
        available_splits("msrvtt", tmp_path)


def test_broken_files_are_no_missing_splits(msrvtt):
    (msrvtt / "MSRVTT_train.9k.csv").write_text("video_id\nvideo0\nvideo0\n")
    with pytest.raises(ValueError, match="line 3: video0 stands on line 2 too") as error:
        available_splits("msrvtt", msrvtt)
    assert not isinstance(error.value, MissingSplit)


@pytest.mark.parametrize(
    "content, names",
    [
        ("video,caption,split\na.mp4,x,test\nb.mp4,y,dev\nc.mp4,z,test\n", ("test", "dev")),
        ("video,caption\na.mp4,x\n", ("all",)),
    ],
)
def test_splits_of_a_table(tmp_path, content, names):
    path = tmp_path / "own.csv"
    path.write_text(content)
    assert available_splits("table", path) == names
    with pytest.raises(MissingSplit):
        read_split("table", path, "train")


def test_a_close_split_name_of_a_table_is_suggested(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("video,caption,split\na.mp4,x,training\n")
    with pytest.raises(MissingSplit, match="did you mean training"):
        read_split("table", path, "train")


@pytest.mark.parametrize(
    "dataset, options, message",
    [
        ("msrvvt", {}, "dataset is 'msrvvt', expected one of .*did you mean msrvtt"),
        ("MSRVTT", {}, "did you mean msrvtt"),
        ("msrvtt", {"trainlist": "9k"}, "has no option trainlist.*did you mean train_list"),
        ("msrvtt", {"system": "x-pool"}, "system is 'x-pool'.*did you mean xpool"),
        ("table", {"system": "xpool"}, "table has no option system; its options: none"),
    ],
)
def test_what_is_misspelt_is_named_with_what_was_meant(msrvtt, dataset, options, message):
    with pytest.raises(ValueError, match=message):
        read_split(dataset, msrvtt, "test", **options)
    with pytest.raises(ValueError, match=message):
        available_splits(dataset, msrvtt, **options)


@pytest.mark.parametrize("dataset", sorted(set(READERS) - {"table"}))
def test_every_reader_refuses_a_folder_that_is_not_there(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    for path, why in ((tmp_path / "none", "no such folder"), (tmp_path / "file", "a file")):
        with pytest.raises(FileNotFoundError, match=why):
            read_split(dataset, path, "test")
    assert "system" in reader_options(dataset)
    with pytest.raises(ValueError, match="split is 'tset'.*did you mean test"):
        read_split(dataset, tmp_path, "tset")


def test_a_key_that_many_objects_have_is_named_without_a_line(msrvtt):
    sentences = '{"video_id": "a", "caption": "x"},\n{"caption": 1, "caption": 2}'
    (msrvtt / "MSRVTT_data.json").write_text(f'{{"videos": [], "sentences": [{sentences}]}}')
    with pytest.raises(ValueError, match="MSRVTT_data.json: 'caption' stands twice"):
        read_split("msrvtt", msrvtt, "train")


def test_a_repeated_key_beyond_ascii_is_found(msrvtt):
    (msrvtt / "MSRVTT_data.json").write_text('{"é": 1,\n"é": 2}', encoding="utf-8")
    with pytest.raises(ValueError, match="MSRVTT_data.json, line 2: 'é' stands twice"):
        read_split("msrvtt", msrvtt, "train")
