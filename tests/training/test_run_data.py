"""The data of a run: what is held out, what is refused, what is skipped and counted."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from vtr_jax.data.annotations import MissingSplit, rows
from vtr_jax.data.split import Split, VideoClip, check_overlap
from vtr_jax.training.run_data import hold_out, load_run_data


@pytest.fixture
def changed_captions(tiny_dataset, tmp_path):
    """Writes the tiny data set's captions with more rows: (video, caption, split)."""

    def write(*more):
        with tiny_dataset.captions_file.open(newline="") as file:
            rows = list(csv.reader(file))
        path = tmp_path / "captions.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([*rows, *more])
        return str(path)

    return write


def split_of(clips):
    names = [f"clip{i}" for i in range(clips)]
    return Split(
        "toy",
        "train",
        tuple(VideoClip(name, f"{name}.mp4") for name in names),
        tuple(f"{name} caption {k}" for name in names for k in range(2)),
        np.repeat(np.arange(clips), 2).astype(np.int32),
    )


def test_train_and_validation_of_the_store(tiny_config):
    data = load_run_data(tiny_config())
    assert (len(data.train.clips), len(data.train.captions)) == (16, 32)
    assert (data.validation.name, len(data.validation.clips)) == ("val", 5)
    assert data.skipped == {}
    ids, mask = data.train_tokens
    assert ids.shape == mask.shape == (32, 12)


@pytest.mark.parametrize(
    ("validation", "name", "clips"), [("test", "test", 7), ("val", "val", 5), ("none", None, 16)]
)
def test_validation_split(tiny_config, validation, name, clips):
    data = load_run_data(tiny_config({"data.validation": validation}))
    if name is None:
        assert data.validation is None
    else:
        assert (data.validation.name, len(data.validation.clips)) == (name, clips)
    assert len(data.train.clips) == 16


@pytest.mark.parametrize(
    ("splits", "validation", "left"),
    [
        (("test", "val"), "val", "test"),
        (("val",), "val", "val"),
        (("val",), "none", "val"),
        ((), "holdout", None),
    ],
)
def test_what_is_left_to_evaluate_on(tiny_config, tiny_dataset, tmp_path, splits, validation, left):
    lines = tiny_dataset.captions_file.read_text().splitlines(keepends=True)
    kept = [line for line in lines[1:] if line.strip().endswith(("train", *splits))]
    path = tmp_path / "captions.csv"
    path.write_text("".join([lines[0], *kept]))
    settings = {"data.annotations": str(path), "data.validation": validation}
    data = load_run_data(tiny_config(settings | {"data.holdout_clips": 3}))
    assert data.left_to_evaluate == left


def test_holdout_takes_training_clips_away(tiny_config):
    settings = {"data.validation": "holdout", "data.holdout_clips": 6}
    data = load_run_data(tiny_config(settings))
    assert (len(data.train.clips), len(data.validation.clips)) == (10, 6)
    assert (data.validation.name, len(data.validation.captions)) == ("holdout", 12)
    again = load_run_data(tiny_config(settings))
    other = load_run_data(tiny_config(settings | {"seed": 7}))
    assert again.validation.sha256() == data.validation.sha256() != other.validation.sha256()


def test_hold_out_parts_every_clip_with_its_captions():
    whole = split_of(20)
    rest, held = hold_out(whole, 5, seed=3)
    assert check_overlap(rest, held) == []
    assert sorted(rest.captions + held.captions) == sorted(whole.captions)
    assert len(held.clips) == 5 and held.dataset == "toy"


@pytest.mark.parametrize("clips", [0, 20, 500])
def test_holding_out_nothing_or_everything_is_refused(clips):
    with pytest.raises(ValueError, match=f"expected 1 to 19 of the 20 training clips, got {clips}"):
        hold_out(split_of(20), clips, seed=0)


def test_overlap_of_train_and_validation_is_refused(tiny_config, changed_captions):
    annotations = changed_captions(("train_00003.mp4", "seen before", "val"))
    message = "1 of the 6 clips of val are also in train, .*: train_00003; fix the annotations"
    with pytest.raises(ValueError, match=message):
        load_run_data(tiny_config({"data.annotations": annotations}))
    data = load_run_data(tiny_config({"data.annotations": annotations, "data.validation": "none"}))
    assert data.validation is None


def test_overlap_with_the_test_split_is_told(tiny_config, changed_captions):
    assert load_run_data(tiny_config()).warnings == ()
    annotations = changed_captions(
        ("train_00003.mp4", "seen before", "test"), ("val_00001.mp4", "selected by", "test")
    )
    trained, selected = load_run_data(tiny_config({"data.annotations": annotations})).warnings
    assert trained.startswith("WARNING: 1 of the 9 clips of test are trained on as part of train")
    assert "1 of the 9 clips of test are selected by as part of val" in selected
    config = tiny_config({"data.annotations": annotations, "data.validation": "none"})
    assert load_run_data(config).warnings == (trained,)


def test_clips_missing_from_the_store_are_refused_or_skipped(tiny_config, changed_captions):
    annotations = changed_captions(
        ("new.mp4", "a clip nobody prepared", "train"), ("newer.mp4", "another", "val")
    )
    config = tiny_config({"data.annotations": annotations})
    with pytest.raises(ValueError, match=r"1 of the 17 clips of table train .*: new\. Add them"):
        load_run_data(config)
    data = load_run_data(tiny_config({"data.annotations": annotations, "data.skip_missing": True}))
    assert data.skipped == {"train": ["new"], "val": ["newer"]}
    assert (len(data.train.clips), len(data.validation.clips)) == (16, 5)
    assert len(data.train_tokens[0]) == 32


@pytest.mark.parametrize("name", ["annotations", "store"])
def test_paths_that_were_not_given(tiny_config, name):
    with pytest.raises(ValueError, match=rf"data.{name}: give .*: --config\.data\.{name}=PATH"):
        load_run_data(tiny_config({f"data.{name}": ""}))


def test_paths_that_do_not_exist(tiny_config, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_run_data(tiny_config({"data.annotations": str(tmp_path / "nowhere.csv")}))
    with pytest.raises(FileNotFoundError, match="nowhere: no finished frame store"):
        load_run_data(tiny_config({"data.store": str(tmp_path / "nowhere")}))


@pytest.fixture
def didemo(tiny_config, tmp_path):
    """DiDeMo annotations with all splits, and the config of a run on them without a store."""
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}_list.txt").write_text(f"{name}.mp4\n")
        entries = [{"video": f"{name}.mp4", "description": f"{name} words"}]
        (tmp_path / f"{name}_data.json").write_text(json.dumps(entries))
    return tmp_path, tiny_config(
        {
            "data.dataset": "didemo",
            "data.annotations": str(tmp_path),
            "data.store": str(tmp_path / "no store"),
        }
    )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("test_data.json", "[{"),
        ("test_data.json", '[{"video": "test.mp4"}]'),
        ("test_list.txt", "test.mp4\ntest.mp4\n"),
        ("test_list.txt", b"\xff\xfe\n"),
    ],
)
def test_a_damaged_test_annotation_is_an_error(didemo, file, content):
    """Taken for an absent split, it would silently end the warning about overlap."""
    folder, config = didemo
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=file) as error:
        load_run_data(config)
    assert not isinstance(error.value, MissingSplit)


def test_an_absent_test_split_is_no_error(didemo):
    folder, config = didemo
    (folder / "test_data.json").unlink()
    with pytest.raises(FileNotFoundError, match="no store"):
        load_run_data(config)


@pytest.mark.parametrize("validation", ["val", "test", "holdout", "none"])
def test_the_annotation_file_is_parsed_once(tiny_config, tiny_dataset, monkeypatch, validation):
    read, read_bytes = [], rows._bytes
    parsed, reader = [], rows.csv.reader

    def counted_bytes(path):
        read.append(path)
        return read_bytes(path)

    def counted_reader(lines, **options):
        parsed.append(lines)
        return reader(lines, **options)

    monkeypatch.setattr(rows, "_bytes", counted_bytes)
    monkeypatch.setattr(rows.csv, "reader", counted_reader)
    load_run_data(tiny_config({"data.validation": validation, "data.holdout_clips": 3}))
    assert read == [tiny_dataset.captions_file] and len(parsed) == 1
