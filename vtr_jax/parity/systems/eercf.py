"""What EERCF's recorded cases hold: five matrices in two modes, losses; reranked matrices apart."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vtr_jax.parity.recorded import (
    Arrays,
    ArrayTable,
    RecordedArray,
    RecordedSystem,
    frames,
    loss_term,
    temporal,
    total_loss,
)

if TYPE_CHECKING:
    from vtr_jax.parity.compare import Outputs

MATRICES = ("sentence_video", "frame_weak", "frame_strong", "patch_weak", "patch_strong")
# What the original's evaluation calls them, and how it calls them where a case is synthetic.
EVALUATION_NAMES = {
    "video": "sentence_video",
    "weakframe": "frame_weak",
    "strongframe": "frame_strong",
    "weakpatch": "patch_weak",
    "strongpatch": "patch_strong",
}
TASK_OPTIONS = ("sim_header", "loose_type", "linear_patch")


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: config[name] for name in TASK_OPTIONS if name in config}
    return {**named, **config.get("train_weights", {})}


def _evaluated(name: str, strong_patches: bool) -> Callable[[Outputs], Any]:
    def value(outputs: Outputs) -> Any:
        retriever = outputs.retriever.with_options(start_patch_eval=strong_patches)
        return retriever.scores(outputs.text, outputs.video)[name]

    return value


def _trained(name: str) -> Callable[[Outputs], Any]:
    return lambda outputs: outputs.train_scores[name]


def _evaluation_arrays() -> dict[str, RecordedArray]:
    rows: dict[str, RecordedArray] = {}
    for name in MATRICES:
        # The specification's own: a temperature of 0.01 enlarges the rounding of strong patches.
        own = 1e-4 if name == "patch_strong" else 1e-5
        tolerance = lambda case, recorded, own=own: own  # noqa: E731
        rows |= {
            f"eval_nopatch/{name}": RecordedArray("logits", _evaluated(name, False), tolerance),
            f"eval_patch/{name}": RecordedArray("logits", _evaluated(name, True), tolerance),
            f"train/{name}": RecordedArray("logits", _trained(name), tolerance),
        }
    return rows


@dataclasses.dataclass(frozen=True)
class Reranking:
    """One recorded evaluation: the matrices it starts from and what it made of them.

    options: rerantopk and the weights. captions: how many captions each video has. final:
    what it ranks by, [T,V]. metrics: of text to video, then of video to text.
    """

    name: str
    options: dict[str, Any]
    captions: list[int]
    final: np.ndarray
    metrics: list[dict[str, Any]]


class EercfArrays(ArrayTable):
    """The arrays of a model; those of its evaluations (e2e_*) are read by `rerankings`."""

    def __getitem__(self, name: str) -> RecordedArray:
        if name.startswith("e2e_"):
            return RecordedArray("logits", None)
        return super().__getitem__(name)


def rerankings(record: Mapping[str, Any], arrays: Arrays) -> list[Reranking]:
    """The evaluations that a model's case holds beside its arrays."""
    found = []
    for name, entry in record.get("end_to_end", {}).items():
        final = arrays[f"{name}/final"]
        final = final.reshape(-1, final.shape[-1])
        options = {**entry["weights"], "rerantopk": entry["rerantopk"]}
        captions = [1] * final.shape[1]
        found.append(Reranking(name, options, captions, final, entry["metrics"]))
    return found


def synthetic_reranking(record: Mapping[str, Any], arrays: Arrays) -> Reranking:
    """The evaluation of a case without a model (rerank_*)."""
    config = record["config"]
    options = {**config["weights"], "rerantopk": config["rerantopk"]}
    captions = config["captions_per_video"] or [1] * config["n_videos"]
    return Reranking(record["case"], options, captions, arrays["final"], record["metrics"])


def synthetic_matrices(record: Mapping[str, Any], captions: list[int]) -> dict[str, np.ndarray]:
    """The five matrices of a case without a model, by our names, float32 [T,V]."""
    shape = (sum(captions), len(captions))

    def normal(name: str) -> np.ndarray:
        seed = zlib.crc32(f"{record['salt']}/{name}".encode())
        return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)

    own_tv = np.repeat(np.eye(len(captions), dtype=np.float32), captions, axis=0)
    common_tv = 2 * normal("common")
    return {
        ours: (common_tv + normal(theirs)) + 4 * own_tv for theirs, ours in EVALUATION_NAMES.items()
    }


EERCF = RecordedSystem(
    options=_options,
    resolution=lambda config: config["clip"]["resolution"],
    arrays=EercfArrays(
        {
            "sentence_feature": RecordedArray("feature", lambda o: o.text.sentence[:, None]),
            "token_feature": RecordedArray("feature", lambda o: o.text.tokens),
            "frame_feature_clip": RecordedArray("feature", frames),
            "patch_feature": RecordedArray("feature", lambda o: o.video.patches),
            "frame_feature_temporal": RecordedArray("inside a head", temporal),
            **_evaluation_arrays(),
            "train/cdcr_video": RecordedArray("loss", loss_term("cdcr_video")),
            "train/cdcr_frame": RecordedArray("loss", loss_term("cdcr_frame")),
            "train/cdcr_patch": RecordedArray("loss", loss_term("cdcr_patch")),
            "train/weak_loss": RecordedArray("loss", loss_term("weak")),
            "train/strong_loss": RecordedArray("loss", loss_term("strong")),
            "train/intra_loss": RecordedArray("loss", loss_term("intra")),
            "train/loss": RecordedArray("loss", total_loss),
            # The norm over all gradients follows from those of every parameter.
            "train/grad_total_norm": RecordedArray("gradient norm", None),
        }
    ),
)
