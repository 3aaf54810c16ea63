"""Comparing short captions without their padding.

Captions are sorted by length, and each tile of them is compared with as many words as its longest
one has. MSR-VTT's captions fill 12 of 32 tokens on average.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vtr_jax.models.tiling import even_tile, map_pairs

# How many lengths are compiled: 2, 4, ... 32 of 32 tokens. More cut closer and compile longer.
LENGTHS = 16


def words_needed(mask_tl: Array) -> Array:
    """Words up to the last real one of each caption, 0 where there is none; int [T]."""
    places = jnp.arange(1, mask_tl.shape[1] + 1)
    return jnp.max(jnp.where(mask_tl > 0, places, 0), axis=1)


def compiled_lengths(words: int) -> tuple[int, ...]:
    """The lengths that captions of up to so many words are cut to, shortest first."""
    step = -(-words // LENGTHS)
    return tuple(min(length, words) for length in range(step, words + step, step))


def map_pairs_by_length(
    compare: Callable[[Any, Any], Any],
    shorten: Callable[[Any, int], Any],
    texts: Any,
    mask_tl: Array,
    videos: Any,
    tile: int,
) -> Any:
    """map_pairs, where compare may be given captions cut to fewer words than they have.

    shorten(texts, words): the captions without what follows those words. mask_tl: 1 on real words.
    compare must not depend on how many padded words a caption has, nor on whether it has any.
    """
    count_t, lengths = mask_tl.shape[0], compiled_lengths(mask_tl.shape[1])
    needed_t = words_needed(mask_tl)
    height = even_tile(count_t, tile)
    tiles = -(-count_t // height)
    # map_pairs gives a tile every so many-th row; neighbours in length are put where it looks.
    sorted_t = jnp.argsort(needed_t, stable=True)
    place_n = jnp.arange(tiles * height)
    rank_n = jnp.minimum(place_n % tiles * height + place_n // tiles, count_t - 1)
    order_n = sorted_t[rank_n]

    def compare_short(texts_and_needed: Any, video_tile: Any) -> Any:
        text_tile, needed = texts_and_needed
        branch = jnp.searchsorted(jnp.asarray(lengths), needed.max())
        ways = [
            lambda texts, videos, words=words: compare(shorten(texts, words), videos)
            for words in lengths
        ]
        return jax.lax.switch(branch, ways, text_tile, video_tile)

    ordered = jax.tree.map(lambda leaf: leaf[order_n], (texts, needed_t))
    scores = map_pairs(compare_short, ordered, videos, tile)
    rank_t = jnp.zeros(count_t, jnp.int32).at[sorted_t].set(jnp.arange(count_t))
    row_t = rank_t % height * tiles + rank_t // height
    return jax.tree.map(lambda leaf: leaf[row_t], scores)
