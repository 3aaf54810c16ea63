"""Weights that are not finite: found where weights are read, and named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vtr_jax.models.parameter_paths import path_name

MOST_NAMED = 8


def nonfinite_message(what: str, counts: Mapping[str, int]) -> str:
    """Return an error message for tensors with NaN or infinite values.

    Args:
        what: The file or directory they are in.
        counts: How many such values there are, by the tensor's name.
    """
    shown = [f"{name} ({count} values)" for name, count in list(counts.items())[:MOST_NAMED]]
    more = len(counts) - len(shown)
    listed = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    return (
        f"{what}: expected finite weights, found NaN or infinity in {listed}; every score of such "
        "a model may be meaningless. Get an intact copy or an earlier checkpoint, or look into it "
        "with allow_nonfinite=True"
    )


def nonfinite_counts(params: Any) -> dict[str, int]:
    """Return how many values of each array of a tree are NaN or infinite, if any are.

    The arrays stay where they are. On CPUs, each process looks at the parts that it holds.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    floats = {path_name(path): leaf for path, leaf in leaves if _is_float(leaf)}
    counts = {name: _count(leaf) for name, leaf in floats.items()}
    return {name: int(count) for name, count in counts.items() if count}


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _count(leaf: jax.Array) -> int:
    """Count on the host if the array is there: compiling for every shape would take seconds."""
    if any(device.platform != "cpu" for device in leaf.devices()):
        return int(_count_on_device(leaf))
    parts = {str(shard.index): shard.data for shard in leaf.addressable_shards}  # no replicas
    return sum(_count_on_host(np.asarray(part)) for part in parts.values())


def _count_on_host(array: np.ndarray) -> int:
    finite = np.isfinite(array)
    return 0 if finite.all() else int(array.size - finite.sum())


@jax.jit
def _count_on_device(leaf: jax.Array) -> jax.Array:
    return jnp.sum(~jnp.isfinite(leaf))
