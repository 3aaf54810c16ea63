"""EERCF: a sentence gates the frames and patches of a video, weakly and strongly.

Training adds both kinds of scores and a Pearson constraint; evaluation ranks by the sentence and
the whole video first, and looks again at the `rerantopk` best of each text.
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
from vtr_jax.models.interactions.coarse_to_fine import coarse_to_fine
from vtr_jax.models.interactions.gated_pooling import (
    GatedVideo,
    Gating,
    GatingConfig,
    gated_video,
    pooled_by_own_text,
    pooled_video,
    sentence_video,
    strong_scores,
    weak_scores,
    with_every_video,
)
from vtr_jax.models.interactions.mean_pooling import l2_normalise
from vtr_jax.models.interactions.pearson import pearson_constraint
from vtr_jax.models.interactions.recalled_pairs import scores_of_pairs
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.recipes.eercf_weights import (
    RANKING_OPTIONS,
    check_weights,
    constraint,
    final,
    mixed,
    strong_patches,
    weak_and_strong,
)
from vtr_jax.models.recipes.frame_aggregation import (
    aggregate_frames,
    aggregation_modules,
    aggregation_sizes,
)
from vtr_jax.models.recipes.linear_patch import (
    LINEAR_PATCH_OPTIONS,
    check_linear_patch,
    unused_patch_parameters,
)
from vtr_jax.models.recipes.recipe import (
    Options,
    Parts,
    Picks,
    Recipe,
    RetrieverConfig,
    Scores,
)
from vtr_jax.models.runtime import Runtime

FRAMES = 12  # of the published command
AGGREGATION = "seqTransf"
# Texts of a strip of whole rows: a strip reads all videos, so that it should be a high one.
ROWS_A_STRIP = 1024


def _check(clip: ClipConfig, options: Options) -> None:
    check_linear_patch(clip, options)
    if options["sim_header"] != AGGREGATION or options["loose_type"] is not True:
        raise ValueError(
            "recipe eercf works with sim_header=seqTransf and loose_type=True alone, as the "
            f"original; got sim_header={options['sim_header']!r}, "
            f"loose_type={options['loose_type']!r}"
        )
    check_weights(options)


def _sizes(clip: ClipConfig, options: Options) -> dict[str, int]:
    return {**aggregation_sizes(AGGREGATION, clip), "max_frames": FRAMES}


def _modules(config: RetrieverConfig, runtime: Runtime) -> dict[str, ModuleSpec]:
    gating = GatingConfig(config.clip.embed_dim, config.size("max_frames"))
    return {
        **aggregation_modules(AGGREGATION, config, runtime),
        "gating": ModuleSpec(Gating, gating, runtime),
    }


def _aggregate(parts: Parts, frames_bfd: Array, mask_bf: Array) -> Array:
    frames = parts.config.size("max_frames")
    if frames_bfd.shape[1] != frames:
        raise ValueError(
            f"{frames_bfd.shape[1]} frames a clip, but this eercf has learned a matrix over "
            f"{frames} frames: read clips with max_frames={frames} (shorter ones padded), or start "
            "a new one with sizes.max_frames"
        )
    return aggregate_frames(parts, frames_bfd, mask_bf)


def _scale(parts: Parts) -> Array:
    return jnp.exp(parts.params["logit_scale"])


def _gated_video(video: VideoFeatures) -> GatedVideo:
    assert video.patches is not None
    return gated_video(video.frames, video.temporal, video.patches, video.mask)


def _coarse(parts: Parts, sentence_td: Array, pooled_vd: Array) -> Array:
    matrix = parts.modules["gating"].sentence_matrix[...]
    return _scale(parts) * sentence_video(sentence_td, pooled_vd, matrix)


def _gated_of_one(parts: Parts, sentence_td: Array, video: GatedVideo) -> Scores:
    """The four gated scores of some texts with one video, each [T], scaled."""
    matrix = parts.modules["gating"].frame_matrix[...]
    raw = {
        **weak_scores(sentence_td, video, matrix),
        **strong_scores(sentence_td, video, strong_patches(parts.config)),
    }
    return {name: _scale(parts) * score for name, score in raw.items()}


def all_scores(parts: Parts, text: TextFeatures, video: VideoFeatures) -> Scores:
    """The five matrices that evaluation reads, each [T,V], for every pair."""
    sentence_td, gated = l2_normalise(text.sentence), _gated_video(video)
    scores = with_every_video(
        lambda texts_td, one: _gated_of_one(parts, texts_td, one),
        sentence_td,
        gated,
        parts.runtime.tile,
    )
    return {"sentence_video": _coarse(parts, sentence_td, gated.pooled_vd), **scores}


def _training_scores(
    parts: Parts, text: TextFeatures, video: VideoFeatures
) -> tuple[Scores, dict[str, Array]]:
    """The five matrices of the loss, and the three constraints (Pearson)."""
    if len(text.sentence) != len(video.frames):
        raise ValueError(
            f"{len(text.sentence)} texts with {len(video.frames)} videos: in training every video "
            "is pooled by its own text, so that the i-th text belongs to the i-th video"
        )
    sentence_bd, gated = l2_normalise(text.sentence), _gated_video(video)
    matrix = parts.modules["gating"].frame_matrix[...]
    weak = with_every_video(
        lambda texts_td, one: weak_scores(texts_td, one, matrix),
        sentence_bd,
        gated,
        parts.runtime.tile,
    )
    frames_bd, patches_bd = pooled_by_own_text(sentence_bd, gated)
    raw = {
        **weak,
        "frame_strong": jnp.einsum("td,vd->tv", sentence_bd, frames_bd, precision="highest"),
        "patch_strong": jnp.einsum("td,vd->tv", sentence_bd, patches_bd, precision="highest"),
    }
    scores = {
        "sentence_video": _coarse(parts, sentence_bd, gated.pooled_vd),
        **{name: _scale(parts) * score for name, score in raw.items()},
    }
    pooled = {
        "cdcr_video": gated.pooled_vd,
        "cdcr_frame": frames_bd,
        "cdcr_patch": patches_bd,
    }
    return scores, {
        name: pearson_constraint(sentence_bd, pooled_bd) for name, pooled_bd in pooled.items()
    }


def _ranked(parts: Parts, coarse_tv: Array, scores_at: Callable[[Array], Scores]) -> Array:
    return coarse_to_fine(
        coarse_tv,
        scores_at,
        rerantopk=parts.config.option("rerantopk"),
        recall_score=lambda scores: mixed(parts.config, scores),
        final_score=lambda scores: final(parts.config, scores),
    )


def _scores(parts: Parts, text: TextFeatures, video: VideoFeatures, train: bool) -> Scores:
    """The five matrices; logits_tv: what evaluation ranks by, in training the mixture."""
    if train:
        scores, _ = _training_scores(parts, text, video)
        return {"logits_tv": mixed(parts.config, scores), **scores}
    scores = all_scores(parts, text, video)

    def scores_at(columns_tk: Array) -> Scores:
        return {
            name: jnp.take_along_axis(matrix, columns_tk, axis=1) for name, matrix in scores.items()
        }

    return {"logits_tv": _ranked(parts, scores["sentence_video"], scores_at), **scores}


def _similarity(parts: Parts, text: TextFeatures, video: VideoFeatures) -> Array:
    """Both stages; the gated scores are computed for each text's best videos alone."""
    sentence_td = l2_normalise(text.sentence)
    coarse_tv = _coarse(parts, sentence_td, pooled_video(video.temporal, video.mask))

    def prepare(one: VideoFeatures) -> GatedVideo:
        gated = _gated_video(jax.tree.map(lambda leaf: leaf[None], one))
        return GatedVideo(*(rows[0] for rows in gated))

    def scores_at(columns_tk: Array) -> Scores:
        scores = scores_of_pairs(
            lambda texts_cd, one: _gated_of_one(parts, texts_cd, one),
            prepare,
            sentence_td,
            video,
            columns_tk,
            parts.runtime.tile,
        )
        coarse_tk = jnp.take_along_axis(coarse_tv, columns_tk, axis=1)
        return {"sentence_video": coarse_tk, **scores}

    return _ranked(parts, coarse_tv, scores_at)


def _loss(
    parts: Parts,
    text: TextFeatures,
    video: VideoFeatures,
    rng: Array | None,
    picks: Picks | None,
) -> tuple[Array, dict[str, Any]]:
    """Weak, strong and Pearson parts; terms carry each of them before its weight."""
    del rng, picks  # nothing is drawn
    scores, constraints = _training_scores(parts, text, video)
    option = parts.config.option
    weak_tv, strong_tv = weak_and_strong(parts.config, scores)
    weak, of_weak = symmetric_contrastive(weak_tv, weak_tv.T)
    strong, of_strong = symmetric_contrastive(strong_tv, strong_tv.T)
    intra = constraint(parts.config, constraints)
    share, strong_share = option("weak_loss_weight"), option("strong_loss_weight")
    loss_t2v, loss_v2t = (
        share * of_weak[name] + strong_share * of_strong[name] for name in ("loss_t2v", "loss_v2t")
    )
    contrastive = share * weak + strong_share * strong
    logits_tv = mixed(parts.config, scores)
    terms = {
        "logits_tv": logits_tv,
        "logits_vt": logits_tv.T,
        "loss_t2v": loss_t2v,
        "loss_v2t": loss_v2t,
        "contrastive": contrastive,
        "weak": weak,
        "strong": strong,
        "intra": intra,
        "cdcr": intra,
        **constraints,
    }
    return contrastive + option("cdcl_loss_weight") * intra, terms


EERCF = Recipe(
    name="eercf",
    options={
        "sim_header": AGGREGATION,
        "loose_type": True,
        **LINEAR_PATCH_OPTIONS,
        **RANKING_OPTIONS,
    },
    check=_check,
    sizes=_sizes,
    modules=_modules,
    aggregate=_aggregate,
    scores=_scores,
    loss=_loss,
    reads=lambda config: frozenset({"sentence", "frames", "temporal", "patches"}),
    similarity=_similarity,
    keeps_patches=lambda config: True,
    row_multiple=lambda config: ROWS_A_STRIP,
    unused=unused_patch_parameters,
)
