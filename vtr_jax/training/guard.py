"""Whether an update may be applied: finite numbers, and no gradient far above the usual."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

# Gradient norms that the median is taken over, and how many there must be before it counts.
REMEMBERED_NORMS = 64
NORMS_FOR_A_MEDIAN = 16

Guard = dict[str, Array]


def initial_guard() -> Guard:
    """What the guard remembers: recent norms float32 [64], how many it accepted and refused."""
    return {
        "recent_norms": jnp.zeros(REMEMBERED_NORMS, jnp.float32),
        "accepted": jnp.zeros((), jnp.int32),
        "refused": jnp.zeros((), jnp.int32),
    }


def judge(
    guard: Guard, loss: Array, gradient_norm: Array, spike_factor: float
) -> tuple[Array, Guard, dict[str, Array]]:
    """Whether the update of a step may be applied.

    spike_factor: how many times the median of the accepted norms a norm may be; 0 for no limit.
    Returns a bool scalar, the guard after the step, and metrics: refused and spike (0 or 1),
    refused_in_all.
    """
    recent, accepted = guard["recent_norms"], guard["accepted"]
    filled = jnp.arange(REMEMBERED_NORMS) < accepted
    median = jnp.nanmedian(jnp.where(filled, recent, jnp.nan))
    enough = (spike_factor > 0) & (accepted >= NORMS_FOR_A_MEDIAN)
    spike = enough & (gradient_norm > spike_factor * median)
    apply = jnp.isfinite(loss) & jnp.isfinite(gradient_norm) & ~spike
    place = accepted % REMEMBERED_NORMS
    after = {
        "recent_norms": recent.at[place].set(jnp.where(apply, gradient_norm, recent[place])),
        "accepted": accepted + apply,
        "refused": guard["refused"] + ~apply,
    }
    metrics = {"refused": ~apply, "spike": spike, "refused_in_all": after["refused"]}
    return apply, after, metrics


def chosen(apply: Array, after: Any, before: Any) -> Any:
    """The tree after an update where it applies, else the one before."""
    return jax.tree.map(lambda new, old: jnp.where(apply, new, old), after, before)


def refusable(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Any optimizer, made to keep its state where `apply` tells its update that it is refused."""

    def update(
        gradients: Any, state: Any, params: Any = None, *, apply: Any = True, **_: Any
    ) -> tuple[Any, Any]:
        updates, after = optimizer.update(gradients, state, params)
        return updates, chosen(apply, after, state)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)
