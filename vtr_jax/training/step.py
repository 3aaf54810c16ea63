"""One training step as a pure function, jitted over a mesh."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vtr_jax.models.parameter_paths import hold
from vtr_jax.models.recipes import RetrieverConfig
from vtr_jax.models.retriever import Retriever
from vtr_jax.models.runtime import Runtime
from vtr_jax.sharding import batch_sharding, on_mesh, put_tree, shardings
from vtr_jax.training.accumulation import ValueAndGrad, accumulated, scalar_terms
from vtr_jax.training.cached_gradients import cached_value_and_grad
from vtr_jax.training.guard import chosen, initial_guard, judge

TrainState = dict[str, Any]
Batch = Mapping[str, Array]
MAX_LOGIT_SCALE = math.log(100.0)

BATCH_KEYS = ("frames", "frame_mask", "token_ids", "token_mask")


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What is trained and how, hashable.

    optimizer: the transformation whose update is added. It is told by `apply` whether it is; one
    that does not know `apply` must be wrapped in guard.refusable, or a refused step would change
    its moments. config, runtime: the retriever's. frozen: names of parameters without gradient.
    ema_decay: of the average of the parameters, 0 for none. spike_factor: see guard.judge.
    gradient_accumulation_steps: micro-batches a step, see accumulation. cached_micro_batches: into
    how many a batch is cut to save memory, see cached_gradients.
    """

    config: RetrieverConfig
    runtime: Runtime
    optimizer: optax.GradientTransformationExtraArgs
    frozen: frozenset[str] = frozenset()
    ema_decay: float = 0.0
    spike_factor: float = 0.0
    gradient_accumulation_steps: int = 1
    cached_micro_batches: int = 1


def abstract_batch(
    batch_size: int, max_frames: int, resolution: int, max_words: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a training batch; nothing is allocated."""
    frames = (batch_size, max_frames)
    tokens = jax.ShapeDtypeStruct((batch_size, max_words), jnp.int32)
    return {
        "frames": jax.ShapeDtypeStruct((*frames, resolution, resolution, 3), jnp.uint8),
        "frame_mask": jax.ShapeDtypeStruct(frames, jnp.int32),
        "token_ids": tokens,
        "token_mask": tokens,
    }


def abstract_train_state(retriever: Retriever, settings: StepSettings) -> TrainState:
    """The train state of a retriever (abstract or not) as shapes; nothing is allocated."""
    return jax.eval_shape(
        functools.partial(_train_state, settings=settings), retriever.params, retriever.state
    )


def _train_state(params: Any, state: Any, settings: StepSettings) -> TrainState:
    average = {"ema": params} if settings.ema_decay else {}
    return {"params": params, "state": state, **_beside(params, settings), **average}


def _beside(params: Any, settings: StepSettings) -> TrainState:
    return {"opt_state": settings.optimizer.init(params), "guard": initial_guard()}


def initial_train_state(retriever: Retriever, settings: StepSettings, mesh: Mesh) -> TrainState:
    """Parameters, recipe state, optimizer state and guard, each where the mesh wants it.

    The optimizer's moments are made in place: no device ever holds a whole copy of them. The
    state takes the retriever's arrays over: the first step deletes them. "ema", the average of
    the parameters, is there if the settings want one; it starts as the parameters.
    """
    params = put_tree(retriever.params, shardings(retriever.params, mesh))
    make = functools.partial(_beside, settings=settings)
    beside = jax.jit(make, out_shardings=shardings(jax.eval_shape(make, params), mesh))(params)
    state = put_tree(retriever.state, shardings(retriever.state, mesh))
    average = {"ema": jax.tree.map(jnp.copy, params)} if settings.ema_decay else {}
    return {"params": params, "state": state, **beside, **average}


def clamp_logit_scale(params: dict[str, Any]) -> dict[str, Any]:
    """The params with logit_scale at most ln 100, as every original does after a step."""
    return {**params, "logit_scale": jnp.minimum(params["logit_scale"], MAX_LOGIT_SCALE)}


def batch_loss(
    params: Any, state: Any, batch: Batch, key: Array, settings: StepSettings
) -> tuple[Array, dict[str, Any]]:
    """Training loss of one global batch and its terms.

    batch: frames uint8 [B,F,R,R,3], frame_mask [B,F], token_ids [B,L], token_mask [B,L]; the
    i-th caption belongs to the i-th clip and every other pair is a negative.
    """
    held = hold(params, settings.frozen)
    retriever = Retriever(held, state, settings.config, settings.runtime)
    text = retriever.encode_text(batch["token_ids"], batch["token_mask"])
    video = retriever.encode_video(batch["frames"], batch["frame_mask"])
    return retriever.loss(text, video, rng=key)


def _value_and_grad(settings: StepSettings) -> ValueAndGrad:
    """The loss and gradients of a batch, in one go or with cached gradients."""
    if settings.cached_micro_batches == 1:
        return jax.value_and_grad(functools.partial(batch_loss, settings=settings), has_aux=True)
    return functools.partial(
        cached_value_and_grad,
        config=settings.config,
        runtime=settings.runtime,
        micro_batches=settings.cached_micro_batches,
        frozen=settings.frozen,
    )


def train_step(
    train_state: TrainState, batch: Batch, key: Array, settings: StepSettings
) -> tuple[TrainState, dict[str, Array]]:
    """One update, or none where the loss or the gradients are not finite, or a spike.

    key: the step's random key. Returns the new state and metrics: loss, its scalar terms,
    logit_scale (before the step), gradient_norm (before clipping), parameter_norm (after the
    step), both norms of each component (gradient_norm/visual, parameter_norm/visual), and those of
    guard.judge.
    """
    params = train_state["params"]
    gradients_of = accumulated(_value_and_grad(settings), settings.gradient_accumulation_steps)
    (loss, terms), gradients = gradients_of(params, train_state["state"], batch, key)
    gradient_norms = _norms("gradient_norm", gradients)
    apply, guard, verdict = judge(
        train_state["guard"], loss, gradient_norms["gradient_norm"], settings.spike_factor
    )
    updates, opt_state = settings.optimizer.update(
        gradients, train_state["opt_state"], params, apply=apply
    )
    updated = clamp_logit_scale(optax.apply_updates(params, updates))
    after = {
        "params": chosen(apply, updated, params),
        "state": chosen(apply, terms["state"], train_state["state"]),
        "opt_state": opt_state,
        "guard": guard,
    }
    if settings.ema_decay:
        before = train_state["ema"]
        average = optax.incremental_update(after["params"], before, 1.0 - settings.ema_decay)
        after["ema"] = chosen(apply, average, before)
    metrics = {
        "loss": loss,
        **scalar_terms(terms),
        "logit_scale": jnp.exp(params["logit_scale"]),
        **gradient_norms,
        **_norms("parameter_norm", after["params"]),
        **verdict,
    }
    return after, metrics


def _norms(name: str, components: Mapping[str, Any]) -> dict[str, Array]:
    parts = {f"{name}/{part}": optax.tree.norm(tree) for part, tree in components.items()}
    return {name: optax.tree.norm(parts), **parts}


def compile_train_step(
    settings: StepSettings, train_state: TrainState, mesh: Mesh
) -> jax.stages.Wrapped:
    """The jitted step: state is donated and stays where it lies, batches are split.

    train_state: concrete or abstract, for the placement of every leaf.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    state_shardings = shardings(train_state, mesh)
    batch_shardings = dict.fromkeys(BATCH_KEYS, batch_sharding(mesh))
    return jax.jit(
        on_mesh(functools.partial(train_step, settings=settings), mesh),
        in_shardings=(state_shardings, batch_shardings, whole),
        out_shardings=(state_shardings, whole),
        donate_argnums=0,
    )
