"""CLIP4Clip: four ways from frames to a score.

meanP relates frames in time by nothing, seqLSTM by an LSTM, seqTransf by a Transformer;
tightTransf reads text and frames together in a cross-encoder.
"""

from __future__ import annotations

from typing import Any

from jax import Array

from vtr_jax.losses import symmetric_contrastive
from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.interactions.cross_encoder import CrossConfig, CrossEncoder
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.recipes.clip import (
    MEAN_POOLING_READS,
    mean_pooling_loss,
    mean_pooling_scores,
)
from vtr_jax.models.recipes.frame_aggregation import (
    AGGREGATION_OPTIONS,
    aggregate_frames,
    aggregation_modules,
    aggregation_sizes,
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
    Parts,
    Picks,
    Recipe,
    RetrieverConfig,
    Scores,
    check_choice,
)
from vtr_jax.models.runtime import Runtime

HEADERS = ("meanP", "seqLSTM", "seqTransf", "tightTransf")
CROSS_LAYERS = 4
CROSS_HEADS = 8


def _check(clip: ClipConfig, options: Options) -> None:
    header = options["sim_header"]
    check_choice("sim_header", header, HEADERS)
    check_linear_patch(clip, options)
    check_aggregation(options)
    # The original turns it off by itself for the tight head, so there it says nothing.
    if header != "tightTransf" and not options["loose_type"]:
        raise ValueError(f"sim_header {header} compares texts and videos loosely: loose_type=True")
    if header == "tightTransf":
        check_cross_heads(clip.embed_dim, _cross_heads(options))


def check_cross_heads(width: int, heads: int) -> None:
    """Raise ValueError if a cross-encoder of that width cannot have so many heads."""
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise ValueError(
            f"cross_num_attention_heads: {heads!r} heads do not divide the joint width {width}"
        )


def _cross_heads(options: Options) -> Any:
    heads = options["cross_num_attention_heads"]
    return CROSS_HEADS if heads is None else heads


def _sizes(clip: ClipConfig, options: Options) -> dict[str, int]:
    if options["sim_header"] == "tightTransf":
        return cross_sizes(clip)
    return aggregation_sizes(str(options["sim_header"]), clip)


def cross_sizes(clip: ClipConfig) -> dict[str, int]:
    """The sizes of a cross-encoder where nothing tells them: four layers, CLIP's positions."""
    return {"cross_layers": CROSS_LAYERS, "cross_positions": clip.text.context_length}


def cross_module(config: RetrieverConfig, heads: int, runtime: Runtime) -> ModuleSpec:
    """The cross-encoder of a retriever."""
    cross = CrossConfig(
        width=config.clip.embed_dim,
        layers=config.size("cross_layers"),
        heads=heads,
        positions=config.size("cross_positions"),
    )
    return ModuleSpec(CrossEncoder, cross, runtime)


def _modules(config: RetrieverConfig, runtime: Runtime) -> dict[str, ModuleSpec]:
    if config.option("sim_header") == "tightTransf":
        heads = _cross_heads(dict(config.options))
        return {"cross": cross_module(config, heads, runtime)}
    return aggregation_modules(config.option("sim_header"), config, runtime)


def _scores(parts: Parts, text: TextFeatures, video: VideoFeatures, train: bool) -> Scores:
    if "cross" not in parts.modules:
        return mean_pooling_scores(parts, text, video, train)
    return {"logits_tv": parts.modules["cross"](text.sentence, video.frames, video.mask)}


def _loss(
    parts: Parts,
    text: TextFeatures,
    video: VideoFeatures,
    rng: Array | None,
    picks: Picks | None,
) -> tuple[Array, dict[str, Any]]:
    if "cross" not in parts.modules:
        return mean_pooling_loss(parts, text, video, rng, picks)
    logits_tv = parts.modules["cross"](text.sentence, video.frames, video.mask, rng)
    return symmetric_contrastive(logits_tv, logits_tv.T)


def _reads(config: RetrieverConfig) -> frozenset[str]:
    if config.option("sim_header") == "tightTransf":
        return frozenset({"sentence", "frames"})
    return MEAN_POOLING_READS


def _unused(config: RetrieverConfig) -> tuple[str, ...]:
    header = config.option("sim_header")
    unused = unused_aggregation_parameters(header)
    if header == "tightTransf":
        unused += ("logit_scale",)
    return unused + unused_patch_parameters(config)


CLIP4CLIP = Recipe(
    name="clip4clip",
    options={
        "sim_header": "meanP",
        **LINEAR_PATCH_OPTIONS,
        "loose_type": True,
        "cross_num_attention_heads": None,
        **AGGREGATION_OPTIONS,
    },
    check=_check,
    sizes=_sizes,
    modules=_modules,
    aggregate=aggregate_frames,
    scores=_scores,
    loss=_loss,
    reads=_reads,
    unused=_unused,
)
