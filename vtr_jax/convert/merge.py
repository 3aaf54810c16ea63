"""Merging a video-trained checkpoint with the CLIP it came from, weight by weight.

merged, notes = merge_with_clip(pretrained, clip, expected, weight=0.5)

Every weight that both have becomes weight * clip + (1 - weight) * pretrained, logit_scale too
(linearly, in log space). Source: InternVideo's mergeclip and mergeweight.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.names.internvideo import RENAMED
from vtr_jax.convert.names.rows import PREFIX, SCALARS

Shapes = Mapping[str, tuple[int, ...]]
Tensors = dict[str, LazyTensor]

SCORERS = ("text_weight_fc.", "video_weight_fc.")
_MARK = "transformer.temporal_cls_token"


def is_internvideo(names: Mapping[str, Any]) -> bool:
    """Whether these are names of InternVideo's retrieval model, whatever stands before them."""
    return any(name.endswith(_MARK) for name in names)


def pretrained_names(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A video-trained file's tensors under the names of the whole retrieval model, and notes.

    As the original: "clip." is removed wherever it stands and put before everything but the
    scorers, and CLIP's own names of the video projection and its norm become this model's.
    Raises ValueError where two names become one.
    """
    renamed: dict[str, Any] = {}
    for name, tensor in tensors.items():
        bare = name.replace(PREFIX, "")
        if bare in SCALARS:
            continue
        whole = bare if bare.startswith(SCORERS) else PREFIX + RENAMED.get(bare, bare)
        if whole in renamed:
            raise ValueError(f"two of its names become {whole}, {name} is one; rename one of them")
        renamed[whole] = tensor
    others = [name for name in tensors if name not in renamed]
    if not others:
        return renamed, ()
    return renamed, (f"{len(others)} names adapted, e.g. {others[0]}",)


def inflated(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel with a time axis: zero but for the middle tap, which is the kernel.

    kernel (out,channel,row,column), shape (out,channel,time,row,column). Raises ValueError for
    other shapes.
    """
    if len(shape) != kernel.ndim + 1 or (*shape[:2], *shape[3:]) != kernel.shape:
        raise ValueError(f"cannot be inflated to {shape}: its shape is {kernel.shape}")
    filled = np.zeros(shape, kernel.dtype)
    filled[:, :, shape[2] // 2] = kernel
    return filled


def clip_tensors(clip: Mapping[str, Any], expected: Shapes, projection: bool = False) -> Tensors:
    """CLIP's tensors under the names of the whole retrieval model, float32, what it lacks left out.

    clip: tensors by CLIP's own names, a "clip." before them allowed. expected: shapes by name.
    projection: also take CLIP's image projection and the norm before it, which the original does
    not find under their other names. Raises ValueError for a shape that does not fit.
    """
    taken: Tensors = {}
    for name, tensor in clip.items():
        bare = name.removeprefix(PREFIX)
        whole = PREFIX + (RENAMED.get(bare, bare) if projection else bare)
        if whole not in expected:
            continue
        shape, wanted = tuple(np.shape(tensor)), tuple(expected[whole])
        inflates = len(wanted) == len(shape) + 1 and (*wanted[:2], *wanted[3:]) == shape
        if shape != wanted and not (len(shape) > 2 and inflates):
            raise ValueError(f"{name} of the CLIP has shape {shape}, expected {wanted}")
        load = functools.partial(_as_float32, tensor, wanted)
        taken[whole] = LazyTensor(np.dtype(np.float32), wanted, load)
    return taken


def merge_with_clip(
    pretrained: Mapping[str, Any],
    clip: Mapping[str, Any],
    expected: Shapes,
    weight: float,
    projection: bool = False,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The merged tensors, and notes that say what came from where.

    pretrained: by the names of the whole model, as pretrained_names gives them. clip, projection:
    as for clip_tensors. expected: shapes of all that the model has. weight: CLIP's share, of any
    size. What only one of them has is taken from it. Tensors are read when asked for. Raises
    ValueError for a weight that is no number and for shapes that do not fit.
    """
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise ValueError(f"mergeweight: expected a number, CLIP's share, got {weight!r}")
    theirs = clip_tensors(clip, expected, projection)
    merged: dict[str, Any] = dict(pretrained)
    both = [name for name in theirs if name in pretrained]
    for name in both:
        if tuple(np.shape(pretrained[name])) != theirs[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(np.shape(pretrained[name]))}, and CLIP's "
                f"{theirs[name].shape}: they cannot be merged"
            )
        load = functools.partial(_mixed, theirs[name], pretrained[name], weight)
        merged[name] = LazyTensor(np.dtype(np.float32), theirs[name].shape, load)
    alone = [name for name in theirs if name not in pretrained]
    merged |= {name: theirs[name] for name in alone}
    kept = [name for name in pretrained if name in expected and name not in theirs]
    return merged, _notes(weight, both, alone, kept)


def _notes(weight: float, both: list[str], alone: list[str], kept: list[str]) -> tuple[str, ...]:
    notes = [f"{len(both)} tensors are {weight:g} x CLIP + {1 - weight:g} x the file"]
    if alone:
        notes.append(f"from CLIP alone, the file lacks them: {', '.join(alone)}")
    outside = [name for name in kept if "transformer." not in name]
    if kept:
        notes.append(f"{len(kept)} tensors are the file's alone, among them {', '.join(outside)}")
    return tuple(notes)


def _numbers(tensor: Any) -> np.ndarray:
    return np.asarray(tensor.read() if hasattr(tensor, "read") else tensor).astype(np.float32)


def _as_float32(tensor: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = _numbers(tensor)
    return array if array.shape == shape else inflated(array, shape)


def _mixed(clip: LazyTensor, pretrained: Any, weight: float) -> np.ndarray:
    ours = np.float32(1 - weight) * _numbers(pretrained)
    return np.asarray(np.float32(weight) * clip.read() + ours, np.float32)
