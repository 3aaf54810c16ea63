"""What the recorded cases of DRL and BackBone_tvr have in common."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from vtr_jax.models.interactions.channel_decorrelation import best_positions
from vtr_jax.models.interactions.token_wise import WeightedVectors, similarities, without_padding
from vtr_jax.models.recipes.recipe import Parts
from vtr_jax.parity.recorded import (
    RecordedArray,
    frames,
    loss_term,
    own_modules,
    sentence,
    similarity,
    temporal,
    total_loss,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vtr_jax.parity.cases import Case
    from vtr_jax.parity.compare import Outputs

    Sides = Callable[[Outputs], tuple[WeightedVectors, WeightedVectors]]


# What the originals keep in float16 on a GPU: CLIP's matrices, with the biases beside them.
_HALF = re.compile(
    r"clip\.(text_projection|visual\.(proj|conv1\.weight)"
    r"|(visual\.)?transformer\.resblocks\.\d+\.(attn|mlp)\..*)"
)


def half_keys(case: Case) -> frozenset[str]:
    """The keys that a case named ..._fp16 has in float16; none in any other."""
    if not case.path.stem.endswith("_fp16"):
        return frozenset()
    return frozenset(filter(_HALF.fullmatch, case.record["keys"]))


def parts_of(outputs: Outputs) -> Parts:
    """A retriever's parts as the functions of its recipe receive them."""
    retriever = outputs.retriever
    modules = own_modules(outputs)
    return Parts(retriever.config, retriever.runtime, modules, retriever.params, retriever.state)


def raw_weights(side: str, outputs: Outputs) -> jax.Array:
    """What the head text_weight or video_weight gives, before mask and softmax."""
    vectors = outputs.text.tokens if side == "text" else outputs.video.temporal
    return own_modules(outputs)[f"{side}_weight"](jnp.asarray(vectors))


FEATURES: dict[str, RecordedArray] = {
    "frame_feat_clip": RecordedArray("feature", frames),
    "video_feat": RecordedArray("feature", temporal),
    "text_feat": RecordedArray("feature", lambda o: o.text.tokens),
    "text_eot_feat": RecordedArray("feature", sentence),
}

SCORES: dict[str, RecordedArray] = {
    "eval_logits_t2v": RecordedArray("logits", similarity),
    "eval_logits_v2t": RecordedArray("logits", lambda o: similarity(o).T),
    "eval_part_t2v": RecordedArray("logits", lambda o: o.scores["t2v"]),
    "eval_part_v2t": RecordedArray("logits", lambda o: o.scores["v2t"]),
    "train_logits_t2v": RecordedArray("logits", loss_term("logits_tv")),
    "train_logits_v2t": RecordedArray("logits", loss_term("logits_vt")),
}

LOSSES: dict[str, RecordedArray] = {
    "loss_nce_t2v": RecordedArray("loss", loss_term("loss_t2v")),
    "loss_nce_v2t": RecordedArray("loss", loss_term("loss_v2t")),
    "loss_sim": RecordedArray("loss", loss_term("contrastive")),
    "loss_total": RecordedArray("loss", total_loss),
}


def token_wise_arrays(sides: Sides) -> dict[str, RecordedArray]:
    """The arrays inside a token-wise head whose words and frames are these."""

    def head(
        value: Callable[[Outputs], Any], rows: Callable[[Outputs], Any] | None = None
    ) -> RecordedArray:
        return RecordedArray("inside a head", value, rows=rows)

    return {
        "text_weight_raw": head(lambda o: raw_weights("text", o)),
        "video_weight_raw": head(lambda o: raw_weights("video", o)),
        "text_weight": head(lambda o: sides(o)[0].weights),
        "video_weight": head(lambda o: sides(o)[1].weights),
        "token_sims": head(lambda o: similarities(*map(without_padding, sides(o))).swapaxes(1, 2)),
        "max_frame_index_diag": head(
            lambda o: best_positions(*sides(o))[0], rows=lambda o: o.inputs.token_mask
        ),
        "max_token_index_diag": head(
            lambda o: best_positions(*sides(o))[1], rows=lambda o: o.inputs.frame_mask
        ),
    }
