"""Loading a checkpoint that lacks parameters or has others, where the caller asks for it.

PyTorch's non-strict loading does both without a word; here each is an option, and reported.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.names.params import expected_shapes, original_from_params
from vtr_jax.models.recipes import RetrieverConfig
from vtr_jax.models.retriever import abstract_retriever, init_retriever

MOST_NAMED = 8


def expected_of(config: RetrieverConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter that a retriever has, by original key."""
    return expected_shapes(NAME_TABLES[config.recipe], abstract_retriever(config).params)


def without_unknown(
    tensors: Mapping[str, Any], config: RetrieverConfig
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The tensors that a retriever has, and a note that names the others."""
    known = {*expected_of(config), *NAME_TABLES[config.recipe].ignored}
    unknown = [name for name in tensors if name not in known]
    notes = (f"ignored, no part of this model: {_some(unknown)}",) if unknown else ()
    return {name: tensors[name] for name in tensors if name in known}, notes


def with_fresh(
    tensors: Mapping[str, Any], config: RetrieverConfig, seed: int
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The tensors and fresh ones for what is missing, drawn from seed, and a note naming those."""
    expected = expected_of(config)
    missing = [name for name in expected if name not in tensors]
    if not missing:
        return dict(tensors), ()
    fresh = _fresh_tensors(config, seed)
    drawn = {
        name: LazyTensor(
            np.dtype(np.float32), expected[name], functools.partial(fresh.__getitem__, name)
        )
        for name in missing
    }
    note = f"missing in the file, start afresh from seed {seed}: {_some(missing)}"
    return {**tensors, **drawn}, (note,)


def _fresh_tensors(config: RetrieverConfig, seed: int) -> dict[str, np.ndarray]:
    params = init_retriever(config, jax.random.key(seed)).params
    return original_from_params(jax.device_get(params), NAME_TABLES[config.recipe])


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    shown = ", ".join(names[:MOST_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown
