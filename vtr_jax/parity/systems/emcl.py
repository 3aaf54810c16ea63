"""What EMCL-Net's recorded cases hold, its bases after each of three training calls among it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from vtr_jax.models.interactions.emcl_head import pair_rows
from vtr_jax.models.interactions.expectation_maximisation import emcl
from vtr_jax.models.recipes.emcl import em_settings
from vtr_jax.models.retriever import Retriever
from vtr_jax.parity.recorded import (
    TOLERANCES,
    ArrayTable,
    RecordedArray,
    RecordedSystem,
    frames,
    loss_term,
    sentence,
    similarity,
    temporal,
)

if TYPE_CHECKING:
    from vtr_jax.parity.cases import Case
    from vtr_jax.parity.compare import Outputs

OPTIONS = ("agg_module", "centerK", "stage_num", "momentum", "lamd", "beta", "temp")


@dataclasses.dataclass(frozen=True)
class Numbered:
    """A value for every number that a recorded name may hold."""

    value_of: Callable[[int], Any]

    def __getitem__(self, number: int) -> Any:
        return self.value_of(number)


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in OPTIONS if name in config}


def _state(case: Case, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {"mu": jnp.asarray(arrays["mu_init"])}


def _stated(case: Case) -> float:
    """Where rounding decides which components part, the case states how much in float64."""
    return 20 * float(case.record["operator_float64_max_abs_dev"])


def _head_tolerance(case: Case, recorded: Any) -> float:
    return max(2e-5, _stated(case))


def _logits_tolerance(case: Case, recorded: Any) -> float:
    """What a case states is absolute, and logits are measured by their range."""
    return max(TOLERANCES["logits"], _stated(case) / (float(np.ptp(recorded)) or 1.0))


def _loss_tolerance(case: Case, recorded: Any) -> float:
    """What a case states is absolute, and losses are measured by their size."""
    return max(TOLERANCES["loss"], _stated(case) / (float(np.abs(recorded).max()) or 1.0))


def _dense_rows(outputs: Outputs) -> jax.Array:
    """E: the pooled row of every pair, text by text, then the texts."""
    temp = outputs.retriever.config.option("temp")
    video = outputs.video
    rows = pair_rows(outputs.text.sentence, video.temporal, video.mask, temp)
    pooled_tvd = jnp.einsum("tvf,vfd->tvd", rows.weights_tvf, rows.frames_vfd)
    return jnp.concatenate([pooled_tvd.reshape(-1, pooled_tvd.shape[-1]), rows.sentence_td])


def _weights(outputs: Outputs) -> jax.Array:
    temp = outputs.retriever.config.option("temp")
    video = outputs.video
    return pair_rows(outputs.text.sentence, video.temporal, video.mask, temp).weights_tvf


def _reconstructed(outputs: Outputs) -> jax.Array:
    retriever = outputs.retriever
    return emcl(_dense_rows(outputs), retriever.state["mu"][0], em_settings(retriever.config))[0]


def _with_tile(retriever: Retriever, mini_batch: int) -> Retriever:
    options = {**dict(retriever.config.options), "mini_batch": mini_batch}
    config = dataclasses.replace(retriever.config, options=tuple(sorted(options.items())))
    return dataclasses.replace(retriever, config=config)


def _tiled(outputs: Outputs) -> Numbered:
    def of_tile(mini_batch: int) -> Any:
        retriever = _with_tile(outputs.retriever, mini_batch)
        return retriever.similarity(outputs.text, outputs.video)

    return Numbered(of_tile)


def _after(outputs: Outputs, calls: int) -> Retriever:
    """The retriever after some training calls that moved its bases and nothing else."""
    retriever = outputs.retriever
    for _ in range(calls):
        _, terms = retriever.loss(outputs.text, outputs.video)
        retriever = retriever.with_state(terms["state"])
    return retriever


def _step(value: Callable[[Retriever, Outputs], Any]) -> Callable[[Outputs], Numbered]:
    """What the n-th training call gives, from the retriever before it."""
    return lambda outputs: Numbered(lambda call: value(_after(outputs, call - 1), outputs))


def _loss_of(retriever: Retriever, outputs: Outputs) -> Any:
    return retriever.loss(outputs.text, outputs.video)[0]


def _cosines_of(retriever: Retriever, outputs: Outputs) -> Any:
    return retriever.scores(outputs.text, outputs.video, train=True)["logits_tv"]


def _head(value: Callable[[Outputs], Any]) -> RecordedArray:
    return RecordedArray("inside a head", value, _head_tolerance)


def _logits(value: Callable[[Outputs], Any]) -> RecordedArray:
    return RecordedArray("logits", value, _logits_tolerance)


def _loss(value: Callable[[Outputs], Any]) -> RecordedArray:
    return RecordedArray("loss", value, _loss_tolerance)


EMCL = RecordedSystem(
    options=_options,
    resolution=lambda config: config["clip"]["resolution"],
    state=_state,
    inputs=frozenset({"mu_init"}),
    arrays=ArrayTable(
        {
            "text_cls": RecordedArray("feature", sentence),
            "text_feat": RecordedArray("feature", lambda o: o.text.tokens),
            "frame_feat_clip": RecordedArray("feature", frames),
            "video_feat": RecordedArray("feature", temporal),
            "frame_weight_masked": RecordedArray("inside a head", _weights),
            "emcl_in_eval": RecordedArray("feature", _dense_rows),
            "emcl_out_eval": _head(_reconstructed),
            "mu_after_eval": _head(lambda o: o.retriever.state["mu"]),
            "mu_after_step{}": _head(lambda o: Numbered(lambda n: _after(o, n).state["mu"])),
            "eval_logits": _logits(similarity),
            "eval_logits_tile{}": _logits(_tiled),
            "eval_logits_after{}": _logits(
                lambda o: Numbered(lambda n: _after(o, n).similarity(o.text, o.video))
            ),
            "train_logits": _logits(lambda o: _cosines_of(o.retriever, o)),
            "train_logits_step{}": _logits(_step(_cosines_of)),
            "train_loss_step{}": _loss(_step(_loss_of)),
            "train_loss_t2v": _loss(loss_term("loss_t2v")),
            "train_loss_v2t": _loss(loss_term("loss_v2t")),
        }
    ),
)
