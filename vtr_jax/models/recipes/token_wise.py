"""What DRL and BackBone_tvr share: related frames whose every word and frame has a weight."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from vtr_jax.losses import symmetric_contrastive
from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.interactions.token_wise import (
    TokenWeight,
    TokenWeightConfig,
    WeightedVectors,
    mean_weights,
    softmax_weights,
    token_wise_scores,
    token_wise_scores_of_short,
    weighted,
)
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.recipes.frame_aggregation import (
    AGGREGATION_OPTIONS,
    check_aggregation,
    unused_aggregation_parameters,
)
from vtr_jax.models.recipes.linear_patch import (
    LINEAR_PATCH_OPTIONS,
    check_linear_patch,
    unused_patch_parameters,
)
from vtr_jax.models.recipes.recipe import (
    Options,
    OptionValue,
    Parts,
    RetrieverConfig,
    Scores,
    check_choice,
)
from vtr_jax.models.runtime import Runtime

TOKEN_WISE_READS = frozenset({"tokens", "temporal"})
# "meanP" is what the originals fall back to where the option is missing; it relates nothing.
AGGREGATIONS = ("None", "none", "meanP", "seqLSTM", "seqTransf")
SHARED_OPTIONS: dict[str, OptionValue] = {
    "agg_module": "seqTransf",
    **LINEAR_PATCH_OPTIONS,
    **AGGREGATION_OPTIONS,
}


def check_shared_options(clip: ClipConfig, options: Options) -> None:
    """Raise ValueError for an unknown agg_module, linear_patch or lstm_longest."""
    # A command line reads --agg_module=None as the value None.
    check_choice("agg_module", str(options["agg_module"]), AGGREGATIONS)
    check_linear_patch(clip, options)
    check_aggregation(options)


def token_weight_modules(width: int, arch: int, runtime: Runtime) -> dict[str, ModuleSpec]:
    """The modules text_weight and video_weight over vectors of that width."""
    spec = ModuleSpec(TokenWeight, TokenWeightConfig(width, arch), runtime)
    return {"text_weight": spec, "video_weight": spec}


def weighted_sides(
    parts: Parts, text: TextFeatures, video: VideoFeatures, masked: float
) -> tuple[WeightedVectors, WeightedVectors]:
    """Words and related frames with learned weights; masked: raw weight of padding (wti)."""
    raw_bl = parts.modules["text_weight"](text.tokens)
    raw_bf = parts.modules["video_weight"](video.temporal)
    return (
        weighted(text.tokens, text.mask, softmax_weights(raw_bl, text.mask, masked)),
        weighted(video.temporal, video.mask, softmax_weights(raw_bf, video.mask, masked)),
    )


def mean_sides(text: TextFeatures, video: VideoFeatures) -> tuple[WeightedVectors, WeightedVectors]:
    """Words and related frames that all count the same (ti)."""
    return (
        weighted(text.tokens, text.mask, mean_weights(text.mask)),
        weighted(video.temporal, video.mask, mean_weights(video.mask)),
    )


def scaled(parts: Parts, scores: Scores, train: bool) -> Scores:
    """Scores times exp(logit_scale) in training; as they are in evaluation."""
    if not train:
        return scores
    scale = jnp.exp(parts.params["logit_scale"])
    return {name: scale * matrix for name, matrix in scores.items()}


def compared(parts: Parts, words: WeightedVectors, frames: WeightedVectors, train: bool) -> Scores:
    """token_wise_scores of both sides, scaled in training; evaluation leaves padding out."""
    compare = token_wise_scores if train else token_wise_scores_of_short
    return scaled(parts, compare(words, frames, parts.runtime.tile), train)


def unused_parameters(config: RetrieverConfig) -> tuple[str, ...]:
    """Paths of parameters that the originals keep but never read."""
    aggregation = unused_aggregation_parameters(config.option("agg_module"))
    return aggregation + unused_patch_parameters(config)


def contrastive(logits_tv: Array) -> tuple[Array, dict[str, Any]]:
    """symmetric_contrastive of one matrix [B,B] whose transpose is the other direction."""
    return symmetric_contrastive(logits_tv, logits_tv.T)
