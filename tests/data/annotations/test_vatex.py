"""VATEX's lists, and captions in each of the layouts they come in."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest

from vtr_jax.data.annotations import MissingSplit, available_splits
from vtr_jax.data.annotations.vatex import DATA_FILE, OFFICIAL_FILES, read_vatex
from vtr_jax.data.split import check_overlap

LAYOUTS = {
    "vatex_data.synthetic.json": DATA_FILE,
    "vatex_official_style.synthetic.json": OFFICIAL_FILES[0],
}


@pytest.fixture(scope="module")
def real(real_annotations) -> Path:
    return real_annotations / "vatex"


@pytest.fixture(params=LAYOUTS)
def synthetic(request, real, tmp_path) -> tuple[Path, dict]:
    shutil.copyfile(real / "train_list.synthetic.txt", tmp_path / "train_list.txt")
    shutil.copyfile(real / "test_list.synthetic.txt", tmp_path / "test_list.txt")
    shutil.copyfile(real / request.param, tmp_path / LAYOUTS[request.param])
    return tmp_path, json.loads((real / "synthetic.expected.json").read_text())


@pytest.mark.parametrize("split", ["train", "test"])
def test_pairs_are_those_of_the_upstream_loader(synthetic, pairs, split):
    folder, expected = synthetic
    read = read_vatex(folder, split)
    with_file = {clip.clip_id for clip in read.clips} - {expected["video_without_a_file"]}
    read = read.restrict(with_file)
    assert pairs(read) == expected[split]["pairs"]
    sizes = [len(read.captions_of(clip)) for clip in range(len(read.clips))]
    assert list(itertools.accumulate(sizes)) == expected[split]["cut_off_points"]


@pytest.fixture(scope="module")
def every_caption(real, tmp_path_factory) -> Path:
    """Ten made-up captions for every id of the real lists."""
    names = ("train_list.txt", "val_list.txt", "test_list.txt")
    ids = [each for name in names for each in (real / name).read_text().split()]
    path = tmp_path_factory.mktemp("vatex") / "captions.json"
    path.write_text(
        json.dumps({each: {"enCap": [f"{each} {n}" for n in range(10)]} for each in ids})
    )
    return path


def test_real_lists(real, every_caption):
    train, val, test = (
        read_vatex(real, name, captions_file=every_caption) for name in ("train", "val", "test")
    )
    second = read_vatex(real, "test", test_list="1k5_sec", captions_file=every_caption)
    splits = (train, val, test, second)
    assert [len(split.clips) for split in splits] == [25_991, 1500, 1500, 1500]
    assert all(len(split.captions) == 10 * len(split.clips) for split in splits)
    assert train.clips[0].clip_id == (real / "train_list.txt").read_text().split()[0]
    assert not check_overlap(train, test) + check_overlap(train, val) + check_overlap(val, test)
    assert len(check_overlap(val, second)) == 776 and len(check_overlap(test, second)) == 724


def test_real_lists_without_captions_say_what_is_needed(real):
    with pytest.raises(
        MissingSplit, match=r"'train' \(25991 videos in train_list.txt\) needs vatex"
    ):
        read_vatex(real, "train")


CAPTIONS = {"-one_1": ["a", "b"], "_two": ["c"]}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "test_list.txt").write_text("-one_1\n_two\n")
    data = {name: {"enCap": texts, "chCap": ["一"]} for name, texts in CAPTIONS.items()}
    (tmp_path / DATA_FILE).write_text(json.dumps(data))
    return tmp_path


def official(**captions: list[str]) -> str:
    return json.dumps([{"videoID": name, "enCap": texts} for name, texts in captions.items()])


def test_captions_in_two_official_files(folder):
    expected = read_vatex(folder, "test").sha256()
    (folder / DATA_FILE).unlink()
    for name in OFFICIAL_FILES[::2]:
        (folder / name).unlink(missing_ok=True)
    (folder / OFFICIAL_FILES[0]).write_text(official(_two=["c"]))
    (folder / OFFICIAL_FILES[2]).write_text(official(**{"-one_1": ["a", "b"]}))
    assert read_vatex(folder, "test").sha256() == expected
    (folder / OFFICIAL_FILES[2]).write_text(official(_two=["c"], **{"-one_1": ["a", "b"]}))
    with pytest.raises(
        ValueError, match=r"validation_v1.0.json: entry 0 \(_two\) is in .*training"
    ):
        read_vatex(folder, "test")


def test_forms_of_the_list(folder, list_bytes):
    expected = read_vatex(folder, "test").sha256()
    (folder / "test_list.txt").write_bytes(list_bytes)
    assert read_vatex(folder, "test").sha256() == expected


def test_videos_without_captions_are_refused_but_by_internvideo(folder):
    (folder / "test_list.txt").write_text("_two\nthree\n")
    with pytest.raises(ValueError, match="1 of 2 videos have no caption in .*, e.g. three"):
        read_vatex(folder, "test")
    read = read_vatex(folder, "test", system="internvideo")
    assert [clip.clip_id for clip in read.clips] == ["_two"]
    assert read.notes == ("1 of 2 videos left out, as internvideo does: no captions",)
    (folder / "test_list.txt").write_text("three\n")
    with pytest.raises(ValueError, match="none of its 1 videos has captions"):
        read_vatex(folder, "test", system="internvideo")


@pytest.mark.parametrize(
    "content, message",
    [
        ("3", "vatex_data.json: 3, expected an object of video ids, or a list of objects"),
        ('{"a": ["x"]}', "a is .*expected an object with the list of texts enCap"),
        ('{"a": {"chCap": ["x"]}}', "a is .*enCap"),
        ('{"a": {"enCap": "x"}}', "a is .*enCap"),
        ('{"a": {"enCap": [1]}}', "a is .*enCap"),
        ('[{"enCap": ["x"]}]', r"entry 0 \(None\) is .*enCap"),
        ("[3]", r"entry 0 \(None\) is 3"),
        (official(a=["x"])[:-1] + "," + official(a=["y"])[1:], r"entry 1 \(a\) is in .* before"),
        ('{"_two": 1,\n"_two": 2}', "vatex_data.json, line 2: '_two' stands twice"),
    ],
)
def test_broken_captions(folder, content, message):
    (folder / DATA_FILE).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_vatex(folder, "test")


def test_missing_files(folder):
    assert available_splits("vatex", folder) == ("test",)
    with pytest.raises(MissingSplit, match="'test' needs test1k5_sec_list.txt"):
        read_vatex(folder, "test", test_list="1k5_sec")
    with pytest.raises(
        ValueError, match="test_list is '1k', expected one of 1k5, 1k5_sec; did you"
    ):
        read_vatex(folder, "test", test_list="1k")
    with pytest.raises(FileNotFoundError, match="none.json: no such annotation file"):
        read_vatex(folder, "test", captions_file=folder / "none.json")
