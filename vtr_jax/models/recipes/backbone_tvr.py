"""BackBone_tvr: DRL's weighted token-wise interaction alone, with a masking of its own.

A clip without a frame scores 0 where DRL gives NaN, and logit_scale is part of the loss only.
"""

from __future__ import annotations

from typing import Any

from jax import Array

from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.interactions.token_wise import BACKBONE_TVR_MASKED
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.recipes.frame_aggregation import (
    aggregate_frames,
    aggregation_modules,
    aggregation_sizes,
)
from vtr_jax.models.recipes.recipe import (
    Options,
    Parts,
    Picks,
    Recipe,
    RetrieverConfig,
    Scores,
)
from vtr_jax.models.recipes.token_wise import (
    SHARED_OPTIONS,
    TOKEN_WISE_READS,
    check_shared_options,
    compared,
    contrastive,
    token_weight_modules,
    unused_parameters,
    weighted_sides,
)
from vtr_jax.models.runtime import Runtime

WTI_ARCH = 2


def _sizes(clip: ClipConfig, options: Options) -> dict[str, int]:
    return aggregation_sizes(str(options["agg_module"]), clip)


def _modules(config: RetrieverConfig, runtime: Runtime) -> dict[str, ModuleSpec]:
    return {
        **aggregation_modules(config.option("agg_module"), config, runtime),
        **token_weight_modules(config.clip.embed_dim, WTI_ARCH, runtime),
    }


def _scores(parts: Parts, text: TextFeatures, video: VideoFeatures, train: bool) -> Scores:
    sides = weighted_sides(parts, text, video, BACKBONE_TVR_MASKED)
    return compared(parts, *sides, train)


def _loss(
    parts: Parts,
    text: TextFeatures,
    video: VideoFeatures,
    rng: Array | None,
    picks: Picks | None,
) -> tuple[Array, dict[str, Any]]:
    return contrastive(_scores(parts, text, video, train=True)["logits_tv"])


BACKBONE_TVR = Recipe(
    name="backbone_tvr",
    options=SHARED_OPTIONS,
    check=check_shared_options,
    sizes=_sizes,
    modules=_modules,
    aggregate=aggregate_frames,
    scores=_scores,
    loss=_loss,
    reads=lambda config: TOKEN_WISE_READS,
    unused=unused_parameters,
)
