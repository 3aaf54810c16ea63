"""Sizes and options from names and shapes; other architectures refused by name."""

from __future__ import annotations

import pytest

from vtr_jax.convert.sizes import count_layers, infer_clip_config, split_options
from vtr_jax.models.clip import CLIP_PRESETS
from vtr_jax.models.recipes import recipe_named

RELEASED = {
    "ViT-B/32": (512, 224, 32, 768, 12, 512),
    "ViT-B/16": (512, 224, 16, 768, 12, 512),
    "ViT-L/14": (768, 224, 14, 1024, 24, 768),
    "ViT-L/14@336px": (768, 336, 14, 1024, 24, 768),
}


def shapes_of(torch_writer, name="ViT-B/32", prefix=""):
    embed_dim, resolution, patch, width, layers, text_width = RELEASED[name]
    shapes = torch_writer.openai_shapes(
        embed_dim=embed_dim,
        resolution=resolution,
        patch=patch,
        vision_width=width,
        vision_layers=layers,
        text_width=text_width,
        text_layers=12,
    )
    return {prefix + key: shape for key, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "clip."])
@pytest.mark.parametrize("name", RELEASED)
def test_released_models_are_recognised(name, prefix, torch_writer):
    assert infer_clip_config(shapes_of(torch_writer, name, prefix), prefix) == CLIP_PRESETS[name]


def test_what_shapes_do_not_tell_is_taken_from_the_caller(torch_writer):
    config = infer_clip_config(
        shapes_of(torch_writer),
        activation="gelu",
        vision_heads=16,
        text_heads=4,
        layer_norm_eps=1e-6,
        end_of_text_id=49407,
    )
    assert (config.vision.heads, config.text.heads) == (16, 4)
    assert config.vision.activation == config.text.activation == "gelu"
    assert config.vision.layer_norm_eps == config.text.layer_norm_eps == 1e-6
    assert config.text.end_of_text_id == 49407


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"activation": "relu"}, "activation: expected one of .*, got 'relu'"),
        ({"vision_heads": 7}, "vision_heads: 7 heads do not divide the tower's width 768"),
        ({"text_heads": -8}, "text_heads: -8 heads do not divide the tower's width 512"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps: expected a small positive number"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps: expected a small positive number, got 0.0"),
        ({"end_of_text_id": "</s>"}, "end_of_text_id: expected a token id, got '</s>'"),
    ],
)
def test_values_that_cannot_be_are_refused(given, words, torch_writer):
    with pytest.raises(ValueError, match=words):
        infer_clip_config(shapes_of(torch_writer), **given)


@pytest.mark.parametrize("prefix", ["", "clip."])
@pytest.mark.parametrize("found", ["", "clip."])
def test_resnets_are_refused_by_name(prefix, found):
    """Whatever the recipe asks for, and wherever the tower lies."""
    shapes = {f"{found}visual.layer1.0.conv1.weight": (64, 64, 1, 1)}
    with pytest.raises(ValueError, match=r"RN50.pt: a ResNet image tower .* only Vision Transf"):
        infer_clip_config(shapes, prefix, "RN50.pt")


def test_a_trained_retriever_is_told_to_name_its_recipe(torch_writer):
    shapes = {**shapes_of(torch_writer, prefix="clip."), "similarity_dense.weight": (1, 512)}
    with pytest.raises(ValueError, match="name its recipe .e.g. --recipe=clip4clip"):
        infer_clip_config(shapes, "", "model.bin")


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({}, "no visual.proj among its 0 names .first: none"),
        ({"encoder.weight": (3, 3)}, "among its 1 names .first: encoder.weight"),
    ],
)
def test_other_architectures_are_refused(shapes, words):
    with pytest.raises(ValueError, match=words):
        infer_clip_config(shapes)


@pytest.mark.parametrize(
    "key",
    [
        "visual.conv1.weight",
        "visual.positional_embedding",
        "text_projection",
        "positional_embedding",
        "token_embedding.weight",
    ],
)
def test_what_the_sizes_hang_on_must_be_there(key, torch_writer):
    shapes = shapes_of(torch_writer)
    with pytest.raises(ValueError, match=f"{key} has shape .3,., expected . axes"):
        infer_clip_config({**shapes, key: (3,)})
    del shapes[key]
    with pytest.raises(ValueError, match=f"{key} is missing; without it the sizes cannot be told"):
        infer_clip_config(shapes)


@pytest.mark.parametrize("tower", ["visual.transformer", "transformer"])
def test_towers_without_layers_are_refused(tower, torch_writer):
    shapes = shapes_of(torch_writer)
    left = {key: shape for key, shape in shapes.items() if not key.startswith(f"{tower}.res")}
    with pytest.raises(ValueError, match="both towers need layers, got"):
        infer_clip_config(left)


def test_layers_are_counted_by_their_index():
    shapes = {"transformer.resblocks.0.a": (), "transformer.resblocks.10.a": ()}
    shapes |= {"transformer.resblocks.10.b": (), "visual.transformer.resblocks.3.a": ()}
    assert count_layers(shapes, "transformer.resblocks.") == 2


def test_options_of_towers_and_recipe_are_told_apart():
    given = {"text_heads": 8, "sim_header": "meanP"}
    split = split_options(recipe_named("clip4clip"), given)
    assert split == ({"text_heads": 8}, {"sim_header": "meanP"})


def test_options_of_another_recipe_name_it():
    message = "recipe clip has no option 'loose_type'; it belongs to recipe clip4clip.*: add "
    with pytest.raises(ValueError, match=f"{message}--recipe=clip4clip"):
        split_options(recipe_named("clip"), {"loose_type": True})


@pytest.mark.parametrize(
    ("recipe", "option", "nearest"),
    [
        ("clip", "vision_head", "vision_heads"),
        ("clip4clip", "activatoin", "activation"),
        ("clip4clip", "sim_headers", "sim_header"),
    ],
)
def test_unknown_options_are_refused_with_the_nearest(recipe, option, nearest):
    with pytest.raises(ValueError, match=f"no option '{option}'.*did you mean {nearest}"):
        split_options(recipe_named(recipe), {option: 1})
