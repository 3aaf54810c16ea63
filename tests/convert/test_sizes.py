"""Sizes and options from names and shapes; other architectures refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.sizes import (
    count_layers,
    infer_clip_config,
    resized_positions,
    split_options,
)
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


# A 3 x 3 grid, and what open_clip 3.3's resize_pos_embed computes of it with PyTorch 2.13:
# torch.nn.functional.interpolate(mode="bicubic", antialias=True, align_corners=False).
GRID = [[0.0, 1.0, 3.0], [2.0, 4.0, -1.0], [5.0, 0.5, 2.0]]
RESIZED = {
    2: [[1.171591, 1.793111], [3.308136, 1.071328]],
    4: [
        [-0.153988, 0.323562, 1.792755, 3.332535],
        [0.934229, 2.54791, 2.21069, 0.133976],
        [3.27865, 3.252007, 1.735139, -0.321011],
        [5.409529, 1.994446, 0.664231, 2.252812],
    ],
    5: [
        [-0.220719, 0.060124, 0.773585, 2.456491, 3.492702],
        [0.443255, 1.176431, 2.208955, 1.79795, 1.406364],
        [1.849057, 2.925373, 4.0, 0.843283, -1.377358],
        [4.201493, 3.323262, 1.86194, 1.054717, 0.686145],
        [5.603061, 3.386863, 0.235849, 1.304774, 2.376646],
    ],
}


def lazy(array: np.ndarray) -> LazyTensor:
    return LazyTensor(array.dtype, array.shape, lambda: array)


@pytest.mark.parametrize("prefix", ["", "clip."])
@pytest.mark.parametrize("side", RESIZED)
def test_positions_are_interpolated_as_open_clip_does(side: int, prefix: str):
    token, grid = np.array([[7.0, 8.0]], np.float16), np.array(GRID, np.float16).reshape(9, 1)
    positions = np.concatenate([token, np.concatenate([grid, 2 * grid], axis=1)])
    tensors = {
        f"{prefix}visual.positional_embedding": lazy(positions),
        f"{prefix}visual.conv1.weight": lazy(np.zeros((2, 3, 4, 4), np.float32)),
    }
    found = resized_positions(tensors, 4 * side, "file")
    assert set(found) == set(tensors)
    resized = found[f"{prefix}visual.positional_embedding"].read()
    assert resized.shape == (side * side + 1, 2)
    np.testing.assert_array_equal(resized[0], token[0])
    expected = np.array(RESIZED[side]).reshape(-1)
    np.testing.assert_allclose(resized[1:, 0], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(resized[1:, 1], 2 * expected, rtol=1e-6, atol=2e-6)
    assert resized_positions(tensors, 12, "file") == tensors


@pytest.mark.parametrize(("resolution", "nearest"), [(13, "12 and 16"), (3, "4 and 4")])
def test_resolutions_that_patches_do_not_divide(resolution: int, nearest: str):
    tensors = {
        "visual.positional_embedding": lazy(np.zeros((10, 2), np.float32)),
        "visual.conv1.weight": lazy(np.zeros((2, 3, 4, 4), np.float32)),
    }
    with pytest.raises(
        ValueError, match=f"patch size 4, got {resolution}; the nearest are {nearest}"
    ):
        resized_positions(tensors, resolution, "file")
    with pytest.raises(ValueError, match=r"file: .*visual\.positional_embedding"):
        resized_positions({}, 12, "file")
