"""Plain gradient accumulation, as in the originals: every micro-batch has its own negatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vtr_jax.training.micro_batches import split

# (params, state, batch, key) -> (loss, terms with the next state), gradients
ValueAndGrad = Callable[[Any, Any, Any, Array], tuple[tuple[Array, dict[str, Any]], Any]]


def scalar_terms(terms: Mapping[str, Any]) -> dict[str, Array]:
    """The terms of a loss that are one number each."""
    return {
        name: value for name, value in terms.items() if name != "state" and jnp.ndim(value) == 0
    }


def accumulated(value_and_grad: ValueAndGrad, micro_batches: int) -> ValueAndGrad:
    """The function over a batch cut into micro-batches: means of losses, terms and gradients.

    Not the loss of the whole batch: captions meet only the clips of their micro-batch. The k-th
    micro-batch has every micro_batches-th pair from the k-th on, so that a batch split over
    devices is not moved between them. The recipe's state goes from one to the next.
    """
    if micro_batches == 1:
        return value_and_grad

    def over_micro_batches(params: Any, state: Any, batch: Any, key: Array) -> Any:
        def one(carry: Any, inputs: Any) -> Any:
            state, total = carry
            (loss, terms), gradients = value_and_grad(params, state, *inputs)
            summed = jax.tree.map(jnp.add, total, gradients)
            return (terms["state"], summed), {**scalar_terms(terms), "loss": loss}

        parts = split(batch, micro_batches)
        keys = jax.random.split(key, micro_batches)
        start = (state, jax.tree.map(jnp.zeros_like, params))
        (state, total), scalars = jax.lax.scan(one, start, (parts, keys))
        terms = {name: jnp.mean(value) for name, value in scalars.items()}
        gradients = jax.tree.map(lambda gradient: gradient / micro_batches, total)
        return (terms.pop("loss"), {**terms, "state": state}), gradients

    return over_micro_batches
