"""One training step as a pure function, jitted over a mesh."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vtr_jax.models.recipes import RetrieverConfig
from vtr_jax.models.retriever import Retriever
from vtr_jax.models.runtime import Runtime
from vtr_jax.sharding import batch_sharding, shardings

TrainState = dict[str, Any]
Batch = Mapping[str, Array]
MAX_LOGIT_SCALE = math.log(100.0)

BATCH_KEYS = ("frames", "frame_mask", "token_ids", "token_mask")


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What is trained and how, hashable.

    optimizer: the transformation whose update is added. config, runtime: the retriever's.
    """

    config: RetrieverConfig
    runtime: Runtime
    optimizer: optax.GradientTransformation


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


def initial_train_state(retriever: Retriever, settings: StepSettings, mesh: Mesh) -> TrainState:
    """Parameters, recipe state and optimizer state, each where the mesh wants it.

    The optimizer's moments are made in place: no device ever holds a whole copy of them. The
    state takes the retriever's arrays over: the first step deletes them.
    """
    params = jax.device_put(retriever.params, shardings(retriever.params, mesh))
    abstract = jax.eval_shape(settings.optimizer.init, params)
    opt_state = jax.jit(settings.optimizer.init, out_shardings=shardings(abstract, mesh))(params)
    state = jax.device_put(retriever.state, shardings(retriever.state, mesh))
    return {"params": params, "state": state, "opt_state": opt_state}


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
    retriever = Retriever(params, state, settings.config, settings.runtime)
    text = retriever.encode_text(batch["token_ids"], batch["token_mask"])
    video = retriever.encode_video(batch["frames"], batch["frame_mask"])
    return retriever.loss(text, video, rng=key)


def train_step(
    train_state: TrainState, batch: Batch, key: Array, settings: StepSettings
) -> tuple[TrainState, dict[str, Array]]:
    """One update.

    key: the step's random key. Returns the new state and metrics: loss, its scalar terms,
    logit_scale (before the step), gradient_norm (before clipping), update_norm.
    """
    grad_fn = jax.value_and_grad(batch_loss, has_aux=True)
    (loss, terms), gradients = grad_fn(
        train_state["params"], train_state["state"], batch, key, settings
    )
    updates, opt_state = settings.optimizer.update(
        gradients, train_state["opt_state"], train_state["params"]
    )
    params = clamp_logit_scale(optax.apply_updates(train_state["params"], updates))
    scalars = {
        name: value for name, value in terms.items() if name != "state" and jnp.ndim(value) == 0
    }
    metrics = {
        "loss": loss,
        **scalars,
        "logit_scale": jnp.exp(train_state["params"]["logit_scale"]),
        "gradient_norm": optax.tree.norm(gradients),
        "update_norm": optax.tree.norm(updates),
    }
    return {"params": params, "state": terms["state"], "opt_state": opt_state}, metrics


def compile_train_step(
    settings: StepSettings, train_state: TrainState, mesh: Mesh
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, dict[str, Array]]]:
    """The jitted step: state is donated and stays where it lies, batches are split.

    train_state: concrete or abstract, for the placement of every leaf.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    state_shardings = shardings(train_state, mesh)
    batch_shardings = dict.fromkeys(BATCH_KEYS, batch_sharding(mesh))
    return jax.jit(
        functools.partial(train_step, settings=settings),
        in_shardings=(state_shardings, batch_shardings, whole),
        out_shardings=(state_shardings, whole),
        donate_argnums=0,
    )
