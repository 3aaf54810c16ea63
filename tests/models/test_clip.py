"""Both towers: sizes of the released models, patch embeddings, pooling, precision."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.models.clip import (
    CLIP_PRESETS,
    PatchEmbedding,
    PatchEmbedding3d,
    TextConfig,
    TextTower,
    clip_config,
    cut_patches,
    fold_token_ids,
)
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import abstract_retriever
from vtr_jax.models.runtime import Runtime

PARAMETERS = {
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336px": 427_944_193,
}
SIZES = {
    "embed_dim": 32,
    "image_resolution": 16,
    "patch_size": 8,
    "vision_width": 32,
    "vision_layers": 1,
    "text_width": 32,
    "text_layers": 1,
}


def count(tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def shape_of(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.fixture
def nothing_is_allocated():
    """Fails a test after which arrays of a megabyte or more lie in memory."""
    before = {id(array) for array in jax.live_arrays()}
    yield
    made = [array for array in jax.live_arrays() if id(array) not in before]
    assert sum(array.nbytes for array in made) < 1e6


@pytest.mark.parametrize("name", PARAMETERS)
def test_released_sizes(name, nothing_is_allocated):
    clip = CLIP_PRESETS[name]
    retriever = abstract_retriever(recipe_named("clip").config(clip))
    assert count(retriever.params) == PARAMETERS[name]
    assert clip.vision.heads == clip.vision.width // 64
    assert clip.text.heads == clip.text.width // 64


@pytest.mark.parametrize("name", PARAMETERS)
def test_released_sizes_encode(name, nothing_is_allocated):
    clip = CLIP_PRESETS[name]
    retriever = abstract_retriever(recipe_named("clip").config(clip))
    side, width = clip.vision.image_resolution, clip.embed_dim
    ids = shape_of(np.int32, 2, 77)
    text = jax.eval_shape(lambda r, i, m: r.encode_text(i, m), retriever, ids, ids)
    frames, mask = shape_of(np.uint8, 3, 12, side, side, 3), shape_of(np.int32, 3, 12)
    video = jax.eval_shape(lambda r, f, m: r.encode_video(f, m), retriever, frames, mask)
    assert text.sentence.shape == (2, width)
    assert text.tokens.shape == (2, 77, width)
    assert video.frames.shape == video.temporal.shape == (3, 12, width)
    assert video.patches.shape == (3, 12, clip.vision.patches, width)
    assert video.pooled is None
    arrays = (text.sentence, text.tokens, video.frames, video.temporal, video.patches)
    assert {array.dtype for array in arrays} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", PARAMETERS)
def test_released_sizes_with_3d_patches(name, nothing_is_allocated):
    """CLIP4Clip keeps the 2d kernel beside a 3d one of three times its size."""
    clip = CLIP_PRESETS[name]
    vision = dataclasses.replace(clip.vision, linear_patch="3d")
    towers = dataclasses.replace(clip, vision=vision)
    options = {"linear_patch": "3d", "sim_header": "meanP"}
    retriever = abstract_retriever(recipe_named("clip4clip").config(towers, options))
    kernel = vision.patch_size**2 * 3 * vision.width
    assert count(retriever.params) == PARAMETERS[name] + 3 * kernel
    side = vision.image_resolution
    frames, mask = shape_of(np.uint8, 2, 4, side, side, 3), shape_of(np.int32, 2, 4)
    video = jax.eval_shape(lambda r, f, m: r.encode_video(f, m), retriever, frames, mask)
    assert video.frames.shape == (2, 4, clip.embed_dim)


@pytest.fixture(scope="module")
def frames():
    return jax.random.normal(jax.random.key(0), (2, 3, 16, 24, 3))


@pytest.fixture(scope="module")
def vision_config():
    return clip_config(**SIZES, linear_patch="3d").vision


def convolution(x_bfhwc, kernel_tijco, patch):
    """The 3d convolution of CLIP4Clip, one zero frame before and after."""
    return jax.lax.conv_general_dilated(
        x_bfhwc,
        kernel_tijco,
        window_strides=(1, patch, patch),
        padding=((kernel_tijco.shape[0] // 2,) * 2, (0, 0), (0, 0)),
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision="highest",
    )


def test_2d_patch_embedding_is_the_convolution(frames, vision_config):
    kernel = jax.random.normal(jax.random.key(1), (8, 8, 3, 32))
    spec = ModuleSpec(PatchEmbedding, vision_config, Runtime())
    ours = spec.bind({"kernel": kernel})(cut_patches(frames, 8))
    expected = convolution(frames, kernel[None], 8).reshape(2, 3, 6, 32)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_3d_patch_embedding_is_the_convolution(frames, vision_config):
    kernel = jax.random.normal(jax.random.key(2), (3, 8, 8, 3, 32))
    spec = ModuleSpec(PatchEmbedding3d, vision_config, Runtime())
    ours = spec.bind({"kernel": kernel})(cut_patches(frames, 8))
    np.testing.assert_allclose(ours, convolution(frames, kernel, 8).reshape(2, 3, 6, 32), atol=1e-4)


def test_fresh_3d_patch_embedding_is_the_2d_one(frames, vision_config):
    fresh = ModuleSpec(PatchEmbedding3d, vision_config, Runtime())
    kernel = fresh.init(jax.random.key(3))["kernel"]
    flat = ModuleSpec(PatchEmbedding, vision_config, Runtime())
    patches = cut_patches(frames, 8)
    ours = fresh.bind({"kernel": kernel})(patches)
    np.testing.assert_array_equal(ours, flat.bind({"kernel": kernel[1]})(patches))


def test_patches_go_row_by_row():
    pixels = jnp.arange(4 * 6 * 3).reshape(1, 1, 4, 6, 3)
    patches = cut_patches(pixels, 2)
    assert patches.shape == (1, 1, 6, 12)
    np.testing.assert_array_equal(patches[0, 0, 1], pixels[0, 0, :2, 2:4].ravel())
    np.testing.assert_array_equal(patches[0, 0, 3], pixels[0, 0, 2:4, :2].ravel())


def text_tower(**changes) -> TextTower:
    config = TextConfig(context_length=6, vocab_size=20, width=8, layers=1, heads=1, embed_dim=8)
    spec = ModuleSpec(TextTower, dataclasses.replace(config, **changes), Runtime())
    return spec.bind(spec.abstract())


@pytest.mark.parametrize(
    ("row", "largest", "first_eos"),
    [
        ([18, 3, 19, 0, 0, 0], 2, 2),
        ([18, 19, 3, 19, 0, 0], 1, 1),  # the first of two
        ([18, 3, 4, 0, 0, 0], 0, 0),  # no end of text at all
    ],
)
def test_where_a_text_is_pooled(row, largest, first_eos):
    ids = jnp.array([row])
    assert text_tower().end_positions(ids) == largest
    assert text_tower(end_of_text_id=19).end_positions(ids) == first_eos


def test_end_of_text_id_need_not_be_the_largest():
    ids = jnp.array([[18, 3, 7, 19, 5, 7]])
    assert text_tower().end_positions(ids) == 3
    assert text_tower(end_of_text_id=7).end_positions(ids) == 2


def test_small_vocabularies_hold_every_token():
    ids = jnp.array([0, 19, 20, 49405, 49406, 49407])
    folded = np.asarray(fold_token_ids(ids, 20))
    np.testing.assert_array_equal(folded, [0, 19, 20 % 18, 49405 % 18, 18, 19])
    np.testing.assert_array_equal(fold_token_ids(ids, 49408), ids)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision_heads": 3}, "vision_heads: 3 heads do not divide the tower's width 32"),
        ({"text_heads": 5}, "text_heads: 5 heads do not divide the tower's width 32"),
        ({"text_heads": 0}, "text_heads: 0 heads"),
        ({"vision_heads": "two"}, "vision_heads: 'two' heads"),
        ({"patch_size": 7}, "image resolution 16 is not a multiple of the patch size 7"),
        ({"linear_patch": "4d"}, "linear_patch: expected 2d or 3d, got '4d'"),
        ({"activation": "silu"}, "activation: .* got 'silu'"),
        ({"vision_layers": 0}, r"both towers need layers, got 0 \(vision\) and 1 \(text\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        clip_config(**{**SIZES, **changes})


def test_heads_default_to_width_over_64():
    config = clip_config(**{**SIZES, "vision_width": 192})
    assert (config.vision.heads, config.text.heads) == (3, 1)
