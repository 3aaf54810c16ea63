"""Preprocessing settings: checked, stored, and the same wherever a retriever goes."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from vtr_jax.checkpoint import (
    config_from_json,
    config_to_json,
    load_retriever,
    read_description,
    write_retriever,
)
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import Retriever, init_retriever
from vtr_jax.preprocessing import Preprocessing

HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.5, 1.0)}


def with_preprocessing(retriever: Retriever, **changes) -> Retriever:
    preprocessing = retriever.preprocessing.replace(**changes)
    config = dataclasses.replace(retriever.config, preprocessing=preprocessing)
    return dataclasses.replace(retriever, config=config)


def test_json_round_trip_keeps_every_setting():
    changed = Preprocessing(
        max_words=77,
        resolution=336,
        resize_mode="squash",
        resized_side=340,
        interpolation="bilinear",
        fill_color=(1, 2, 3),
        crop_offset="down",
        rescale=1.0,
        **HALVES,
        frame_rule="xpool",
        framerate=None,
        num_frames=8,
        max_frames=8,
        slice_framepos=0,
        frame_order=1,
    )
    for settings in (Preprocessing(), changed):
        again = Preprocessing.from_json(json.loads(json.dumps(settings.to_json())))
        assert again == settings
        assert hash(again) == hash(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_words", 2),
        ("resolution", 0),
        ("resolution", 1.5),
        ("resize_mode", "stretch"),
        ("resized_side", 0),
        ("interpolation", "cubic"),
        ("fill_color", (0, 0, 256)),
        ("fill_color", (0, 0, 0.5)),
        ("crop_offset", "up"),
        ("rescale", 0),
        ("mean", (0.5, 0.5)),
        ("mean", (0.5, 0.5, float("nan"))),
        ("mean", "0.5"),
        ("std", (0.5, 0.5, 0)),
        ("framerate", -1),
        ("max_frames", 0),
        ("slice_framepos", 3),
        ("frame_order", True),
    ],
)
def test_impossible_setting_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}"):
        Preprocessing(**{name: value})


def test_setting_of_a_newer_version_is_an_error():
    with pytest.raises(ValueError, match="sharpness"):
        Preprocessing.from_json({**Preprocessing().to_json(), "sharpness": 2})


def test_openai_pixels_are_normalized_as_before(tiny_retriever, tiny_batch):
    retriever = tiny_retriever("clip")
    floats = (tiny_batch["frames"] / 255 - np.array([0.48145466, 0.4578275, 0.40821073])) / (
        np.array([0.26862954, 0.26130258, 0.27577711])
    )
    ours = retriever.encode_video(tiny_batch["frames"], tiny_batch["frame_mask"]).frames
    theirs = retriever.encode_video(floats.astype(np.float32), tiny_batch["frame_mask"]).frames
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_mean_and_std_are_applied_without_another_compilation(tiny_retriever, tiny_batch):
    from vtr_jax.models import retriever as module

    openai = tiny_retriever("clip")
    frames, mask = tiny_batch["frames"], tiny_batch["frame_mask"]
    plain = openai.encode_video(frames, mask)
    similarity = openai.similarity(
        openai.encode_text(tiny_batch["token_ids"], tiny_batch["token_mask"]), plain
    )
    compiled = (module._run_vision._cache_size(), module._run_similarity._cache_size())
    halves = with_preprocessing(openai, rescale=1 / 128, **HALVES)
    video = halves.encode_video(frames, mask)
    halves.similarity(halves.encode_text(tiny_batch["token_ids"], tiny_batch["token_mask"]), video)
    assert compiled == (module._run_vision._cache_size(), module._run_similarity._cache_size())
    floats = (frames.astype(np.float32) / 128 - np.array(HALVES["mean"])) / np.array(HALVES["std"])
    expected = openai.encode_video(floats.astype(np.float32), mask)
    np.testing.assert_allclose(video.frames, expected.frames, atol=2e-6)
    assert np.abs(video.frames - plain.frames).max() > 1e-3
    assert np.isfinite(similarity).all()


def test_jitted_functions_of_retrievers_do_not_mix_preprocessing(tiny_retriever, tiny_batch):
    encode = jax.jit(lambda r: r.encode_video(tiny_batch["frames"], tiny_batch["frame_mask"]))
    retriever = tiny_retriever("clip")
    halves = with_preprocessing(retriever, **HALVES)
    assert np.abs(encode(retriever).frames - encode(halves).frames).max() > 1e-3


def test_resolution_must_be_the_towers(tiny_clip):
    with pytest.raises(ValueError, match="224"):
        recipe_named("clip").config(tiny_clip, preprocessing=Preprocessing(resolution=224))


def test_directory_of_an_earlier_version_lists_defaults_as_assumed(tiny_retriever):
    config = tiny_retriever("clip4clip").config
    stored = config_to_json(config)
    old = {name: stored[name] for name in ("recipe", "vision", "text", "options", "sizes")}
    read = config_from_json(old)
    assert read.preprocessing == config.preprocessing
    assert read.assumed
    assert config_from_json(json.loads(json.dumps(config_to_json(read)))) == read


def test_preprocessing_survives_options_training_saving_and_loading(tmp_path, tiny_config):
    from vtr_jax.training.config import clip_of
    from vtr_jax.training.loop import train

    config = tiny_config({"init": str(tmp_path / "clip"), "epochs": 1, "eval_every": 4})
    settings = Preprocessing(resolution=clip_of(config).vision.image_resolution, **HALVES)
    start = init_retriever(
        recipe_named("clip").config(clip_of(config), preprocessing=settings, assumed=("a guess",)),
        jax.random.key(0),
    )
    write_retriever(tmp_path / "clip", start.config, start.params)
    loaded = load_retriever(tmp_path / "clip")
    assert loaded.config == start.config
    assert loaded.with_options().config == start.config
    assert loaded.with_runtime(remat=True).config == start.config

    train(config, tmp_path / "run")
    trained = load_retriever(tmp_path / "run")
    assert trained.preprocessing.mean == HALVES["mean"]
    assert trained.preprocessing.std == HALVES["std"]
    assert "a guess" in trained.config.assumed
    assert read_description(tmp_path / "run")["retriever"]["preprocessing"]["mean"] == [0.5] * 3

    write_retriever(tmp_path / "copy", trained.config, trained.params)
    again = load_retriever(tmp_path / "copy")
    assert again.config == trained.config
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, 32, 32, 3), np.uint8)
    floats = (frames.astype(np.float32) / 255 - np.array(HALVES["mean"])) / np.array(HALVES["std"])
    mask = np.ones((1, 2), np.int32)
    np.testing.assert_allclose(
        again.encode_video(frames, mask).frames,
        again.encode_video(floats.astype(np.float32), mask).frames,
        atol=2e-5,
    )
