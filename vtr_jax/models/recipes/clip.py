"""The two CLIP towers alone: zero-shot retrieval by the mean frame."""

from __future__ import annotations

from typing import Any

from jax import Array

from vtr_jax.losses import symmetric_contrastive
from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.interactions.mean_pooling import mean_pooling_logits
from vtr_jax.models.recipes.recipe import (
    Options,
    Parts,
    Picks,
    Recipe,
    RetrieverConfig,
    Scores,
)

MEAN_POOLING_READS = frozenset({"sentence", "temporal"})


def _check(clip: ClipConfig, options: Options) -> None:
    if clip.vision.linear_patch != "2d":
        raise ValueError("recipe clip: a 3d patch embedding is CLIP4Clip's; use recipe clip4clip")


def mean_pooling_scores(
    parts: Parts, text: TextFeatures, video: VideoFeatures, train: bool
) -> Scores:
    """{"logits_tv": [T,V]} by cosine with the mean frame; the same in training and evaluation."""
    logits_tv = mean_pooling_logits(
        text.sentence, video.temporal, video.mask, parts.params["logit_scale"]
    )
    return {"logits_tv": logits_tv}


def mean_pooling_loss(
    parts: Parts,
    text: TextFeatures,
    video: VideoFeatures,
    rng: Array | None,
    picks: Picks | None,
) -> tuple[Array, dict[str, Any]]:
    """Symmetric InfoNCE over the mean-pooling logits; nothing is drawn."""
    logits_tv = mean_pooling_scores(parts, text, video, train=True)["logits_tv"]
    return symmetric_contrastive(logits_tv, logits_tv.T)


def _keeps_patches(config: RetrieverConfig) -> bool:
    return True


CLIP = Recipe(
    name="clip",
    options={},
    check=_check,
    sizes=lambda clip, options: {},
    modules=lambda config, runtime: {},
    aggregate=lambda parts, frames_bfd, mask_bf: frames_bfd,
    scores=mean_pooling_scores,
    loss=mean_pooling_loss,
    reads=lambda config: MEAN_POOLING_READS,
    keeps_patches=_keeps_patches,
)
