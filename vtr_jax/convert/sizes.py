"""Sizes of a CLIP, and a recipe's options, read from the names and shapes of a state dict."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.models.clip import ClipConfig, clip_config
from vtr_jax.models.recipes import RECIPES, Recipe
from vtr_jax.models.recipes.recipe import plain_value
from vtr_jax.preprocessing import PREPROCESSING_OPTIONS

Shapes = Mapping[str, tuple[int, ...]]

# CLIP's image projection, and InternVideo's.
PROJECTIONS = ("visual.proj", "visual_proj")

_POSITIONS = "visual.positional_embedding"

# Widths of image towers that only open_clip has (ViT-H), with the width of their heads.
HEAD_WIDTHS = {1280: 80}

TOWER_OPTIONS = (
    "activation",
    "vision_heads",
    "text_heads",
    "layer_norm_eps",
    "end_of_text_id",
    *PREPROCESSING_OPTIONS,
)


def split_options(
    recipe: Recipe, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the towers and those of the recipe, apart.

    Raises ValueError for a name that neither has, with the recipes that have it or the nearest.
    """
    towers = {
        name: plain_value(name, value) for name, value in given.items() if name in TOWER_OPTIONS
    }
    own = {name: value for name, value in given.items() if name not in TOWER_OPTIONS}
    for name in own.keys() - recipe.options.keys():
        owners = [other.name for other in RECIPES.values() if name in other.options]
        if owners:
            raise ValueError(
                f"recipe {recipe.name} has no option {name!r}; it belongs to recipe "
                f"{' and '.join(owners)}: add --recipe={owners[0]}"
            )
    recipe.complete_options(own, others=TOWER_OPTIONS)
    return towers, own


def _refuse_other_towers(shapes: Shapes, prefix: str, what: str) -> None:
    if any(f"{prefix}{name}" in shapes for name in PROJECTIONS):
        return
    if any(name.startswith(("visual.layer1.", "clip.visual.layer1.")) for name in shapes):
        raise ValueError(
            f"{what}: a ResNet image tower (visual.layer1.*); only Vision Transformers "
            "(ViT-B/32, ViT-B/16, ViT-L/14, ...) can be converted"
        )
    if not prefix and "clip.visual.proj" in shapes:
        raise ValueError(
            f"{what}: CLIP lies under 'clip.' beside other parameters, so this is a trained "
            "retriever; name its recipe (e.g. --recipe=clip4clip)"
        )
    raise ValueError(
        f"{what}: not a CLIP with a Vision Transformer: no {prefix}visual.proj among its "
        f"{len(shapes)} names (first: {', '.join(list(shapes)[:4]) or 'none'})"
    )


def _shape(shapes: Shapes, key: str, dimensions: int, what: str) -> tuple[int, ...]:
    if key not in shapes:
        raise ValueError(f"{what}: {key} is missing; without it the sizes cannot be told")
    if len(shapes[key]) != dimensions:
        raise ValueError(f"{what}: {key} has shape {shapes[key]}, expected {dimensions} axes")
    return shapes[key]


def count_layers(shapes: Shapes, prefix: str) -> int:
    """How many different layer indices follow a key prefix such as `transformer.resblocks.`."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for name in shapes if (match := pattern.match(name))})


def _grid_side(positions: int, what: str) -> int:
    side = round((positions - 1) ** 0.5)
    if side < 1 or side * side != positions - 1:
        raise ValueError(
            f"{what}: visual.positional_embedding has {positions} rows, expected one and a "
            "square grid of patches; only square pictures can be converted"
        )
    return side


def resized_positions(
    tensors: Mapping[str, LazyTensor], resolution: int, what: str
) -> dict[str, LazyTensor]:
    """Interpolate the position embeddings of an image tower to another image size.

    Bicubic with antialiasing, over the grid of patches, the class token's row left as it is: what
    open_clip's force_image_size computes. Tensors are read when asked for.

    Args:
        tensors: A checkpoint's tensors by OpenAI's names, with any prefix.
        resolution: The side of the images in pixels, a multiple of the patch size.
        what: The file, for messages.

    Raises:
        ValueError: There is no such embedding, or the patch size does not divide the resolution.
    """
    name = next((n for n in tensors if n.endswith(_POSITIONS)), None)
    patches = tensors.get(f"{name.removesuffix(_POSITIONS)}visual.conv1.weight") if name else None
    if name is None or patches is None:
        raise ValueError(f"{what}: image_resolution needs visual.positional_embedding, found none")
    patch, (rows, width) = patches.shape[-1], tensors[name].shape
    if resolution % patch:
        raise ValueError(
            f"image_resolution: expected a multiple of the patch size {patch}, got {resolution}; "
            f"the nearest are {resolution - resolution % patch or patch} and "
            f"{resolution - resolution % patch + patch}"
        )
    side, old = resolution // patch, _grid_side(rows, what)
    if side == old:
        return dict(tensors)
    load = partial(_interpolated, tensors[name], old, side)
    shape = (side * side + 1, width)
    return {**tensors, name: LazyTensor(np.dtype(np.float32), shape, load)}


def _interpolated(positions: LazyTensor, old: int, new: int) -> np.ndarray:
    token, grid = np.split(positions.read().astype(np.float32), [1])
    width = grid.shape[-1]
    resized = jax.image.resize(
        grid.reshape(old, old, width), (new, new, width), "cubic", antialias=True
    )
    return np.concatenate([token, np.asarray(resized).reshape(new * new, width)])


def _known_heads(width: int) -> int | None:
    return width // HEAD_WIDTHS[width] if width in HEAD_WIDTHS else None


def infer_clip_config(
    shapes: Shapes, prefix: str = "", what: str = "state dict", **given: Any
) -> ClipConfig:
    """Sizes of both towers from OpenAI-style names and shapes.

    prefix: what stands before CLIP's keys. given: what shapes do not tell (activation,
    vision_heads, text_heads, layer_norm_eps, end_of_text_id). Heads default to width / 64, in
    image towers of HEAD_WIDTHS to those.
    Raises ValueError for a ResNet, another architecture, missing names, or values that cannot be.
    """
    _refuse_other_towers(shapes, prefix, what)
    # InternVideo's patch embedding is a 3-D convolution over one frame at a time.
    axes = 5 if f"{prefix}visual_proj" in shapes else 4
    width, *_, patch = _shape(shapes, f"{prefix}visual.conv1.weight", axes, what)
    positions, _ = _shape(shapes, f"{prefix}visual.positional_embedding", 2, what)
    text_width, embed_dim = _shape(shapes, f"{prefix}text_projection", 2, what)
    context_length, _ = _shape(shapes, f"{prefix}positional_embedding", 2, what)
    vocab_size, _ = _shape(shapes, f"{prefix}token_embedding.weight", 2, what)
    three_d = f"{prefix}visual.conv2.weight" in shapes
    config = clip_config(
        embed_dim=embed_dim,
        image_resolution=patch * _grid_side(positions, what),
        patch_size=patch,
        vision_width=width,
        vision_layers=count_layers(shapes, f"{prefix}visual.transformer.resblocks."),
        text_width=text_width,
        text_layers=count_layers(shapes, f"{prefix}transformer.resblocks."),
        context_length=context_length,
        vocab_size=vocab_size,
        vision_heads=given.get("vision_heads", _known_heads(width)),
        text_heads=given.get("text_heads"),
        activation=given.get("activation") or "quick_gelu",
        linear_patch="3d" if three_d else "2d",
    )
    return _with_facts(config, given.get("layer_norm_eps"), given.get("end_of_text_id"))


def _with_facts(config: ClipConfig, eps: float | None, end_of_text_id: int | None) -> ClipConfig:
    """The config with a norm epsilon and an end-of-text rule, where they are known."""
    vision, text = config.vision, config.text
    if eps is not None:
        if not isinstance(eps, float) or not 0 < eps < 1:
            raise ValueError(f"layer_norm_eps: expected a small positive number, got {eps!r}")
        vision = dataclasses.replace(vision, layer_norm_eps=eps)
        text = dataclasses.replace(text, layer_norm_eps=eps)
    if end_of_text_id is not None:
        if not isinstance(end_of_text_id, int) or end_of_text_id < 0:
            raise ValueError(f"end_of_text_id: expected a token id, got {end_of_text_id!r}")
        text = dataclasses.replace(text, end_of_text_id=end_of_text_id)
    return ClipConfig(vision, text)
