"""What CLIP4Clip's recorded cases hold, head by head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from vtr_jax.models.interactions.mean_pooling import l2_normalise, mean_frame
from vtr_jax.parity.recorded import (
    ArrayTable,
    RecordedArray,
    RecordedSystem,
    frames,
    loss_term,
    own_modules,
    sentence,
    similarity,
    total_loss,
)
from vtr_jax.parity.systems.clip import tower_options

if TYPE_CHECKING:
    from vtr_jax.parity.compare import Outputs

PAIRS_RECORDED = 8


def _temporal_transformed(outputs: Outputs) -> jax.Array:
    temporal = own_modules(outputs)["aggregation"]
    return temporal.transformed(outputs.video.frames, outputs.video.mask)


def _lstm_packed(outputs: Outputs) -> np.ndarray:
    """Hidden states in torch's packed order: by frame, longest clips first."""
    hidden = np.asarray(own_modules(outputs)["aggregation"].outputs(outputs.video.frames))
    count = np.asarray(outputs.video.mask).sum(axis=1)
    order = np.argsort(-count, kind="stable")
    rows = [hidden[clip, f] for f in range(count.max()) for clip in order if count[clip] > f]
    return np.stack(rows)


def cross_hidden(outputs: Outputs) -> jax.Array:
    """A cross-encoder's last block for every pair, [T,V,1+F,D]."""
    video = outputs.video
    return own_modules(outputs)["cross"].hidden(outputs.text.sentence, video.temporal, video.mask)


def cross_pooled(outputs: Outputs) -> jax.Array:
    """A cross-encoder's pooled vector for every pair, [T,V,D]."""
    return own_modules(outputs)["cross"].pooled(cross_hidden(outputs))


def _cross_first_pairs(outputs: Outputs) -> jax.Array:
    hidden = cross_hidden(outputs)
    return hidden.reshape(-1, *hidden.shape[2:])[:PAIRS_RECORDED]


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    task = config.get("task_config", {})
    named = ("sim_header", "linear_patch", "loose_type")
    options = {name: task[name] for name in named if name in task}
    if options.get("sim_header") == "tightTransf" and "cross_config" in config:
        options["cross_num_attention_heads"] = config["cross_config"]["num_attention_heads"]
    return {**options, **tower_options(config["clip"])}


CLIP4CLIP = RecordedSystem(
    options=_options,
    resolution=lambda config: config["clip"]["image_resolution"],
    arrays=ArrayTable(
        {
            "text_features": RecordedArray("feature", sentence),
            "frame_features": RecordedArray("feature", frames),
            "frame_transformer_out": RecordedArray("inside a head", _temporal_transformed),
            "lstm_packed_data": RecordedArray("inside a head", _lstm_packed),
            "cross_pooled": RecordedArray("inside a head", cross_pooled),
            "cross_hidden_first8": RecordedArray("inside a head", _cross_first_pairs),
            "frames_for_pooling": RecordedArray(
                "inside a head", lambda o: l2_normalise(jnp.asarray(o.video.temporal))
            ),
            "video_pooled": RecordedArray(
                "inside a head", lambda o: mean_frame(o.video.temporal, o.video.mask)
            ),
            "eval_logits": RecordedArray("logits", similarity),
            "train_logits": RecordedArray("logits", loss_term("logits_tv")),
            "loss": RecordedArray("loss", total_loss),
            "loss_text_to_video": RecordedArray("loss", loss_term("loss_t2v")),
            "loss_video_to_text": RecordedArray("loss", loss_term("loss_v2t")),
            # The norm over all gradients follows from those of every parameter.
            "gradnorm_total": RecordedArray("gradient norm", None),
        }
    ),
)
