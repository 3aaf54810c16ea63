"""Cached-gradient training equals the whole batch, for every recipe's loss."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from vtr_jax.models.recipes import RECIPES, recipe_named
from vtr_jax.models.retriever import init_retriever
from vtr_jax.models.runtime import Runtime
from vtr_jax.training.cached_gradients import cached_value_and_grad
from vtr_jax.training.step import StepSettings, abstract_batch, batch_loss

# One case a way from features to a loss; seqLSTM reads the longest clip of the whole batch.
CASES = {
    "clip": {},
    "clip4clip": {"sim_header": "seqLSTM"},
    "clip4clip-tight": {"sim_header": "tightTransf", "cross_num_attention_heads": 2},
    "drl": {"interaction": "wti", "wti_arch": 2, "cdcr": 1},
    "backbone_tvr": {"agg_module": "None"},
    "emcl": {"agg_module": "seqTransf"},
    "eercf": {},
    "internvideo": {},
}


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    token_ids = np.zeros((8, 8), np.int32)
    for row, length in enumerate((8, 5, 3, 4, 6, 7, 3, 8)):
        token_ids[row, :length] = [62, *random.integers(1, 62, length - 2), 63]
    frame_counts = np.array([3, 2, 1, 3, 2, 2, 1, 3])
    return {
        "token_ids": token_ids,
        "token_mask": (token_ids != 0).astype(np.int32),
        "frames": random.integers(0, 256, (8, 4, 16, 16, 3), np.uint8),
        "frame_mask": (np.arange(4) < frame_counts[:, None]).astype(np.int32),
    }


def test_every_recipe_is_covered():
    assert {name.split("-")[0] for name in CASES} == set(RECIPES)


def gradients_of_whole(settings):
    return jax.value_and_grad(functools.partial(batch_loss, settings=settings), has_aux=True)


def gradients_of_parts(settings, micro_batches):
    return functools.partial(
        cached_value_and_grad,
        config=settings.config,
        runtime=settings.runtime,
        micro_batches=micro_batches,
    )


@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_whole_batch(name, batch, tiny_clip, quickly_compiled):
    recipe = recipe_named(name.split("-")[0])
    sizes = {"max_frames": batch["frames"].shape[1]} if name == "eercf" else {}
    retriever = init_retriever(recipe.config(tiny_clip, CASES[name], sizes), jax.random.key(0))
    settings = StepSettings(retriever.config, retriever.runtime, None)
    whole = quickly_compiled(jax.jit(gradients_of_whole(settings)))
    cached = quickly_compiled(jax.jit(gradients_of_parts(settings, 4)))
    arguments = (retriever.params, retriever.state, batch, jax.random.key(1))
    (loss, terms), gradients = whole(*arguments)
    (cached_loss, cached_terms), cached_gradients = cached(*arguments)
    np.testing.assert_allclose(cached_loss, loss, rtol=2e-6)
    assert set(cached_terms) == set(terms)
    jax.tree.map(
        # Sums over the batch are taken in another order: rounding of float32, by the array's size.
        # Gradients of biases that a softmax cancels are rounding alone.
        lambda ours, theirs: np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=2e-5 * max(float(np.abs(theirs).max()), 5e-3)
        ),
        (cached_gradients, cached_terms["state"]),
        (gradients, terms["state"]),
    )


def test_what_is_kept_in_memory_is_that_of_one_micro_batch(tiny_retriever, quick_compilation):
    retriever, key = tiny_retriever("backbone_tvr"), jax.random.key(0)
    # So many pairs, compared in small tiles, that most of the memory is for their activations.
    settings = StepSettings(retriever.config, Runtime(tile=8), None)
    pairs = abstract_batch(64, max_frames=4, resolution=16, max_words=8)

    def temporaries(value_and_grad):
        lowered = jax.jit(value_and_grad).lower(retriever.params, retriever.state, pairs, key)
        return lowered.compile(quick_compilation).memory_analysis().temp_size_in_bytes

    whole = temporaries(gradients_of_whole(settings))
    cached = temporaries(gradients_of_parts(settings, 8))
    assert cached < whole / 3, (cached, whole)
