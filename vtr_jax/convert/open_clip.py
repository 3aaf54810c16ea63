"""open_clip's layouts: names to OpenAI's, its configuration file, and what is refused by name.

Its plain Vision Transformers have OpenAI's names already; those of models with `custom_text` keep
the text tower under `text.`. Towers of timm or transformers, poolers and decoders are others.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtr_jax.convert.checkpoint_file import CheckpointFacts, CheckpointFile
from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.merge import is_internvideo

CONFIG_NAME = "open_clip_config.json"

_REFUSED = (
    (r"visual\.trunk\..*", "an image tower of timm (ConvNeXt, ViTamin, EVA, SigLIP, ...)"),
    (r"visual\.attn_pool.*", "an attentional pooler (CoCa)"),
    (r"text_decoder\..*", "CoCa's text decoder"),
    (r"(text\.)?cls_emb", "a text tower with a class token (CoCa)"),
    (r"text\.(transformer\.(?!resblocks\.)|proj\.).*", "a text tower of transformers"),
    (r".*\.ls_[12]\.gamma", "layer scale"),
    (r".*\.attn\.(ln_[qk]|logit_scale|head_scale|q_norm|k_norm).*", "scaled attention"),
    (r"logit_bias", "a sigmoid loss (SigLIP)"),
)
_TEXT = "text."
_TEXT_MARKER = "text.token_embedding.weight"
# Options of its configuration under which a tower is another than CLIP's, with CLIP's values.
_PLAIN: dict[str, dict[str, Any]] = {
    "vision_cfg": {
        "timm_model_name": None,
        "attentional_pool": False,
        "no_ln_pre": False,
        "final_ln_after_pool": False,
        "pool_type": "tok",
    },
    "text_cfg": {
        "hf_model_name": None,
        "no_causal_mask": False,
        "embed_cls": False,
        "final_ln_after_pool": False,
    },
}
_PLAIN_BLOCK: dict[str, Any] = {
    "mlp_ratio": 4.0,
    "ls_init_value": None,
    "block_type": None,
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn")
        + ("scale_fc",),
        False,
    ),
}
# Other options that are read here, follow from the shapes, or change training only.
_READ: dict[str, tuple[str, ...]] = {
    "model_cfg": ("embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text")
    + ("init_logit_scale", "nonscalar_logit_scale", "output_dict", "cast_dtype"),
    "vision_cfg": ("layers", "width", "head_width", "patch_size", "image_size", "patch_dropout")
    + ("act_kwargs", "norm_kwargs", "output_tokens", "pos_embed_type")
    + ("attn_pooler_queries", "attn_pooler_heads", "input_patchnorm", "global_average_pool")
    + ("timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop")
    + ("timm_drop_path",),
    "text_cfg": ("context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_mode")
    + ("tokenizer_kwargs", "width", "heads", "layers", "pad_id", "eos_id", "pool_type")
    + ("output_tokens", "act_kwargs", "norm_kwargs", "hf_model_pretrained", "hf_proj_type")
    + ("hf_pooler_type",),
}
# Options of older or unusual models, with the value that leaves the tower as it is.
_IDLE: dict[str, Any] = {
    "input_patchnorm": False,
    "global_average_pool": False,
    "nonscalar_logit_scale": False,
    "proj_bias": False,
    "proj_type": "linear",
    "init_logit_bias": None,
}


def plain_names(file: CheckpointFile) -> CheckpointFile:
    """The checkpoint under OpenAI's names, if it is one of open_clip's plain towers.

    Files of other programs are given back as they are. Raises ValueError, naming a tensor, for
    the parts of open_clip's other architectures.
    """
    if is_internvideo(file.tensors):  # it has a CoCa beside what retrieval reads
        return file
    _refuse_others(file)
    notes, tensors = file.notes, file.tensors
    if _TEXT_MARKER in tensors and "visual.proj" in tensors:
        tensors = {name.removeprefix(_TEXT): tensor for name, tensor in tensors.items()}
        notes = (*notes, f"removed the prefix {_TEXT!r} from the names of the text tower")
    scale = tensors.get("logit_scale")
    if scale is not None and scale.shape == (1,):
        tensors = {**tensors, "logit_scale": _scalar(scale)}
    return dataclasses.replace(file, tensors=tensors, notes=notes)


def open_clip_facts(config: Mapping[str, Any], path: Path) -> CheckpointFacts:
    """What an open_clip_config.json tells beyond shapes.

    Raises ValueError, naming `path`, for a value that cannot be, and for towers that are not
    CLIP's Vision Transformer and causal text Transformer.
    """
    model = _section(config, "model_cfg", path)
    vision, text = _section(model, "vision_cfg", path), _section(model, "text_cfg", path)
    for name, section in (("vision_cfg", vision), ("text_cfg", text)):
        for option, value in {**_PLAIN[name], **_PLAIN_BLOCK}.items():
            if section.get(option, value) not in (value, "default"):
                raise ValueError(
                    f"{path}: {name} has {option}={section[option]!r}, which is another tower "
                    f"than CLIP's ({option}={value}); only those can be converted"
                )
    for name, section in (("model_cfg", model), ("vision_cfg", vision), ("text_cfg", text)):
        _check_known(name, section, path)
    return CheckpointFacts(
        vision_heads=_whole(vision, "width", 768, path) // _whole(vision, "head_width", 64, path),
        text_heads=_whole(text, "heads", 8, path),
        activation=_activation(model, vision, text, path),
        layer_norm_eps=_epsilon(vision, text, path),
        config_name=CONFIG_NAME,
        **_pooling(text, path),
    )


def _refuse_others(file: CheckpointFile) -> None:
    for name, tensor in file.tensors.items():
        for pattern, what in _REFUSED:
            if re.fullmatch(f"(?:clip\\.)?{pattern}", name):
                raise ValueError(
                    f"{file.path}: {name} belongs to {what}; of open_clip's models only those "
                    "with CLIP's own two Transformers can be converted (ViT-B-32, ViT-L-14, "
                    "ViT-H-14, ...)"
                )
        if name.endswith("resblocks.0.mlp.c_fc.weight") and len(tensor.shape) == 2:
            wide, width = tensor.shape
            if wide != 4 * width:
                raise ValueError(
                    f"{file.path}: {name} makes {wide} numbers of {width}; only MLPs of four "
                    f"times the width ({4 * width}) can be converted, not those of open_clip's "
                    "ViT-g-14, ViT-bigG-14 and ViT-e-14"
                )
    if "visual.class_embedding" in file.tensors and "visual.ln_pre.weight" not in file.tensors:
        raise ValueError(
            f"{file.path}: visual.ln_pre.weight is missing: an image tower without its first "
            "norm (CLIPA) cannot be converted, or the file is incomplete"
        )


def _scalar(tensor: LazyTensor) -> LazyTensor:
    return LazyTensor(tensor.dtype, (), lambda: tensor.read().reshape(()))


def _section(config: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise ValueError(f"{path}: expected an object {name} in {CONFIG_NAME}, found {section!r}")
    return section


def _whole(section: Mapping[str, Any], name: str, default: int, path: Path) -> int:
    value = section.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{path}: expected {name} like {default} in {CONFIG_NAME}, got {value!r}")
    return value


def _check_known(name: str, section: Mapping[str, Any], path: Path) -> None:
    """Raise ValueError for an option that is neither read nor idle: it may decide a score."""
    known = {*_READ[name], *_IDLE, *(_PLAIN.get(name) or {}), *_PLAIN_BLOCK}
    for option, value in section.items():
        if option in _IDLE and value not in (_IDLE[option], None):
            known.discard(option)
        if option not in known and value is not None:
            raise ValueError(
                f"{path}: {name} has {option}={str(value)[:60]!r}, which cannot be applied; only "
                "checkpoints without it can be converted"
            )


def _activation(
    model: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any], path: Path
) -> str:
    """Return the activation of both towers; act_kwargs are arguments of PyTorch's GELU."""
    kwargs = [dict(part.get("act_kwargs") or {}) for part in (vision, text)]
    if kwargs[0] != kwargs[1]:
        raise ValueError(
            f"{path}: act_kwargs: expected one activation for both towers, found {kwargs[0]} "
            f"(vision_cfg) and {kwargs[1]} (text_cfg); such checkpoints cannot be converted"
        )
    if not kwargs[0]:
        return "quick_gelu" if model.get("quick_gelu") else "gelu"
    names = {"none": "gelu", "tanh": "gelu_tanh"}
    approximate = kwargs[0].get("approximate", "none")
    if model.get("quick_gelu") or kwargs[0].keys() != {"approximate"} or approximate not in names:
        raise ValueError(
            f"{path}: act_kwargs: expected {{'approximate': 'tanh'}} or 'none' of GELU, found "
            f"{kwargs[0]}{' with quick_gelu' if model.get('quick_gelu') else ''}"
        )
    return names[approximate]


def _epsilon(vision: Mapping[str, Any], text: Mapping[str, Any], path: Path) -> float:
    kwargs = [dict(part.get("norm_kwargs") or {}) for part in (vision, text)]
    for option in {*kwargs[0], *kwargs[1]} - {"eps"}:
        raise ValueError(f"{path}: norm_kwargs has {option}, which cannot be applied")
    values = {part.get("eps", 1e-5) for part in kwargs}
    if len(values) != 1:
        raise ValueError(f"{path}: expected one eps for both towers, found {sorted(values)}")
    return float(values.pop())


def _pooling(text: Mapping[str, Any], path: Path) -> dict[str, Any]:
    rule = text.get("pool_type", "argmax")
    if rule == "argmax":
        return {"eos_rule": "argmax"}
    if rule == "eos":
        return {"eos_rule": "first_eos", "eos_token_id": _whole(text, "eos_id", 2, path)}
    raise ValueError(
        f"{path}: texts are pooled by pool_type={rule!r}; only argmax and eos can be converted"
    )
