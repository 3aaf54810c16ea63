"""InternVideo's retrieval program: one vector a clip from a tower that relates frames itself.

interaction no (the published one) compares that vector with the sentence (sim_header meanP); ti
and wti compare words with the clip's vector or its frames. Text tokens are read before the
text projection there.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vtr_jax.losses import symmetric_contrastive
from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.interactions.channel_decorrelation import (
    decorrelation_loss,
    draw_picks,
    matched_correlation,
    picked_correlation,
)
from vtr_jax.models.interactions.mean_pooling import cosine_logits
from vtr_jax.models.interactions.token_wise import (
    DRL_MASKED,
    WeightedVectors,
)
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.parameter_paths import path_name
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
    TOKEN_WISE_READS,
    compared,
    mean_sides,
    token_weight_modules,
    weighted_sides,
)
from vtr_jax.models.runtime import Runtime
from vtr_jax.models.video_tower import VideoTower, VideoTowerConfig

INTERACTIONS = ("no", "ti", "wti")
CDCR_ALPHA1, CDCR_ALPHA2, CDCR_LAMBDA = 0.16, 0.0, 0.001
TEMPORAL_BLOCKS = 4  # of the released towers: their last four layers are listed


class UnusedTextMask(nnx.Module):
    """A parameter that the original keeps for other tasks; retrieval never reads it."""

    def __init__(self, config: int, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        del runtime, rngs
        self.embedding = nnx.Param(jnp.zeros((1, 1, config)))


def _check_header(header: Any) -> None:
    if header in ("seqLSTM", "seqTransf", "tightTransf"):
        raise ValueError(
            f"sim_header: {header} relates frames in time, and this tower gives one vector a clip; "
            "the original fails on it too. Use meanP"
        )
    check_choice("sim_header", header, ("meanP",))


def _check_return_list(return_list: Any, layers: int) -> None:
    if return_list is None:
        return
    expected = f"expected rising layer numbers between 0 and {layers - 1}, got {return_list!r}"
    if not isinstance(return_list, tuple | list) or not return_list:
        raise ValueError(f"return_list: {expected}")
    if any(type(layer) is not int or not 0 <= layer < layers for layer in return_list):
        raise ValueError(f"return_list: {expected}")
    if list(return_list) != sorted(set(return_list)):
        raise ValueError(f"return_list: {expected}")


def _check_cdcr(interaction: Any, cdcr: Any) -> None:
    check_choice("cdcr", cdcr, (0, 1, 2, 3))
    if cdcr and interaction == "no":
        raise ValueError(
            f"cdcr={cdcr} correlates words with frames: it needs interaction=wti (cdcr 1 also ti)"
        )
    if interaction == "ti" and cdcr in (2, 3):
        raise ValueError(
            f"cdcr={cdcr} pairs words with frames, and interaction=ti has one vector a clip and no "
            "weights; the original fails on it too. Use interaction=wti, or cdcr 0 or 1"
        )


def _check(clip: ClipConfig, options: Options) -> None:
    interaction, arch = options["interaction"], options["wti_arch"]
    check_choice("interaction", interaction, INTERACTIONS)
    check_choice("wti_arch", arch, (0, 1, 2, 3))
    _check_header(options["sim_header"])
    _check_cdcr(interaction, options["cdcr"])
    _check_return_list(options["return_list"], clip.vision.layers)
    if clip.vision.linear_patch != "2d":
        raise ValueError("recipe internvideo: a 3d patch embedding is CLIP4Clip's")
    if interaction == "wti" and arch == 0:
        raise ValueError("interaction=wti weighs words and frames: it needs wti_arch 1, 2 or 3")
    if interaction != "no" and clip.text.width != clip.embed_dim:
        raise ValueError(
            f"interaction={interaction} compares text tokens of width {clip.text.width}, which it "
            f"does not project, with vectors of width {clip.embed_dim}; they must be equal"
        )


def _sizes(clip: ClipConfig, options: Options) -> dict[str, int]:
    listed = options["return_list"]
    count = len(listed) if isinstance(listed, tuple | list) else None
    return {"temporal_blocks": count or min(TEMPORAL_BLOCKS, clip.vision.layers)}


def listed_layers(config: RetrieverConfig) -> tuple[int, ...]:
    """The layers whose output the temporal token reads; by default the last ones.

    Raises ValueError if the option return_list does not name as many as there are temporal blocks.
    """
    layers, count = config.clip.vision.layers, config.size("temporal_blocks")
    listed = config.option("return_list")
    if listed is None and count <= layers:
        return tuple(range(layers - count, layers))
    if listed is None or len(listed) != count:
        raise ValueError(
            f"return_list={listed}: expected {count} of the {layers} layers, one for each temporal "
            "block (dec.0, dec.1, ...)"
        )
    return tuple(listed)


def _vision_tower(config: RetrieverConfig, runtime: Runtime) -> ModuleSpec:
    sizes = VideoTowerConfig(config.clip.vision, listed_layers(config))
    return ModuleSpec(VideoTower, sizes, runtime)


def _modules(config: RetrieverConfig, runtime: Runtime) -> dict[str, ModuleSpec]:
    modules = {"text_mask": ModuleSpec(UnusedTextMask, config.clip.text.width, runtime)}
    if config.option("interaction") == "wti":
        arch = config.option("wti_arch")
        modules |= token_weight_modules(config.clip.embed_dim, arch, runtime)
    return modules


def clip_vector(video: VideoFeatures) -> Array:
    """The tower's vector of each clip, [V,D]; zero for a clip that has no real frame.

    The original repeats it for every frame and takes the masked mean: the vector itself, or zero,
    whose cosine is NaN.
    """
    assert video.pooled is not None
    return jnp.where(video.mask.sum(axis=1, keepdims=True) > 0, video.pooled, 0.0)


def _sides(
    parts: Parts, text: TextFeatures, video: VideoFeatures
) -> tuple[WeightedVectors, WeightedVectors]:
    """Words and frames with their weights; ti has copies of the clip's vector for frames."""
    if parts.config.option("interaction") == "ti":
        assert video.pooled is not None
        shape = (*video.mask.shape, video.pooled.shape[-1])
        copies_vfd = jnp.broadcast_to(video.pooled[:, None], shape)
        return mean_sides(text, dataclasses.replace(video, temporal=copies_vfd))
    return weighted_sides(parts, text, video, DRL_MASKED)


def _scores(parts: Parts, text: TextFeatures, video: VideoFeatures, train: bool) -> Scores:
    """logits_tv; with words and frames t2v and v2t too, which only training scales."""
    if parts.config.option("interaction") == "no":
        logit_scale = parts.params["logit_scale"]
        return {"logits_tv": cosine_logits(text.sentence, clip_vector(video), logit_scale)}
    return compared(parts, *_sides(parts, text, video), train)


def _decorrelation(
    parts: Parts, text: TextFeatures, video: VideoFeatures, rng: Array | None, picks: Picks | None
) -> Array:
    cdcr = parts.config.option("cdcr")
    words, frames = _sides(parts, text, video)
    if cdcr == 1:
        if picks is None:
            assert rng is not None
            picks = draw_picks(rng, text.mask, video.mask)
        correlation = picked_correlation(words, frames, picks)
    else:
        correlation = matched_correlation(words, frames, by_weight=cdcr == 3)
    return decorrelation_loss(correlation, CDCR_ALPHA1, CDCR_ALPHA2)


def _loss(
    parts: Parts, text: TextFeatures, video: VideoFeatures, rng: Array | None, picks: Picks | None
) -> tuple[Array, dict[str, Any]]:
    logits_tv = _scores(parts, text, video, train=True)["logits_tv"]
    loss, terms = symmetric_contrastive(logits_tv, logits_tv.T)
    if parts.config.option("cdcr") == 0:
        return loss, terms
    cdcr = _decorrelation(parts, text, video, rng, picks)
    return loss + CDCR_LAMBDA * cdcr, {**terms, "cdcr": cdcr}


READS = {
    "no": frozenset({"sentence", "pooled"}),
    "ti": frozenset({"tokens", "pooled"}),
    "wti": TOKEN_WISE_READS,
}


def _unused(config: RetrieverConfig) -> tuple[str, ...]:
    paths = ["text_mask/embedding"]
    if config.option("interaction") != "no":
        paths.append("text/projection")
    if config.option("interaction") == "wti":
        temporal = _vision_tower(config, Runtime()).abstract()["temporal"]
        leaves = jax.tree_util.tree_leaves_with_path(temporal)
        paths += ["visual/temporal/" + path_name(path) for path, _ in leaves]
    return tuple(paths)


INTERNVIDEO = Recipe(
    name="internvideo",
    options={
        "sim_header": "meanP",
        "interaction": "no",
        "wti_arch": 0,
        "cdcr": 0,
        "return_list": None,
    },
    check=_check,
    sizes=_sizes,
    modules=_modules,
    aggregate=lambda parts, frames_bfd, mask_bf: frames_bfd,
    scores=_scores,
    loss=_loss,
    reads=lambda config: READS[config.option("interaction")],
    projects_tokens=lambda config: config.option("interaction") == "no",
    draws=lambda config: config.option("cdcr") == 1,
    unused=_unused,
    vision_tower=_vision_tower,
)
