"""Comparing tile by tile gives what comparing at once gives, whatever the sizes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtr_jax.models.tiling import even_tile, map_blocks, map_pairs


@given(count=st.integers(1, 5000), tile=st.integers(1, 600))
def test_even_tiles_are_as_few_as_before_and_nearly_full(count, tile):
    height = even_tile(count, tile)
    tiles = -(-count // height)
    assert 1 <= height <= tile
    assert tiles == -(-count // tile)
    assert 0 <= tiles * height - count < tiles


@pytest.mark.parametrize("walk", [map_pairs, map_blocks])
@pytest.mark.parametrize(("texts", "videos", "tile"), [(7, 5, 3), (2, 2, 8), (1, 9, 4), (6, 6, 3)])
def test_every_pair_is_compared_once_and_stands_in_its_place(walk, texts, videos, tile):
    places_t, places_v = jnp.arange(1, texts + 1), jnp.arange(1, videos + 1)
    scores_tv = walk(lambda t, v: 100 * t[:, None] + v[None, :], places_t, places_v, tile)
    np.testing.assert_array_equal(scores_tv, 100 * places_t[:, None] + places_v[None, :])
