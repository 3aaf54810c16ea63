"""Annotation files that several splits share are read and parsed once per start."""

from __future__ import annotations

import collections
import json
import pickle
from pathlib import Path

import pytest

from vtr_jax.data.annotations import (
    READERS,
    MissingSplit,
    each_file_parsed_once,
    plain_pickle,
    read_available_splits,
    read_split,
    read_splits,
    rows,
)
from vtr_jax.data.check_data.check import check_data

NAMES = ("train", "val", "test")


@pytest.fixture
def reads(monkeypatch):
    """How often each annotation file was read, and how often each text was parsed."""
    counts: collections.Counter = collections.Counter()
    read_bytes, loads, reader = rows._bytes, json.loads, rows.csv.reader

    def counted_bytes(path):
        counts[path.name] += 1
        return read_bytes(path)

    def counted_loads(text, **options):
        counts["json", text] += 1
        return loads(text, **options)

    def counted_reader(lines, **options):
        counts["csv", lines.getvalue()] += 1
        return reader(lines, **options)

    monkeypatch.setattr(rows, "_bytes", counted_bytes)
    monkeypatch.setattr(rows.json, "loads", counted_loads)
    monkeypatch.setattr(rows.csv, "reader", counted_reader)
    return counts


def _table(folder):
    lines = [f"{name}{n}.mp4,words {n},{name}\n" for name in NAMES for n in range(3)]
    (folder / "captions.csv").write_text("".join(["video,caption,split\n", *lines]))
    return folder / "captions.csv"


def _lines_table(folder):
    lines = [
        json.dumps({"video": f"{name}{n}.mp4", "caption": f"{name} {n}", "split": name})
        for name in NAMES
        for n in range(3)
    ]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder / "captions.jsonl"


def _msrvtt(folder):
    sentences = [{"video_id": f"video{n}", "caption": f"words {n}"} for n in range(6)]
    # Under another name it is first looked for among all JSON files.
    (folder / "captions.json").write_text(json.dumps({"videos": [], "sentences": sentences}))
    (folder / "MSRVTT_train.full.csv").write_text("video_id\nvideo0\nvideo1\n")
    (folder / "MSRVTT_val.full.csv").write_text("video_id\nvideo2\n")
    (folder / "MSRVTT_JSFUSION_test.csv").write_text("video_id,sentence\nvideo3,hello\n")
    return folder


def _listed(folder):
    for n, name in enumerate(NAMES):
        (folder / f"{name}_list.txt").write_text(f"video{2 * n}\nvideo{2 * n + 1}\n")


def _vatex(folder):
    _listed(folder)
    captions = {f"video{n}": {"enCap": [f"words {n}", "more"]} for n in range(6)}
    (folder / "vatex_data.json").write_text(json.dumps(captions))
    return folder


def _msvd(folder):
    _listed(folder)
    captions = {f"video{n}": [f"words {n}", "more"] for n in range(6)}
    (folder / "captions_msvd.json").write_text(json.dumps(captions))
    return folder


def _activitynet(folder):
    for name, video in (("train", "v_a"), ("val", "v_b")):
        (folder / f"{name}_ids.json").write_text(json.dumps([video]))
        entry = {"duration": 3.5, "timestamps": [[0, 1]], "sentences": ["words"]}
        file = "train.json" if name == "train" else "val_1.json"
        (folder / file).write_text(json.dumps({video: entry}))
    return folder


def _didemo(folder):
    for name in NAMES:
        (folder / f"{name}_list.txt").write_text(f"{name}.mp4\n")
        entries = [{"video": f"{name}.mp4", "description": f"{name} words"}]
        (folder / f"{name}_data.json").write_text(json.dumps(entries))
    return folder


def _lsmdc(folder):
    from vtr_jax.data.annotations.lsmdc import FILES

    for name in NAMES:
        (folder / FILES[name][0]).write_text(f"{name}_clip\t0\t1\t0\t1\twords of {name}\n")
    return folder


CASES = {
    "table": ("table", _table, {}),
    "lines": ("table", _lines_table, {}),
    "msrvtt": ("msrvtt", _msrvtt, {"train_list": "full"}),
    "vatex": ("vatex", _vatex, {}),
    "msvd": ("msvd", _msvd, {}),
    "activitynet": ("activitynet", _activitynet, {}),
    "didemo": ("didemo", _didemo, {}),
    "lsmdc": ("lsmdc", _lsmdc, {}),
}


def test_every_data_set_is_covered():
    assert {dataset for dataset, _, _ in CASES.values()} == set(READERS)


@pytest.mark.parametrize(("dataset", "write", "options"), CASES.values(), ids=CASES)
def test_all_splits_cost_one_parse_of_each_file(tmp_path, reads, dataset, write, options):
    path = write(tmp_path)
    splits = read_splits(dataset, path, NAMES, **options)
    assert list(splits) == list(NAMES)
    assert reads and set(reads.values()) == {1}
    reads.clear()
    assert list(read_available_splits(dataset, path, **options)[0]) == list(NAMES)
    assert reads and set(reads.values()) == {1}
    reads.clear()
    assert len(check_data(dataset, path, **options).splits) == len(NAMES)
    assert reads and set(reads.values()) == {1}
    for name, split in splits.items():
        reads.clear()
        alone = read_split(dataset, path, name, **options)
        assert set(reads.values()) == {1}
        assert (alone.sha256(), alone.notes) == (split.sha256(), split.notes)


def test_a_pickle_is_parsed_once(tmp_path, monkeypatch):
    _msvd(tmp_path)
    (tmp_path / "captions_msvd.json").unlink()
    captions = {f"video{n}": [["words", str(n)]] for n in range(6)}
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps(captions))
    read, read_bytes = collections.Counter(), Path.read_bytes

    def counted(path):
        read[path.name] += 1
        return read_bytes(path)

    monkeypatch.setattr(plain_pickle.Path, "read_bytes", counted)
    assert read_splits("msvd", tmp_path, NAMES)["test"].captions == ("words 4", "words 5")
    assert read["raw-captions.pkl"] == 1


def test_a_file_that_changes_is_read_again_later(tmp_path):
    path = _table(tmp_path)
    with each_file_parsed_once():
        before = read_split("table", path, "train")
        path.write_text(path.read_text().replace("words 1", "other words"))
        assert read_split("table", path, "train").captions == before.captions
    assert "other words" in read_split("table", path, "train").captions


def test_an_error_leaves_nothing_behind(tmp_path):
    path = _table(tmp_path)
    with pytest.raises(MissingSplit):
        read_splits("table", path, ["train", "dev"])
    path.write_text(path.read_text().replace(",train", ",dev"))
    assert len(read_splits("table", path, ["dev"])["dev"].clips) == 3


def test_readers_do_not_change_what_they_share(tmp_path):
    path = tmp_path / "MSRVTT_JSFUSION_test.csv"
    path.write_text("video_id,sentence\nvideo3,hello\nvideo4, \n")
    with each_file_parsed_once():
        for _ in range(2):
            with pytest.raises(ValueError, match="1 bad row"):
                read_split("msrvtt", tmp_path, "test")
