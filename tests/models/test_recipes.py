"""Recipes: which options there are, which contradict, and what is refused."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.models.recipes import RECIPES, recipe_named


def three_d(clip):
    return dataclasses.replace(clip, vision=dataclasses.replace(clip.vision, linear_patch="3d"))


def test_names_are_the_keys():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {
        name: name for name in RECIPES
    }


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match="expected one of clip, clip4clip, .*got 'clip4'"):
        recipe_named("clip4")


@pytest.mark.parametrize(
    ("recipe", "option", "words"),
    [
        ("clip4clip", "sim_heder", "has no option 'sim_heder'.*did you mean sim_header"),
        ("clip4clip", "centerK", "has no option 'centerK' .it has: cross_num_attention_heads"),
        ("clip", "sim_header", r"recipe clip has no option 'sim_header' \(it has: none\)"),
    ],
)
def test_unknown_option_is_refused_with_the_nearest(recipe, option, words, tiny_clip):
    with pytest.raises(ValueError, match=words):
        recipe_named(recipe).config(tiny_clip, {option: 1})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sim_header": "maxP"}, "sim_header: expected one of meanP, .*, got 'maxP'"),
        ({"linear_patch": "4d"}, "linear_patch: expected one of 2d, 3d, got '4d'"),
        ({"linear_patch": "3d"}, "linear_patch=3d contradicts a 2d patch embedding"),
        ({"loose_type": False}, "meanP compares texts and videos loosely: loose_type=True"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words, tiny_clip):
    with pytest.raises(ValueError, match=words):
        recipe_named("clip4clip").config(tiny_clip, options)


def test_a_3d_patch_embedding_is_not_clips(tiny_clip):
    with pytest.raises(ValueError, match="3d patch embedding is CLIP4Clip's"):
        recipe_named("clip").config(three_d(tiny_clip))
    assert recipe_named("clip4clip").config(three_d(tiny_clip), {"linear_patch": "3d"})


def test_defaults_are_filled_in(tiny_clip):
    config = recipe_named("clip4clip").config(tiny_clip, {"sim_header": "seqTransf"})
    assert dict(config.options) == {
        "sim_header": "seqTransf",
        "linear_patch": "2d",
        "loose_type": True,
        "cross_num_attention_heads": None,
        "lstm_longest": None,
    }
    assert config.option("linear_patch") == "2d"
    assert config.size("temporal_layers") == 4
    assert config.size("temporal_positions") == tiny_clip.text.context_length


def test_equal_descriptions_are_one_key(tiny_clip):
    recipe = recipe_named("clip4clip")
    one = recipe.config(tiny_clip, {"sim_header": "seqTransf", "loose_type": True})
    other = recipe.config(tiny_clip, {"loose_type": True, "sim_header": "seqTransf"})
    assert one == other
    assert len({one, other, recipe.config(tiny_clip)}) == 2


def test_names_a_config_lacks_are_key_errors(tiny_clip):
    config = recipe_named("clip4clip").config(tiny_clip)
    with pytest.raises(KeyError):
        config.option("agg_module")
    with pytest.raises(KeyError):
        config.size("temporal_layers")


def test_options_may_be_numpy_or_jax_numbers(tiny_clip):
    recipe = recipe_named("emcl")
    plain = recipe.config(tiny_clip, {"centerK": 8, "lamd": 0.5, "mu": [0.5] * 8})
    arrays = {"centerK": np.int64(8), "lamd": np.float64(0.5), "mu": jnp.full((1, 8), 0.5)}
    assert recipe.config(tiny_clip, arrays) == plain
    with pytest.raises(ValueError, match="lamd: expected finite numbers, got nan"):
        recipe.config(tiny_clip, {"lamd": float("nan")})
