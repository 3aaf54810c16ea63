"""The optimizer of the original programs as optax transformations, and plain AdamW.

BertAdam: per-tensor gradient clipping, no bias correction, decay inside the step, one
step counter a tensor. Source: the BertAdam that CLIP4Clip, DRL and their kin share.

Both take `apply`, whether the update will be applied, and keep counts and moments where it will
not. They do so where a moment is made: a choice between old and new states behind the whole update
keeps both in memory, which takes 1.2 GB and three times as long for ViT-B/32 on a CPU.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from vtr_jax.models.parameter_paths import path_name
from vtr_jax.training.guard import chosen

Schedule = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Group:
    """How the tensors of one group are updated."""

    learning_rate: float
    weight_decay: float


GroupOf = Callable[[str], Group]


class _TensorUpdate(NamedTuple):
    update: Any
    count: Any
    mu: Any
    nu: Any


class BertAdamState(NamedTuple):
    """Updates so far and both moments, tensor by tensor."""

    count: Any
    mu: Any
    nu: Any


def warmup_cosine(total_steps: float, warmup_proportion: float) -> Schedule:
    """BertAdam's learning-rate factor: x/warmup while x = step/total < warmup, else a cosine.

    The first step has factor 0; at the end of the warmup it drops from 1 to
    0.5(1+cos(pi*warmup)), because the cosine spans the whole run; past the end it rises again.
    total_steps -1 gives a constant 1.
    """
    if total_steps == -1:
        return lambda step: jnp.ones_like(step, jnp.float32)
    if total_steps <= 0:
        raise ValueError(f"total_steps: expected a positive number or -1, got {total_steps}")

    def factor(step: Array) -> Array:
        progress = step.astype(jnp.float32) / total_steps
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        if warmup_proportion <= 0:
            return cosine
        return jnp.where(progress < warmup_proportion, progress / warmup_proportion, cosine)

    return factor


def is_stacked(path: str) -> bool:
    """Whether the array at this path has a leading layer axis."""
    return "blocks/" in path


def _tensor_norm(path: str, gradient: Array) -> Array:
    axes = tuple(range(1, gradient.ndim)) if is_stacked(path) else None
    return jnp.sqrt(jnp.sum(jnp.square(gradient), axis=axes, keepdims=axes is not None))


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scale all gradients by max_norm / (norm + 1e-6) if that is below 1, as PyTorch does."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda g: g * scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def bert_adam(
    group_of: GroupOf,
    schedule: Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.98,
    eps: float = 1e-6,
    max_grad_norm: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """BertAdam over a nested dict of arrays.

    group_of: learning rate and weight decay of a slash-separated path. schedule: factor of the
    learning rate at a tensor's own update count. A gradient of None leaves the tensor, its
    moments and its count as they are. Per tensor (per layer where stacked):
    g *= min(1, max_grad_norm / (|g| + 1e-6)); m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
    p -= rate * (m / (sqrt(v) + eps) + decay * p). update takes `apply`, see above.
    """

    def init(params: Any) -> BertAdamState:
        return BertAdamState(
            count=jax.tree.map(lambda p: jnp.zeros((), jnp.int32), params),
            mu=jax.tree.map(jnp.zeros_like, params),
            nu=jax.tree.map(jnp.zeros_like, params),
        )

    def update_tensor(
        apply: Any, path: Any, g: Any, p: Array, count: Array, mu: Array, nu: Array
    ) -> _TensorUpdate:
        if g is None:
            return _TensorUpdate(None, count, mu, nu)
        name = path_name(path)
        group = group_of(name)
        g = g * jnp.minimum(1.0, max_grad_norm / (_tensor_norm(name, g) + 1e-6))
        mu = jnp.where(apply, b1 * mu + (1 - b1) * g, mu)
        nu = jnp.where(apply, b2 * nu + (1 - b2) * jnp.square(g), nu)
        direction = mu / (jnp.sqrt(nu) + eps) + group.weight_decay * p
        rate = group.learning_rate * schedule(count)
        return _TensorUpdate(-rate * direction, jnp.where(apply, count + 1, count), mu, nu)

    def update(
        gradients: Any, state: BertAdamState, params: Any = None, *, apply: Any = True, **_: Any
    ) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("bert_adam: weight decay needs the params")
        results = jax.tree_util.tree_map_with_path(
            functools.partial(update_tensor, apply),
            gradients,
            params,
            *state,
            is_leaf=lambda g: g is None,
        )

        def part(name: str) -> Any:
            return jax.tree.map(
                lambda result: getattr(result, name),
                results,
                is_leaf=lambda node: isinstance(node, _TensorUpdate),
            )

        return part("update"), BertAdamState(part("count"), part("mu"), part("nu"))

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformationExtraArgs:
    """optax.scale_by_adam, with its state, whose update takes `apply`, see above."""

    def update(
        gradients: Any,
        state: optax.ScaleByAdamState,
        params: Any = None,
        *,
        apply: Any = True,
        **_: Any,
    ) -> tuple[Any, Any]:
        count = optax.safe_increment(state.count)
        mu = chosen(apply, optax.tree.update_moment(gradients, state.mu, b1, 1), state.mu)
        nu = chosen(apply, optax.tree.update_moment(gradients, state.nu, b2, 2), state.nu)
        mu_hat = optax.tree.bias_correction(mu, b1, count)
        nu_hat = optax.tree.bias_correction(nu, b2, count)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu_hat, nu_hat)
        return updates, optax.ScaleByAdamState(chosen(apply, count, state.count), mu, nu)

    return optax.GradientTransformationExtraArgs(optax.scale_by_adam().init, update)


def apply_group_rates(
    group_of: GroupOf, schedule: Schedule
) -> optax.GradientTransformationExtraArgs:
    """-rate * (update + decay * p) by group: the last link of AdamW."""

    def init(params: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(
        updates: Any, state: Any, params: Any = None, *, apply: Any = True, **_: Any
    ) -> tuple[Any, Any]:
        factor = schedule(state.count)

        def scale(path: Any, u: Array, p: Array) -> Array:
            group = group_of(path_name(path))
            return -group.learning_rate * factor * (u + group.weight_decay * p)

        scaled = jax.tree_util.tree_map_with_path(scale, updates, params)
        count = chosen(apply, optax.safe_increment(state.count), state.count)
        return scaled, optax.ScaleByScheduleState(count=count)

    return optax.GradientTransformationExtraArgs(init, update)


def adamw(
    group_of: GroupOf, schedule: Schedule, *, b1: float = 0.9, b2: float = 0.98, eps: float = 1e-6
) -> optax.GradientTransformationExtraArgs:
    """AdamW with bias correction, rates and decay by group; update takes `apply`, see above."""
    return optax.chain(scale_by_adam(b1, b2, eps), apply_group_rates(group_of, schedule))
