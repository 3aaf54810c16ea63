"""Hugging Face's CLIPModel names and layout, to OpenAI's and back.

They differ in names, in separate query, key and value weights, and in the two projections, which
are transposed. Nothing is read when names are changed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial

import numpy as np

from vtr_jax.convert.checkpoint_file import CheckpointFacts, CheckpointFile
from vtr_jax.convert.huggingface_config import read_facts
from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.open_clip import open_clip_facts

_SAME = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
}
_LAYERS = {
    "transformer.resblocks": "text_model.encoder.layers",
    "visual.transformer.resblocks": "vision_model.encoder.layers",
}
_IN_LAYER = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_MARKERS = tuple(_SAME[name] for name in ("token_embedding.weight", "visual.class_embedding"))
_IGNORED = re.compile(r"(text|vision)_model\.embeddings\.position_ids")
_HF_LAYER = re.compile(r"((?:text|vision)_model\.encoder\.layers)\.(\d+)\.(.+)\.(weight|bias)")
_OPENAI_LAYER = re.compile(r"((?:visual\.)?transformer\.resblocks)\.(\d+)\.(.+[._])(weight|bias)")
_NOT_IN_HF = frozenset({"input_resolution", "context_length", "vocab_size"})
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def openai_names(file: CheckpointFile) -> CheckpointFile:
    """The checkpoint under OpenAI's names and layout, with `facts` from its config.json.

    A file in another layout than CLIPModel's keeps its names. A prefix of CLIPModel's names is
    removed; tensors outside it, and names that CLIPModel does not have, are kept as they are.
    ValueError where a tower or a query, key or value weight is missing or of an unfitting shape,
    and where the configuration is not CLIP's.
    """
    facts = _facts(file)
    prefix = _clip_prefix(file)
    if prefix is None:
        return dataclasses.replace(file, facts=facts)
    parts = {
        name.removeprefix(prefix): tensor
        for name, tensor in file.tensors.items()
        if name.startswith(prefix)
    }
    renamed = _rename(parts, file)
    outside = {name: item for name, item in file.tensors.items() if not name.startswith(prefix)}
    twice = sorted(set(outside) & set(renamed))
    if twice:
        raise ValueError(f"{file.path}: names that would stand twice: {', '.join(twice[:5])}")
    notes = (*file.notes, "Hugging Face names and layout turned into OpenAI's")
    if prefix:
        notes = (*notes, f"removed the prefix {prefix!r} from CLIP's names")
    return dataclasses.replace(file, tensors={**renamed, **outside}, facts=facts, notes=notes)


def huggingface_names(openai_state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """CLIPModel's state_dict for OpenAI's: {name: array of the same dtype}.

    Query, key and value weights [3W,W] and biases [3W] are split; the projections are transposed;
    the three scalar entries of released archives are left out. ValueError lists names that a
    CLIP with two Transformer towers does not have.
    """
    result: dict[str, np.ndarray] = {}
    unknown = []
    for name, array in openai_state_dict.items():
        match = _OPENAI_LAYER.fullmatch(name)
        if name in _NOT_IN_HF:
            continue
        if name in _SAME:
            result[_SAME[name]] = array
        elif name in _TRANSPOSED:
            result[_TRANSPOSED[name]] = np.ascontiguousarray(array.T)
        elif match and match[3] == "attn.in_proj_":
            for projection, part in zip(_PROJECTIONS, np.split(array, 3), strict=True):
                result[f"{_LAYERS[match[1]]}.{match[2]}.self_attn.{projection}.{match[4]}"] = part
        elif match and match[3].removesuffix(".") in _IN_LAYER:
            inner = _IN_LAYER[match[3].removesuffix(".")]
            result[f"{_LAYERS[match[1]]}.{match[2]}.{inner}.{match[4]}"] = array
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"{len(unknown)} names have no place in Hugging Face's CLIPModel "
            f"({', '.join(unknown[:8])}); give only the two towers of a ViT CLIP"
        )
    return result


def _facts(file: CheckpointFile) -> CheckpointFacts:
    if file.config is not None and "model_cfg" in file.config:
        return open_clip_facts(file.config, file.path)
    return read_facts(file.config, file.path)


def _clip_prefix(file: CheckpointFile) -> str | None:
    """What stands before CLIPModel's names, None for another layout; both towers are required."""
    found = {
        marker: {name.removesuffix(marker) for name in file.tensors if name.endswith(marker)}
        for marker in _MARKERS
    }
    if not any(found.values()):
        return None
    if not found[_MARKERS[0]] == found[_MARKERS[1]] or len(found[_MARKERS[0]]) != 1:
        raise ValueError(
            f"{file.path}: expected one text tower ({_MARKERS[0]}) and one vision tower "
            f"({_MARKERS[1]}) under one prefix, found {sorted(found[_MARKERS[0]])} and "
            f"{sorted(found[_MARKERS[1]])}; give a whole CLIPModel"
        )
    return found[_MARKERS[0]].pop()


def _rename(parts: dict[str, LazyTensor], file: CheckpointFile) -> dict[str, LazyTensor]:
    same = {theirs: ours for ours, theirs in _SAME.items()}
    transposed = {theirs: ours for ours, theirs in _TRANSPOSED.items()}
    layers = {theirs: ours for ours, theirs in _LAYERS.items()}
    in_layer = {theirs: ours for ours, theirs in _IN_LAYER.items()}
    renamed: dict[str, LazyTensor] = {}
    split: dict[str, dict[str, LazyTensor]] = {}
    for name, tensor in parts.items():
        match = _HF_LAYER.fullmatch(name)
        if _IGNORED.fullmatch(name):
            continue
        if name in same:
            renamed[same[name]] = tensor
        elif name in transposed:
            renamed[transposed[name]] = _transposed(tensor)
        elif match and match[3] in in_layer:
            renamed[f"{layers[match[1]]}.{match[2]}.{in_layer[match[3]]}.{match[4]}"] = tensor
        elif match and match[3].removeprefix("self_attn.") in _PROJECTIONS:
            joined = f"{layers[match[1]]}.{match[2]}.attn.in_proj_{match[4]}"
            split.setdefault(joined, {})[match[3].removeprefix("self_attn.")] = tensor
        else:
            renamed[name] = tensor
    for joined, projections in split.items():
        renamed[joined] = _joined(joined, projections, file)
    return renamed


def _transposed(tensor: LazyTensor) -> LazyTensor:
    return LazyTensor(
        tensor.dtype, tensor.shape[::-1], lambda: np.ascontiguousarray(tensor.read().T)
    )


def _joined(name: str, projections: dict[str, LazyTensor], file: CheckpointFile) -> LazyTensor:
    missing = [part for part in _PROJECTIONS if part not in projections]
    if missing:
        raise ValueError(
            f"{file.path}: {', '.join(missing)} of {name} missing; download the checkpoint again"
        )
    parts = [projections[part] for part in _PROJECTIONS]
    if len({(part.dtype, part.shape) for part in parts}) != 1 or not parts[0].shape:
        found = ", ".join(f"{part.dtype} {part.shape}" for part in parts)
        raise ValueError(
            f"{file.path}: expected query, key and value weights of {name} of equal type and "
            f"shape, found {found}; the file is damaged"
        )
    shape = (3 * parts[0].shape[0], *parts[0].shape[1:])
    return LazyTensor(parts[0].dtype, shape, partial(_read_joined, parts))


def _read_joined(parts: list[LazyTensor]) -> np.ndarray:
    return np.concatenate([part.read() for part in parts])
