"""Weights that are not finite: found where weights are read, and named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

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

    The arrays stay where they are, on all devices of all processes.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    floats = {path_name(path): leaf for path, leaf in leaves if _is_float(leaf)}
    bad = jax.device_get([_is_bad(leaf) for leaf in floats.values()])
    names = [name for name, found in zip(floats, bad, strict=True) if found]
    return {name: int(jnp.sum(~jnp.isfinite(floats[name]))) for name in names}


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


@jax.jit
def _is_bad(leaf: jax.Array) -> jax.Array:
    return ~jnp.isfinite(leaf).all()
