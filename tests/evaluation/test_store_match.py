"""Frames of a store are what the retriever reads, or the difference is named."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import types

import jax
import pytest

from vtr_jax.checkpoint import load_retriever, write_retriever
from vtr_jax.cli import main
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.evaluation.store_match import require_same_pictures, sampling_differences
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import init_retriever
from vtr_jax.preprocessing import Preprocessing, protocol_assumption


def store_with(**settings):
    values = StoreSettings(resolution=32, **settings).as_dict()
    return types.SimpleNamespace(directory="store", settings=values)


def older(store):
    names = ("resize_mode", "interpolation", "resized_side", "fill_color", "crop_offset")
    for name in names:
        del store.settings[name]
    return store


@pytest.mark.parametrize(
    "settings",
    [
        {"resize_mode": "squash"},
        {"interpolation": "bilinear"},
        {"resized_side": 40},
        {"resize_mode": "longest"},
        {"resize_mode": "longest", "fill_color": (1, 2, 3)},
    ],
)
def test_pictures_resized_otherwise_are_an_error_with_both_values(settings):
    wanted = Preprocessing(resolution=32, **settings)
    require_same_pictures(store_with(**settings), wanted)
    for store in (store_with(), older(store_with())):
        with pytest.raises(ValueError) as error:
            require_same_pictures(store, wanted)
        name = "resize_mode" if "resize_mode" in settings else next(iter(settings))
        assert repr(settings[name]) in str(error.value)
        assert repr(getattr(Preprocessing(), name)) in str(error.value)
    with pytest.raises(ValueError, match="32"):
        require_same_pictures(store_with(), Preprocessing(resolution=64))


def test_settings_without_effect_are_not_compared():
    require_same_pictures(store_with(), Preprocessing(resolution=32, fill_color=(1, 2, 3)))
    require_same_pictures(older(store_with()), Preprocessing(resolution=32))


def test_sampling_is_compared_with_training_only(tiny_clip):
    settings = Preprocessing(resolution=16, framerate=2, crop_offset="down")
    config = recipe_named("clip").config(tiny_clip, preprocessing=settings)
    rate, offset = sampling_differences(store_with(), config)
    assert "1" in rate and "2" in rate
    assert "round" in offset and "down" in offset
    assumed = tuple(protocol_assumption(settings, ()))
    guessed = dataclasses.replace(config, assumed=assumed)
    assert sampling_differences(store_with(), guessed) == (offset,)
    assert sampling_differences(store_with(frame_rule="decord", framerate=2), config)[0]


@pytest.fixture(scope="module")
def squashed_run(tmp_path_factory, tiny_dataset, tiny_config):
    """A CLIP that squashes, a store prepared from it, and a run on both."""
    from vtr_jax.training.config import clip_of
    from vtr_jax.training.loop import train

    folder = tmp_path_factory.mktemp("squashed")
    config = tiny_config(
        {
            "init": str(folder / "clip"),
            "data.store": str(folder / "store"),
            "data.max_frames": 3,
            "data.max_words": 9,
            "data.slice_framepos": 0,
            "data.eval_frame_order": 1,
            "epochs": 1,
            "eval_every": 4,
        }
    )
    settings = Preprocessing(
        resolution=32, resize_mode="squash", interpolation="bilinear", framerate=2
    )
    clip = recipe_named("clip").config(clip_of(config), preprocessing=settings)
    retriever = init_retriever(clip, jax.random.key(0))
    write_retriever(folder / "clip", retriever.config, retriever.params)
    prepare = [
        "prepare",
        f"--checkpoint={folder / 'clip'}",
        f"--annotations={tiny_dataset.captions_file}",
        f"--videos={tiny_dataset.videos_dir}",
        f"--store={folder / 'store'}",
        "--workers=1",
    ]
    assert main(prepare) == 0
    train(config, folder / "run")
    return folder


def test_prepare_takes_settings_from_the_retriever(squashed_run):
    settings = FrameStore.open(squashed_run / "store").settings
    assert settings["resolution"] == 32
    assert (settings["resize_mode"], settings["interpolation"]) == ("squash", "bilinear")
    assert settings["framerate"] == 2


@pytest.mark.parametrize(
    "option", ["resolution=64", "resize_mode=shortest", "interpolation=bicubic", "framerate=1"]
)
def test_option_that_contradicts_the_retriever_is_an_error(
    option, squashed_run, tiny_dataset, tmp_path, capsys
):
    prepare = [
        "prepare",
        f"--checkpoint={squashed_run / 'clip'}",
        f"--annotations={tiny_dataset.captions_file}",
        f"--videos={tiny_dataset.videos_dir}",
        f"--store={tmp_path / 'store'}",
        f"--{option}",
    ]
    assert main(prepare) == 1
    assert f"--{option}" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "store").exists()


def test_training_stores_its_own_settings(squashed_run):
    trained = load_retriever(squashed_run / "run").preprocessing
    assert trained.resize_mode == "squash"
    assert (trained.max_words, trained.max_frames) == (9, 3)
    assert (trained.slice_framepos, trained.frame_order, trained.framerate) == (0, 1, 2)


def test_evaluation_needs_no_numbers_by_hand(squashed_run, tiny_dataset, capsys):
    (squashed_run / "run" / "run.json").rename(squashed_run / "run.json")
    evaluate = [
        "evaluate",
        f"--checkpoint={squashed_run / 'run'}",
        f"--annotations={tiny_dataset.captions_file}",
        f"--store={squashed_run / 'store'}",
    ]
    try:
        assert main(evaluate) == 0
    finally:
        (squashed_run / "run.json").rename(squashed_run / "run" / "run.json")
    report = capsys.readouterr().out
    rows = [re.split(r"\s{2,}", line, maxsplit=1) for line in report.splitlines()]
    lines = {row[0]: row[1] for row in rows if len(row) == 2}
    assert lines["token limit"] == "9"
    assert lines["frames a clip"] == "3"
    assert lines["frame choice"] == "head, reversed"
    assert lines["resize"] == "squash, bilinear"
    assert lines["tokenizer"] == "clip"
    assert lines["unlike training"] == "nothing"


def test_store_of_other_pictures_is_an_error(squashed_run, tiny_dataset, tiny_store, capsys):
    evaluate = [
        "evaluate",
        f"--checkpoint={squashed_run / 'run'}",
        f"--annotations={tiny_dataset.captions_file}",
        f"--store={tiny_store}",
    ]
    assert main(evaluate) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "squash" in last and "shortest" in last


def test_retriever_reads_what_the_store_holds(squashed_run, tiny_dataset):
    import numpy as np

    retriever = load_retriever(squashed_run / "run")
    store = FrameStore.open(squashed_run / "store")
    from vtr_jax.data.frame_store.encoding import decode_frame

    clip_id = store.clip_ids[0]
    [path] = [
        p for p in tiny_dataset.videos_dir.rglob("*.mp4") if p.stem in clip_id or clip_id in p.name
    ]
    frames, mask = retriever.read_video(path)
    stored = [decode_frame(frame) for frame in store.read(0)][:3][::-1]
    assert mask.tolist() == [1, 1, 1]
    difference = np.abs(frames.astype(int) - np.stack(stored).astype(int))
    assert difference.mean() < 4  # the store is JPEG


def test_runs_of_earlier_versions_are_read_from_their_record(
    tiny_run, tiny_dataset, tiny_store, tmp_path, capsys
):
    shutil.copytree(tiny_run, tmp_path / "run")
    description = tmp_path / "run" / "retriever.json"
    values = json.loads(description.read_text())
    for name in ("preprocessing", "assumed"):
        del values["retriever"][name]
    description.write_text(json.dumps(values))
    record = tmp_path / "run" / "run.json"
    settings = json.loads(record.read_text())
    settings["data"] |= {"max_words": 11, "max_frames": 2}
    record.write_text(json.dumps(settings))
    evaluate = [
        "evaluate",
        f"--checkpoint={tmp_path / 'run'}",
        f"--annotations={tiny_dataset.captions_file}",
        f"--store={tiny_store}",
        f"--output={tmp_path / 'report'}",
    ]
    assert main(evaluate) == 0
    card = json.loads((tmp_path / "report" / "report.json").read_text())["protocol"]
    assert (card["max_words"], card["frames"]) == (11, 2)
    assert any("earlier version" in sentence for sentence in card["assumed"])


def test_store_settings_of_earlier_runs_are_the_defaults(tmp_path):
    from vtr_jax.training.run_record import check_same_run, write_record

    now = {"store_settings": StoreSettings(resolution=32).as_dict()}
    earlier = {"store_settings": older(store_with()).settings}
    write_record(tmp_path, earlier)
    assert check_same_run(tmp_path, now) == earlier
    squash = {"store_settings": StoreSettings(resolution=32, resize_mode="squash").as_dict()}
    with pytest.raises(ValueError, match="resize_mode"):
        check_same_run(tmp_path, squash)
