"""What openai/CLIP's recorded cases hold: pictures and texts through both towers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from vtr_jax.models.clip import TextTower, VisionTower
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.parity.recorded import (
    ArrayTable,
    RecordedArray,
    RecordedSystem,
    sentence,
    similarity,
)

if TYPE_CHECKING:
    from vtr_jax.parity.compare import Outputs


def _vision(outputs: Outputs) -> VisionTower:
    retriever = outputs.retriever
    spec = ModuleSpec(VisionTower, retriever.config.clip.vision, retriever.runtime)
    return spec.bind(retriever.params["visual"])


def _text(outputs: Outputs) -> TextTower:
    retriever = outputs.retriever
    spec = ModuleSpec(TextTower, retriever.config.clip.text, retriever.runtime)
    return spec.bind(retriever.params["text"])


@jax.jit
def _embed(tower: VisionTower | TextTower, inputs: jax.Array) -> jax.Array:
    return tower.embed(inputs)


@functools.partial(jax.jit, static_argnums=2)
def _first_through_blocks(
    tower: VisionTower | TextTower, embedded_blw: jax.Array, is_causal: bool
) -> jax.Array:
    return tower.transformer.layer_outputs(embedded_blw[:1], is_causal=is_causal)[:, 0]


def _vision_embedded(outputs: Outputs) -> jax.Array:
    return _embed(_vision(outputs), jnp.asarray(outputs.inputs.frames))


def _text_embedded(outputs: Outputs) -> jax.Array:
    return _embed(_text(outputs), jnp.asarray(outputs.inputs.token_ids))


def _vision_blocks(outputs: Outputs) -> jax.Array:
    return _first_through_blocks(_vision(outputs), _vision_embedded(outputs), False)


def _text_blocks(outputs: Outputs) -> jax.Array:
    return _first_through_blocks(_text(outputs), _text_embedded(outputs), True)


def _text_ln_final(outputs: Outputs) -> jax.Array:
    return _text(outputs).hidden(jnp.asarray(outputs.inputs.token_ids))[:2]


def _visual_tokens(outputs: Outputs) -> jax.Array:
    video = outputs.video
    assert video.patches is not None
    return jnp.concatenate([video.frames[:, :1], video.patches[:, 0]], axis=1)


def _logit_scale_exp(outputs: Outputs) -> jax.Array:
    return jnp.exp(outputs.retriever.params["logit_scale"])


def tower_options(clip: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the towers that a recorded CLIP configuration states."""
    return {"text_heads": clip["transformer_heads"]} if "transformer_heads" in clip else {}


CLIP = RecordedSystem(
    options=tower_options,
    resolution=lambda config: config["image_resolution"],
    arrays=ArrayTable(
        {
            "image_features": RecordedArray("feature", lambda o: o.video.frames[:, 0]),
            "text_features": RecordedArray("feature", sentence),
            "visual_tokens": RecordedArray("feature", _visual_tokens),
            "text_tokens": RecordedArray("feature", lambda o: o.text.tokens),
            "visual_ln_pre": RecordedArray("feature", _vision_embedded),
            "visual_block{}_item0": RecordedArray("feature", _vision_blocks),
            "text_embedded": RecordedArray("feature", lambda o: _text_embedded(o)[:2]),
            "text_block{}_item0": RecordedArray("feature", _text_blocks),
            "text_ln_final": RecordedArray("feature", _text_ln_final),
            "logits_per_text": RecordedArray("logits", similarity),
            "logits_per_image": RecordedArray("logits", lambda o: similarity(o).T),
            "logit_scale_exp": RecordedArray("loss", _logit_scale_exp),
        }
    ),
)
