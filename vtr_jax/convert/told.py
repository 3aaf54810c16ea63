"""What the key names of a trained retriever tell beside its towers: options and sizes.

A system adds one entry to TOLD: a function of {original key: shape} that gives the options that
the names decide, spelt as the original's flags, and the sizes of the recipe's own modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vtr_jax.convert.sizes import Shapes, count_layers

Told = tuple[dict[str, Any], dict[str, int]]

# Spellings of the originals for frames that nothing relates in time: they are equal in effect.
NO_AGGREGATION = ("none", "None", "meanP")


def told_aggregation(shapes: Shapes, none: str = "none") -> tuple[str, dict[str, int]]:
    """Which frame aggregation the names belong to, and its sizes.

    The first is seqTransf, seqLSTM, or `none` where the names have neither. Sizes: temporal_layers
    (seqTransf only) and temporal_positions.
    """
    sizes: dict[str, int] = {}
    positions = shapes.get("frame_position_embeddings.weight")
    if positions:
        sizes["temporal_positions"] = positions[0]
    if any(name.startswith("lstm_visual.") for name in shapes):
        return "seqLSTM", sizes
    layers = count_layers(shapes, "transformerClip.resblocks.")
    if layers:
        return "seqTransf", {"temporal_layers": layers, **sizes}
    return none, {}


def told_cross(shapes: Shapes) -> dict[str, int]:
    """Sizes of a cross-encoder: cross_layers and cross_positions; {} where there is none."""
    layers = count_layers(shapes, "cross.transformer.resblocks.")
    if not layers:
        return {}
    positions = shapes.get("cross.embeddings.position_embeddings.weight")
    return {"cross_layers": layers} | ({"cross_positions": positions[0]} if positions else {})


def _clip4clip(shapes: Shapes) -> Told:
    options: dict[str, Any] = {"linear_patch": "2d"}
    if "clip.visual.conv2.weight" in shapes:
        options["linear_patch"] = "3d"
    cross = told_cross(shapes)
    if cross:
        return {**options, "sim_header": "tightTransf"}, cross
    header, sizes = told_aggregation(shapes, none="meanP")
    return {**options, "sim_header": header}, sizes


TOLD: dict[str, Callable[[Shapes], Told]] = {
    "clip4clip": _clip4clip,
}


def told_by_names(recipe: str, shapes: Shapes) -> Told:
    """What a system's key names say: (options, sizes of the recipe's own modules).

    Both are empty for a recipe that has no entry in TOLD.
    """
    return TOLD[recipe](shapes) if recipe in TOLD else ({}, {})


def contradicts(told: Any, given: Any) -> bool:
    """Whether the value of an option is another than the one that the names tell."""
    return told != given and not (told in NO_AGGREGATION and given in NO_AGGREGATION)
