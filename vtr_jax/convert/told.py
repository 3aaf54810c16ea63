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
NO_AGGREGATION = ("none", "None", "meanP", None)


class OneOf(tuple[str, ...]):
    """Values of an option that the names fit alike, so that one has to be said."""

    def __str__(self) -> str:
        return " or ".join(self)


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


def told_token_weights(shapes: Shapes) -> int:
    """Layers of the heads that weigh words and frames (wti_arch), 0 where there are none.

    A single layer has no index; of several, every other index is an activation.
    """
    if "text_weight_fc.weight" in shapes:
        return 1
    return count_layers(shapes, "text_weight_fc.")


def _clip4clip(shapes: Shapes) -> Told:
    options: dict[str, Any] = {"linear_patch": "2d"}
    if "clip.visual.conv2.weight" in shapes:
        options["linear_patch"] = "3d"
    cross = told_cross(shapes)
    if cross:
        return {**options, "sim_header": "tightTransf"}, cross
    header, sizes = told_aggregation(shapes, none="meanP")
    return {**options, "sim_header": header}, sizes


def _internvideo(shapes: Shapes) -> Told:
    layers = told_token_weights(shapes)
    # A video-trained file has no scorers yet; wti may be started from it.
    options = {"interaction": "wti", "wti_arch": layers} if layers else {}
    blocks = count_layers(shapes, "clip.visual.transformer.dec.")
    return options, {"temporal_blocks": blocks} if blocks else {}


def _token_wise(shapes: Shapes) -> tuple[dict[str, Any], dict[str, int]]:
    """Options and sizes that DRL, BackBone_tvr and EMCL-Net share."""
    aggregation, sizes = told_aggregation(shapes, none="None")
    three_d = "clip.visual.conv2.weight" in shapes
    return {"agg_module": aggregation, "linear_patch": "3d" if three_d else "2d"}, sizes


def _drl(shapes: Shapes) -> Told:
    options, sizes = _token_wise(shapes)
    cross, arch = told_cross(shapes), told_token_weights(shapes)
    if cross:
        return {**options, "interaction": "xti"}, {**sizes, **cross}
    if arch:
        return {**options, "interaction": "wti", "wti_arch": arch}, sizes
    if "similarity_dense.0.weight" in shapes:
        return {**options, "interaction": "mlp"}, sizes
    return {**options, "interaction": OneOf(("dp", "ti"))}, sizes


def _eercf(shapes: Shapes) -> Told:
    _, sizes = told_aggregation(shapes)
    three_d = "clip.visual.conv2.weight" in shapes
    frames = shapes.get("frame_logit_weight")
    return (
        {"linear_patch": "3d" if three_d else "2d"},
        sizes | ({"max_frames": frames[0]} if frames else {}),
    )


TOLD: dict[str, Callable[[Shapes], Told]] = {
    "backbone_tvr": _token_wise,
    "clip4clip": _clip4clip,
    "drl": _drl,
    "eercf": _eercf,
    "emcl": _token_wise,
    "internvideo": _internvideo,
}


def told_by_names(recipe: str, shapes: Shapes) -> Told:
    """What a system's key names say: (options, sizes of the recipe's own modules).

    Both are empty for a recipe that has no entry in TOLD.
    """
    return TOLD[recipe](shapes) if recipe in TOLD else ({}, {})


def contradicts(told: Any, given: Any) -> bool:
    """Whether the value of an option is another than the one that the names tell."""
    if isinstance(told, OneOf):
        return given not in told
    return told != given and not (told in NO_AGGREGATION and given in NO_AGGREGATION)
