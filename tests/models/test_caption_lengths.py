"""Captions compared without their padding: the same scores, whatever their lengths and order."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.models.interactions.caption_lengths import (
    LENGTHS,
    compiled_lengths,
    words_needed,
)
from vtr_jax.models.interactions.token_wise import (
    mean_weights,
    token_wise_scores,
    token_wise_scores_of_short,
    weighted,
)

VIDEOS, FRAMES, WIDTH = 5, 3, 8


@functools.partial(jax.jit, static_argnums=(0, 3))
def scores_of(compare, text, video, tile):
    return compare(text, video, tile)


def sides_of(counts, words, seed=0):
    rng = np.random.default_rng(seed)
    mask = jnp.asarray(np.arange(words) < np.asarray(counts)[:, None], jnp.int32)
    tokens = rng.standard_normal((len(counts), words, WIDTH)).astype(np.float32)
    frames = rng.standard_normal((VIDEOS, FRAMES, WIDTH)).astype(np.float32)
    frame_mask = jnp.asarray(np.arange(FRAMES) < rng.integers(1, FRAMES + 1, VIDEOS)[:, None])
    return (
        weighted(jnp.asarray(tokens), mask, mean_weights(mask)),
        weighted(jnp.asarray(frames), frame_mask, mean_weights(frame_mask)),
    )


@pytest.mark.parametrize("tile", [1, 2, 3, 64])
@pytest.mark.parametrize("words", [5, 9, 32])
def test_same_scores_for_every_length_order_and_tile(words, tile):
    counts = np.random.default_rng(words).permutation(np.resize(np.arange(1, words + 1), 11))
    text, video = sides_of(counts, words)
    whole = scores_of(token_wise_scores, text, video, tile)
    short = scores_of(token_wise_scores_of_short, text, video, tile)
    assert set(whole) == set(short)
    for name, matrix in whole.items():
        # Products of other shapes may add in another order.
        np.testing.assert_allclose(short[name], matrix, atol=3e-7, err_msg=name)


def test_padding_that_is_left_out_counts_as_zero():
    """Where every word is the opposite of the only frame, padding is each frame's best match."""
    mask = jnp.asarray([[1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
    text = weighted(-jnp.ones((2, 8, WIDTH)), mask, mean_weights(mask))
    video = weighted(jnp.ones((1, 1, WIDTH)), jnp.ones((1, 1)), jnp.ones((1, 1)))
    v2t = scores_of(token_wise_scores_of_short, text, video, 1)["v2t"]
    np.testing.assert_allclose(v2t[:, 0], [0.0, -1.0], atol=1e-6)


def test_words_needed_reach_the_last_real_one():
    mask = jnp.asarray([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]])
    assert words_needed(mask).tolist() == [1, 4, 0, 3]


@pytest.mark.parametrize("words", [1, 3, 8, 12, 32, 77])
def test_compiled_lengths_end_at_all_words(words):
    lengths = compiled_lengths(words)
    assert list(lengths) == sorted(set(lengths))
    assert lengths[-1] == words
    assert len(lengths) <= LENGTHS
