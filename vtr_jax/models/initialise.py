"""Starting a recipe from CLIP: towers copied, temporal layers seeded from the text tower."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.module_spec import Params
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.recipes.recipe import OptionValue
from vtr_jax.models.retriever import Retriever, init_retriever


def _with_linear_patch(clip: ClipConfig, linear_patch: str) -> ClipConfig:
    return ClipConfig(dataclasses.replace(clip.vision, linear_patch=linear_patch), clip.text)


def _three_frame_kernel(kernel: Array) -> Array:
    return jnp.stack([jnp.zeros_like(kernel), kernel, jnp.zeros_like(kernel)])


def _first_layers(fresh: Params, source: Params) -> Params:
    """The fresh stack with its first layers replaced by the source's."""

    def replace(new: Array, old: Array) -> Array:
        layers = min(new.shape[0], old.shape[0])
        return new.at[:layers].set(old[:layers])

    return jax.tree.map(replace, fresh, source)


def _seed_temporal(temporal: Params, text: Params) -> Params:
    blocks = _first_layers(temporal["transformer"]["blocks"], text["transformer"]["blocks"])
    positions = temporal["position_embedding"]
    rows = min(positions.shape[0], text["position_embedding"].shape[0])
    return {
        **temporal,
        "position_embedding": positions.at[:rows].set(text["position_embedding"][:rows]),
        "transformer": {**temporal["transformer"], "blocks": blocks},
    }


def initialise_from_clip(
    clip: Retriever,
    recipe: str,
    key: Array,
    options: Mapping[str, OptionValue] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Retriever:
    """A recipe's retriever whose towers are a CLIP's, as the original programs start one.

    clip: a retriever of recipe "clip". What CLIP has no weights for is drawn from key. The
    temporal Transformer starts as the text tower's first blocks and positions; a 3d patch
    embedding starts as the 2d one. Source: CLIP4Clip's from_pretrained. Raises ValueError
    for options the recipe does not know.
    """
    known = recipe_named(recipe)
    options = dict(options or {})
    linear_patch = str(known.complete_options(options).get("linear_patch") or "2d")
    config = known.config(_with_linear_patch(clip.config.clip, linear_patch), options, sizes)
    fresh = init_retriever(config, key, clip.runtime)
    visual = dict(clip.params["visual"])
    if linear_patch == "3d":
        kernel = _three_frame_kernel(visual["patch_embedding"]["kernel"])
        visual["patch_embedding_3d"] = {"kernel": kernel}
    params = {
        **fresh.params,
        "visual": visual,
        "text": clip.params["text"],
        "logit_scale": clip.params["logit_scale"],
    }
    if "aggregation" in params:
        params["aggregation"] = _seed_temporal(params["aggregation"], params["text"])
    return dataclasses.replace(fresh, params=params)
