"""What InternVideo's recorded cases hold: the tower from the inside, heads, and their losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from vtr_jax.models.clip import TextTower
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.video_tower import TowerStages, VideoTower
from vtr_jax.parity.recorded import (
    ArrayTable,
    RecordedArray,
    RecordedSystem,
    loss_term,
    sentence,
    similarity,
    total_loss,
)

if TYPE_CHECKING:
    from vtr_jax.parity.compare import Outputs

OPTIONS = ("sim_header", "interaction", "wti_arch", "cdcr", "return_list", "vision_heads")


@jax.jit
def _stages(tower: VideoTower, frames: jax.Array) -> TowerStages:
    return tower.stages(frames)


@jax.jit
def _patches(tower: VideoTower, frames: jax.Array) -> jax.Array:
    return tower.patches(frames)


@jax.jit
def _hidden(tower: TextTower, token_ids: jax.Array) -> jax.Array:
    return tower.hidden(token_ids)


@jax.jit
def _first_text_through_blocks(tower: TextTower, token_ids: jax.Array) -> jax.Array:
    embedded = tower.embed(token_ids[:1])
    return tower.transformer.layer_outputs(embedded, is_causal=True)[:, 0]


def _vision(outputs: Outputs) -> VideoTower:
    retriever = outputs.retriever
    spec = retriever.recipe.vision_tower(retriever.config, retriever.runtime)
    return spec.bind(retriever.params["visual"])


def _text(outputs: Outputs) -> TextTower:
    retriever = outputs.retriever
    spec = ModuleSpec(TextTower, retriever.config.clip.text, retriever.runtime)
    return spec.bind(retriever.params["text"])


def _tower(outputs: Outputs) -> TowerStages:
    return _stages(_vision(outputs), jnp.asarray(outputs.inputs.frames))


def _embedded_patches(outputs: Outputs) -> jax.Array:
    """The first clip's patches as [W,F,G,G]."""
    patches_fpw = _patches(_vision(outputs), jnp.asarray(outputs.inputs.frames))[0]
    side = round(patches_fpw.shape[1] ** 0.5)
    grid = patches_fpw.reshape(patches_fpw.shape[0], side, side, -1)
    return grid.transpose(3, 0, 1, 2)


def _positions(outputs: Outputs) -> jax.Array:
    """What every listed layer's convolution adds to the first clip, [listed,W,F,G,G]."""
    return _tower(outputs).positions[:, 0].transpose(0, 4, 1, 2, 3)


def _all_features(outputs: Outputs) -> jax.Array:
    """The last block's output as [1+P,B,F,W]."""
    last = _tower(outputs).blocks[-1]
    return last.reshape(*outputs.inputs.frame_mask.shape, *last.shape[1:]).transpose(2, 0, 1, 3)


def _text_hidden(outputs: Outputs) -> jax.Array:
    return _hidden(_text(outputs), jnp.asarray(outputs.inputs.token_ids))


def _text_blocks(outputs: Outputs) -> jax.Array:
    return _first_text_through_blocks(_text(outputs), jnp.asarray(outputs.inputs.token_ids))


def _interaction(outputs: Outputs) -> str:
    return outputs.retriever.config.option("interaction")


def _text_side(outputs: Outputs) -> jax.Array:
    """What the head receives of a text."""
    text = outputs.text
    return text.sentence[:, None] if _interaction(outputs) == "no" else text.tokens


def _video_side(outputs: Outputs) -> jax.Array:
    """What the head receives of a clip."""
    video = outputs.video
    assert video.pooled is not None
    return video.frames if _interaction(outputs) == "wti" else video.pooled[:, None]


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in OPTIONS if name in config}


INTERNVIDEO = RecordedSystem(
    options=_options,
    resolution=lambda config: config["resolution"],
    picks=("cdcr_text_pick", "cdcr_video_pick"),
    arrays=ArrayTable(
        {
            "encode_text": RecordedArray("feature", sentence),
            "encode_text_hidden": RecordedArray("feature", _text_hidden),
            "encode_video": RecordedArray("feature", lambda o: o.video.pooled),
            "encode_video_all": RecordedArray("feature", _all_features),
            "sequence_output": RecordedArray("feature", _text_side),
            "visual_output": RecordedArray("feature", _video_side),
            "tower/conv1_clip0": RecordedArray("feature", _embedded_patches),
            "tower/ln_pre_frame0": RecordedArray("feature", lambda o: _tower(o).embedded[0]),
            "tower/resblock{}_frame0": RecordedArray("feature", lambda o: _tower(o).blocks[:, 0]),
            "tower/dpe{}_clip0": RecordedArray("feature", _positions),
            "tower/dec{}_out": RecordedArray("feature", lambda o: _tower(o).tokens),
            "tower/mixed": RecordedArray("feature", lambda o: _tower(o).mixed),
            "text/resblock{}_clip0": RecordedArray("feature", _text_blocks),
            "sim_eval": RecordedArray("logits", similarity),
            "sim_train": RecordedArray("logits", loss_term("logits_tv")),
            "sim_loss": RecordedArray("loss", loss_term("contrastive")),
            "cdcr_loss": RecordedArray("loss", loss_term("cdcr")),
            "loss": RecordedArray("loss", total_loss),
        }
    ),
)
