"""Cutting a batch into micro-batches without moving pairs between devices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def split(tree: Any, count: int) -> Any:
    """Every array [B, ...] of a tree as [count, B/count, ...].

    The k-th micro-batch has every count-th pair from the k-th on, so that each of them is spread
    over the devices as the batch is.
    """

    def of_array(array: jax.Array) -> jax.Array:
        interleaved = jnp.reshape(array, (array.shape[0] // count, count, *array.shape[1:]))
        return jnp.swapaxes(interleaved, 0, 1)

    return jax.tree.map(of_array, tree)


def joined(tree: Any) -> Any:
    """The inverse of split: every array [count, B/count, ...] as [B, ...]."""

    def of_array(array: jax.Array) -> jax.Array:
        pairs = jnp.swapaxes(array, 0, 1)
        return pairs.reshape(-1, *array.shape[2:])

    return jax.tree.map(of_array, tree)
