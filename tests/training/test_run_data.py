"""The data of a run: what is held out, what is refused, what is skipped and counted."""

from __future__ import annotations

import csv

import numpy as np
import pytest

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
    message = "1 of the 6 clips of val are also in train, .*: train_00003; mend the annotations"
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
