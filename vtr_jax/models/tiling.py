"""Comparing every text with every video tile by tile, so that no head holds all pairs at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def _cut(tree: Any, tile: int) -> Any:
    """Rows cut into [tiles, tile, ...], filled up with copies of the last row.

    A tile takes every so many-th row, not neighbours: rows that are spread over devices then make
    tiles that are spread over them too, and every device works on every tile.
    """

    def cut(leaf: Array) -> Array:
        missing = -leaf.shape[0] % tile
        padded = jnp.pad(leaf, ((0, missing), *[(0, 0)] * (leaf.ndim - 1)), mode="edge")
        return jnp.swapaxes(padded.reshape(tile, -1, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(cut, tree)


def _joined(tiles: Array, texts: int, videos: int) -> Array:
    """[I,J,t,v,...] to [T,V,...]: the inverse of the cuts."""
    rows, columns, tile_t, tile_v = tiles.shape[:4]
    whole = tiles.transpose(2, 0, 3, 1, *range(4, tiles.ndim))
    return whole.reshape(rows * tile_t, columns * tile_v, *tiles.shape[4:])[:texts, :videos]


def _rows(tree: Any) -> int:
    return jax.tree.leaves(tree)[0].shape[0]


def even_tile(count: int, tile: int) -> int:
    """The size, tile at most, of as few tiles as hold count rows, the last one nearly full."""
    return -(-count // -(-count // tile))


def map_pairs(compare: Callable[[Any, Any], Any], texts: Any, videos: Any, tile: int) -> Any:
    """A function of texts and videos applied to all of them, tile by tile.

    compare(texts, videos): arrays (or a tree of them) that begin with [texts, videos]; it must
    treat pairs alone. texts, videos: trees of arrays
    whose first axis is the text or the video. tile: rows a side. Returns the same tree over
    [T,V,...]. In the backward pass each tile is computed again instead of being kept.
    """
    count_t, count_v = _rows(texts), _rows(videos)
    if count_t <= tile and count_v <= tile:
        return jax.checkpoint(compare)(texts, videos)
    text_tiles = _cut(texts, even_tile(count_t, tile))
    video_tiles = _cut(videos, even_tile(count_v, tile))
    compare = jax.checkpoint(compare, prevent_cse=False)

    def strip(text_tile: Any) -> Any:
        return jax.lax.map(lambda video_tile: compare(text_tile, video_tile), video_tiles)

    tiles = jax.lax.map(jax.checkpoint(strip, prevent_cse=False), text_tiles)
    return jax.tree.map(lambda leaf: _joined(leaf, count_t, count_v), tiles)


def _blocks(tree: Any, size: int) -> Any:
    """Neighbouring rows cut into [blocks, size, ...], the last block filled up with zeros."""

    def cut(leaf: Array) -> Array:
        missing = -leaf.shape[0] % size
        padded = jnp.pad(leaf, ((0, missing), *[(0, 0)] * (leaf.ndim - 1)))
        return padded.reshape(-1, size, *leaf.shape[1:])

    return jax.tree.map(cut, tree)


def map_blocks(compare: Callable[[Any, Any], Array], texts: Any, videos: Any, size: int) -> Array:
    """A function of texts and videos applied to blocks of neighbours in the given order.

    compare(texts, videos): [texts, videos]; unlike for map_pairs it may depend on what else is in
    the block, but must give rows of zeros no influence. Returns [T,V].
    """
    count_t, count_v = _rows(texts), _rows(videos)
    video_blocks = _blocks(videos, min(size, count_v))

    def strip(text_block: Any) -> Array:
        return jax.lax.map(lambda video_block: compare(text_block, video_block), video_blocks)

    blocks = jax.lax.map(strip, _blocks(texts, min(size, count_t)))
    rows, columns, block_t, block_v = blocks.shape
    whole_tv = blocks.swapaxes(1, 2).reshape(rows * block_t, columns * block_v)
    return whole_tv[:count_t, :count_v]
