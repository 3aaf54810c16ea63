"""DRL: four interactions over related frames, and channel decorrelation.

dp compares the sentence with the mean frame, ti every word with every frame, wti weighs them,
xti reads text and frames together in a cross-encoder. Only the loss has logit_scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vtr_jax.losses import symmetric_contrastive
from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.interactions.channel_decorrelation import (
    decorrelation_loss,
    draw_picks,
    matched_correlation,
    picked_correlation,
    pooled_correlation,
)
from vtr_jax.models.interactions.mean_pooling import cosines, l2_normalise, mean_frame
from vtr_jax.models.interactions.token_wise import (
    DRL_MASKED,
    LAYERS_OF_ARCH,
    WeightedVectors,
)
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.recipes.clip import MEAN_POOLING_READS
from vtr_jax.models.recipes.clip4clip import cross_module, cross_sizes
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
    check_choice,
)
from vtr_jax.models.recipes.token_wise import (
    SHARED_OPTIONS,
    TOKEN_WISE_READS,
    check_shared_options,
    compared,
    contrastive,
    mean_sides,
    scaled,
    token_weight_modules,
    unused_parameters,
    weighted_sides,
)
from vtr_jax.models.runtime import Runtime

INTERACTIONS = ("dp", "ti", "wti", "xti")
CROSS_HEADS = 8
WEIGHTS_OF_CDCR = ("cdcr_alpha1", "cdcr_alpha2", "cdcr_lambda")


def _check(clip: ClipConfig, options: Options) -> None:
    check_shared_options(clip, options)
    interaction, cdcr = options["interaction"], options["cdcr"]
    if interaction == "mlp":
        raise ValueError("interaction mlp: the original builds it but cannot compute its scores")
    check_choice("interaction", interaction, INTERACTIONS)
    check_choice("cdcr", cdcr, (0, 1, 2, 3))
    for name in WEIGHTS_OF_CDCR:
        if isinstance(options[name], bool) or not isinstance(options[name], int | float):
            raise ValueError(f"{name}: expected a number, got {options[name]!r}")
    if interaction == "wti":
        check_choice("wti_arch", options["wti_arch"], tuple(LAYERS_OF_ARCH))
    if interaction == "ti" and cdcr == 3:
        raise ValueError(
            "cdcr=3 weighs words and frames, and interaction ti has no weights: use cdcr 0, 1 or 2"
        )
    if interaction == "xti" and clip.embed_dim % CROSS_HEADS:
        raise ValueError(
            f"interaction xti has {CROSS_HEADS} heads, which do not divide the joint width "
            f"{clip.embed_dim}"
        )


def _sizes(clip: ClipConfig, options: Options) -> dict[str, int]:
    cross = cross_sizes(clip) if options["interaction"] == "xti" else {}
    return {**aggregation_sizes(str(options["agg_module"]), clip), **cross}


def _modules(config: RetrieverConfig, runtime: Runtime) -> dict[str, ModuleSpec]:
    modules = aggregation_modules(config.option("agg_module"), config, runtime)
    if config.option("interaction") == "wti":
        weights = token_weight_modules(config.clip.embed_dim, config.option("wti_arch"), runtime)
        return {**modules, **weights}
    if config.option("interaction") == "xti":
        return {**modules, "cross": cross_module(config, CROSS_HEADS, runtime)}
    return modules


def sides(
    parts: Parts, text: TextFeatures, video: VideoFeatures
) -> tuple[WeightedVectors, WeightedVectors]:
    """Words and frames with the weights that ti or wti gives them."""
    if parts.config.option("interaction") == "ti":
        return mean_sides(text, video)
    return weighted_sides(parts, text, video, DRL_MASKED)


def _dp_scores(parts: Parts, text: TextFeatures, video: VideoFeatures, train: bool) -> Scores:
    logits_tv = cosines(text.sentence, mean_frame(video.temporal, video.mask))
    return scaled(parts, {"logits_tv": logits_tv}, train)


def _token_wise_scores(
    parts: Parts, text: TextFeatures, video: VideoFeatures, train: bool
) -> Scores:
    return compared(parts, *sides(parts, text, video), train)


def _xti_scores(parts: Parts, text: TextFeatures, video: VideoFeatures, train: bool) -> Scores:
    logits_tv = parts.modules["cross"](text.sentence, video.temporal, video.mask)
    return scaled(parts, {"logits_tv": logits_tv}, train)


_SCORES: dict[str, Callable[[Parts, TextFeatures, VideoFeatures, bool], Scores]] = {
    "dp": _dp_scores,
    "ti": _token_wise_scores,
    "wti": _token_wise_scores,
    "xti": _xti_scores,
}


def _scores(parts: Parts, text: TextFeatures, video: VideoFeatures, train: bool) -> Scores:
    return _SCORES[parts.config.option("interaction")](parts, text, video, train)


def draws(config: RetrieverConfig) -> bool:
    """Whether the loss draws a word and a frame of every sample: cdcr 1 of ti and wti."""
    return config.option("cdcr") == 1 and config.option("interaction") in ("ti", "wti")


def correlation(
    parts: Parts,
    text: TextFeatures,
    video: VideoFeatures,
    rng: Array | None = None,
    picks: Picks | None = None,
) -> Array | None:
    """What the regulariser reads, [D,D]; None where there is none (cdcr 0, xti).

    rng, picks: cdcr 1 of ti and wti takes picks (indices of a word and a frame a sample, int [B]
    each), else draws them with rng. Any cdcr of dp is the same. Raises ValueError without either.
    """
    interaction, cdcr = parts.config.option("interaction"), parts.config.option("cdcr")
    if cdcr == 0 or interaction == "xti":
        return None
    if interaction == "dp":
        pooled_bd = mean_frame(video.temporal, video.mask)
        return pooled_correlation(l2_normalise(text.sentence), l2_normalise(pooled_bd))
    both = sides(parts, text, video)
    if cdcr > 1:
        return matched_correlation(*both, by_weight=cdcr == 3)
    if picks is None:
        if rng is None:
            raise ValueError("cdcr=1 draws a word and a frame of every sample: give rng or picks")
        picks = draw_picks(rng, text.mask, video.mask)
    return picked_correlation(*both, picks)


def _contrastive(
    parts: Parts, text: TextFeatures, video: VideoFeatures, rng: Array | None
) -> tuple[Array, dict[str, Any]]:
    if parts.config.option("interaction") != "xti" or rng is None:
        return contrastive(_scores(parts, text, video, train=True)["logits_tv"])
    # Each direction of xti has a pass of its own, under a dropout of its own.
    cross, scale = parts.modules["cross"], jnp.exp(parts.params["logit_scale"])
    logits_tv, other_tv = (
        scale * cross(text.sentence, video.temporal, video.mask, key)
        for key in jax.random.split(rng)
    )
    return symmetric_contrastive(logits_tv, other_tv.T)


def _loss(
    parts: Parts,
    text: TextFeatures,
    video: VideoFeatures,
    rng: Array | None,
    picks: Picks | None,
) -> tuple[Array, dict[str, Any]]:
    loss, terms = _contrastive(parts, text, video, rng)
    correlation_dd = correlation(parts, text, video, rng, picks)
    if correlation_dd is None:
        return loss, {**terms, "cdcr": jnp.zeros(())}
    alpha1, alpha2, weight = (parts.config.option(name) for name in WEIGHTS_OF_CDCR)
    cdcr = decorrelation_loss(correlation_dd, alpha1, alpha2)
    return loss + weight * cdcr, {**terms, "cdcr": cdcr}


def _reads(config: RetrieverConfig) -> frozenset[str]:
    token_wise = config.option("interaction") in ("ti", "wti")
    return TOKEN_WISE_READS if token_wise else MEAN_POOLING_READS


DRL = Recipe(
    name="drl",
    options={
        **SHARED_OPTIONS,
        "interaction": "wti",
        "wti_arch": 2,
        "cdcr": 3,
        "cdcr_alpha1": 1.0,
        "cdcr_alpha2": 0.06,
        "cdcr_lambda": 0.001,
    },
    check=_check,
    sizes=_sizes,
    modules=_modules,
    aggregate=aggregate_frames,
    scores=_scores,
    loss=_loss,
    reads=_reads,
    draws=draws,
    unused=unused_parameters,
)
