"""Starting a recipe from CLIP: towers copied, temporal layers seeded from the text tower."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from vtr_jax.models.clip import ClipConfig, VisionTower
from vtr_jax.models.module_spec import Params
from vtr_jax.models.recipes import RetrieverConfig, recipe_named
from vtr_jax.models.recipes.recipe import OptionValue
from vtr_jax.models.retriever import Retriever, component_specs, init_params, initial_state
from vtr_jax.preprocessing import PROTOCOL_SETTINGS, Preprocessing, without_protocol


def _with_linear_patch(clip: ClipConfig, linear_patch: str) -> ClipConfig:
    return ClipConfig(dataclasses.replace(clip.vision, linear_patch=linear_patch), clip.text)


def _three_frame_kernel(kernel: Array) -> Array:
    return jnp.stack([jnp.zeros_like(kernel), kernel, jnp.zeros_like(kernel)])


@jax.jit
def _over_first_rows(fresh: Params, source: Params) -> Params:
    """Fresh arrays with their first rows (layers, positions) replaced by the source's."""

    def replace(new: Array, old: Array) -> Array:
        rows = min(new.shape[0], old.shape[0])
        return new.at[:rows].set(old[:rows])

    return jax.tree.map(replace, fresh, source)


# What starts as a copy of the text tower's first blocks and positions, by component.
SEEDED = {"aggregation": "seqTransf", "cross": "the cross-encoder"}


def _seed_from_text(component: str, fresh: Params, text: Params) -> Params:
    """Fresh parameters with positions, and blocks if there are any, from the text tower."""
    joint, width = fresh["position_embedding"].shape[1], text["position_embedding"].shape[1]
    if joint != width:
        raise ValueError(
            f"{SEEDED[component]} starts as a copy of the text tower, so the text tower's width "
            f"{width} must equal the joint width {joint}; use frame features without it "
            "(sim_header=meanP, agg_module=None) with this CLIP"
        )
    shared = [name for name in ("position_embedding", "transformer") if name in fresh]
    return {
        **fresh,
        **_over_first_rows(*({name: part[name] for name in shared} for part in (fresh, text))),
    }


def _over_fresh(fresh: Params, clip: Params) -> Params:
    """A fresh tower with all that CLIP's has too; an axis of one that CLIP lacks is added."""
    merged = dict(fresh)
    for name, value in clip.items():
        if isinstance(value, dict):
            merged[name] = _over_fresh(fresh[name], value)
        else:
            merged[name] = jnp.reshape(value, fresh[name].shape)
    return merged


def _carried_over(clip: Retriever, config: RetrieverConfig) -> Preprocessing:
    """A CLIP's image settings and tokenizer with the protocol settings of a recipe."""
    protocol = {name: getattr(config.preprocessing, name) for name in PROTOCOL_SETTINGS}
    return clip.preprocessing.replace(**protocol)


def initialise_from_clip(
    clip: Retriever,
    recipe: str,
    key: Array,
    options: Mapping[str, OptionValue] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Retriever:
    """A recipe's retriever whose towers are a CLIP's, as the original programs start one.

    clip: a retriever of recipe "clip". What CLIP has no weights for is drawn from key. A
    temporal Transformer and a cross-encoder start as the text tower's first blocks and positions;
    a 3d patch embedding starts as the 2d one, and a tower that is not CLIP's keeps what it adds.
    Source: CLIP4Clip's from_pretrained. Raises ValueError for options the recipe does not know,
    and for towers it cannot be started from. Image settings, tokenizer and their assumptions carry
    over; token limit and frames are the recipe's defaults.
    """
    known = recipe_named(recipe)
    options = dict(options or {})
    linear_patch = str(known.complete_options(options).get("linear_patch") or "2d")
    config = known.config(
        _with_linear_patch(clip.config.clip, linear_patch),
        options,
        sizes,
        assumed=without_protocol(clip.config.assumed),
    )
    config = dataclasses.replace(config, preprocessing=_carried_over(clip, config))
    specs = component_specs(config, clip.runtime)
    own = {name: spec for name, spec in specs.items() if name not in clip.params}
    visual = dict(clip.params["visual"])
    if specs["visual"].kind is not VisionTower:
        visual = _over_fresh(specs["visual"].init(jax.random.fold_in(key, 1)), visual)
    if linear_patch == "3d":
        kernel = _three_frame_kernel(visual["patch_embedding"]["kernel"])
        visual["patch_embedding_3d"] = {"kernel": kernel}
    params = {**clip.params, "visual": visual, **init_params(own, key)}
    for component in SEEDED:
        if component in params:
            params[component] = _seed_from_text(component, params[component], params["text"])
    return Retriever(params, initial_state(config, key), config, clip.runtime)
