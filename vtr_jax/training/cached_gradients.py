"""Contrastive training of batches whose activations do not fit into memory, exactly.

1. the towers run over the batch in micro-batches and keep their outputs alone;
2. frame aggregation, interaction and loss run once over the whole batch, and give the gradients of
   those outputs;
3. the towers run over each micro-batch again, now backwards from its share of these gradients.

The loss, and so every negative, is that of the whole batch: unlike plain accumulation the result
is that of one big step, to float32 rounding. Source of the idea: GradCache (arXiv:2101.06983).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vtr_jax.models.features import TextFeatures, VisionFeatures
from vtr_jax.models.parameter_paths import hold
from vtr_jax.models.recipes import RetrieverConfig
from vtr_jax.models.retriever import Retriever
from vtr_jax.models.runtime import Runtime
from vtr_jax.training.micro_batches import joined, split

TOWERS = ("visual", "text")
TowerOutputs = tuple[Array, Array, VisionFeatures]  # sentences, tokens, what frames gave


def run_towers(retriever: Retriever, batch: Any) -> TowerOutputs:
    """What the two towers make of a batch, before anything relates its frames or pairs."""
    text = retriever.encode_text(batch["token_ids"], batch["token_mask"])
    vision = retriever.encode_frames(batch["frames"], batch["frame_mask"])
    return text.sentence, text.tokens, vision


def loss_of_outputs(
    retriever: Retriever, outputs: TowerOutputs, batch: Any, key: Array
) -> tuple[Array, dict[str, Any]]:
    """The training loss and its terms, from the towers' outputs on."""
    sentence_bd, tokens_bld, vision = outputs
    text = TextFeatures(sentence_bd, tokens_bld, batch["token_mask"])
    return retriever.loss(text, retriever.aggregate(vision, batch["frame_mask"]), rng=key)


def cached_value_and_grad(
    params: Any,
    state: Any,
    batch: Any,
    key: Array,
    *,
    config: RetrieverConfig,
    runtime: Runtime,
    micro_batches: int,
    frozen: frozenset[str] = frozenset(),
) -> tuple[tuple[Array, dict[str, Any]], Any]:
    """((loss, terms), gradients) of a whole batch, with the activations of one micro-batch.

    micro_batches: into how many the batch is cut; each has every micro_batches-th pair, so that
    pairs stay on their devices. frozen: names of parameters whose gradient stays 0.
    """
    parts = split(batch, micro_batches)

    def towers_of(tower_params: Any, part: Any) -> TowerOutputs:
        held = hold({**params, **tower_params}, frozen)
        return run_towers(Retriever(held, state, config, runtime), part)

    def head_of(params: Any, outputs: TowerOutputs) -> tuple[Array, dict[str, Any]]:
        retriever = Retriever(hold(params, frozen), state, config, runtime)
        return loss_of_outputs(retriever, outputs, batch, key)

    tower_params = {name: params[name] for name in TOWERS}
    outputs = joined(jax.lax.map(lambda part: towers_of(tower_params, part), parts))
    (loss, terms), (gradients, of_outputs) = jax.value_and_grad(
        head_of, argnums=(0, 1), has_aux=True
    )(params, outputs)

    def add_part(total: Any, inputs: Any) -> tuple[Any, None]:
        part, of_part = inputs
        _, backward = jax.vjp(lambda tower_params: towers_of(tower_params, part), tower_params)
        return jax.tree.map(jnp.add, total, backward(of_part)[0]), None

    own = {name: gradients[name] for name in TOWERS}
    of_towers, _ = jax.lax.scan(add_part, own, (parts, split(of_outputs, micro_batches)))
    return (loss, terms), {**gradients, **of_towers}
