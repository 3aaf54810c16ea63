"""CLIP4Clip: frames related in time by nothing (meanP) or by a Transformer (seqTransf)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax import Array

from vtr_jax.models.aggregation import TemporalConfig, TemporalTransformer
from vtr_jax.models.clip import HEAD_WIDTH, ClipConfig
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.recipes.clip import (
    MEAN_POOLING_READS,
    mean_pooling_loss,
    mean_pooling_scores,
)
from vtr_jax.models.recipes.recipe import OptionValue, Recipe, RetrieverConfig
from vtr_jax.models.runtime import Runtime

HEADERS = ("meanP", "seqTransf")
LINEAR_PATCHES = ("2d", "3d")


def _check(clip: ClipConfig, options: Mapping[str, OptionValue]) -> None:
    header = options["sim_header"]
    if header not in HEADERS:
        raise ValueError(f"sim_header: expected one of {', '.join(HEADERS)}, got {header!r}")
    if options["linear_patch"] not in LINEAR_PATCHES:
        raise ValueError(
            f"linear_patch: expected one of {', '.join(LINEAR_PATCHES)}, "
            f"got {options['linear_patch']!r}"
        )
    if options["linear_patch"] != clip.vision.linear_patch:
        raise ValueError(
            f"linear_patch={options['linear_patch']} contradicts a {clip.vision.linear_patch} "
            "patch embedding"
        )
    if not options["loose_type"]:
        raise ValueError(f"sim_header {header} compares texts and videos loosely: loose_type=True")


def _sizes(clip: ClipConfig, options: Mapping[str, OptionValue]) -> dict[str, int]:
    if options["sim_header"] == "meanP":
        return {}
    return {"temporal_layers": 4, "temporal_positions": clip.text.context_length}


def _modules(config: RetrieverConfig, runtime: Runtime) -> dict[str, ModuleSpec]:
    if config.option("sim_header") == "meanP":
        return {}
    width = config.clip.embed_dim
    temporal = TemporalConfig(
        width=width,
        layers=config.size("temporal_layers"),
        heads=max(1, width // HEAD_WIDTH),
        positions=config.size("temporal_positions"),
    )
    return {"aggregation": ModuleSpec(TemporalTransformer, temporal, runtime)}


def _aggregate(
    config: RetrieverConfig, modules: dict[str, Any], frames_bfd: Array, mask_bf: Array
) -> Array:
    if "aggregation" not in modules:
        return frames_bfd
    return modules["aggregation"](frames_bfd, mask_bf)


def _unused(config: RetrieverConfig) -> tuple[str, ...]:
    if config.clip.vision.linear_patch == "3d":
        return ("visual/patch_embedding/kernel",)
    return ()


CLIP4CLIP = Recipe(
    name="clip4clip",
    options={
        "sim_header": "meanP",
        "linear_patch": "2d",
        "loose_type": True,
        "cross_num_attention_heads": None,
    },
    check=_check,
    sizes=_sizes,
    modules=_modules,
    aggregate=_aggregate,
    scores=mean_pooling_scores,
    loss=mean_pooling_loss,
    reads=MEAN_POOLING_READS,
    unused=_unused,
)
