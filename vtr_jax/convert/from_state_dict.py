"""Retrievers from and to the state dicts of the original programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.names.params import original_from_params, params_from_original
from vtr_jax.convert.preprocessing_facts import with_given
from vtr_jax.convert.sizes import infer_clip_config, split_options
from vtr_jax.convert.told import OneOf, contradicts, told_by_names
from vtr_jax.models.recipes import RetrieverConfig, recipe_named
from vtr_jax.models.retriever import Retriever, abstract_retriever, initial_state


def config_of_state_dict(
    tensors: Mapping[str, Any], recipe: str, what: str = "state dict", **options: Any
) -> RetrieverConfig:
    """The description of a retriever whose parameters these are.

    tensors: anything with a shape by original key. options: the recipe's, spelt as the
    original's flags, and activation, vision_heads, text_heads. Raises ValueError for unknown
    options, options that the names contradict, and names that no such system has.
    """
    shapes = {name: tuple(np.shape(tensor)) for name, tensor in tensors.items()}
    known = recipe_named(recipe)
    towers, own = split_options(known, options)
    prefix = NAME_TABLES[recipe].clip_prefix
    if prefix and f"{prefix}visual.proj" not in shapes and "visual.proj" in shapes:
        raise ValueError(
            f"{what}: CLIP's own names without {prefix!r}: not a trained {recipe}. To start one "
            f"from CLIP weights, convert with recipe=clip and train, or use convert_checkpoint"
        )
    clip = infer_clip_config(shapes, prefix, what, **towers)
    told, sizes = told_by_names(recipe, shapes)
    for name, value in told.items():
        if name in own and contradicts(value, own[name]):
            raise ValueError(
                f"{what}: option {name}={own[name]} contradicts its names, which say {value}"
            )
        if name not in own and isinstance(value, OneOf):
            raise ValueError(f"{what}: its names do not tell which {name} it has: give {value}")
    try:
        return with_given(known.config(clip, {**told, **own}, sizes), towers)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def retriever_from_state_dict(
    state_dict: Mapping[str, Any], recipe: str, *, allow_nonfinite: bool = False, **options: Any
) -> Retriever:
    """A retriever from an original program's state dict.

    state_dict: {original key: array}; sizes come from the shapes. options: as
    config_of_state_dict. allow_nonfinite: accept NaN and infinite values. Parameters become
    float32. Raises one ValueError that lists every missing, unexpected and mis-shaped name, or
    every tensor with values that are not finite.
    """
    config = config_of_state_dict(state_dict, recipe, **options)
    params = params_from_original(
        state_dict,
        NAME_TABLES[recipe],
        abstract_retriever(config).params,
        allow_nonfinite=allow_nonfinite,
    )
    state = initial_state(config, jax.random.key(0))
    return Retriever(jax.tree.map(jnp.asarray, params), state, config)


def to_state_dict(retriever_or_gradients: Retriever) -> dict[str, np.ndarray]:
    """{original key: array} of a retriever, or of the gradients that jax.grad gave of one.

    Keys that the original keeps but never uses are there too (as zero gradients).
    """
    table = NAME_TABLES[retriever_or_gradients.config.recipe]
    return original_from_params(jax.device_get(retriever_or_gradients.params), table)
