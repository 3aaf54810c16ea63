"""What Hugging Face's config.json says about a CLIP beyond the shapes of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtr_jax.convert.checkpoint_file import CheckpointFacts

# Hugging Face leaves out of config.json what equals these values of its CLIPConfig.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "vision": {
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    "text": {
        "num_attention_heads": 8,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "eos_token_id": 49407,
    },
}
# By the names of transformers' ACT2FN; the tanh approximations differ in rounding only.
ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
# Before transformers 4.31 every config said 2, whatever the tokenizer; it means the old pooling.
_OLD_EOS = 2


def read_facts(config: dict[str, Any] | None, path: Path) -> CheckpointFacts:
    """The facts in a CLIPModel's config.json; all None without one.

    ValueError, naming `path`, where the configuration is another model's, where a value cannot be,
    and where the towers differ in activation or epsilon.
    """
    if config is None:
        return CheckpointFacts()
    if config.get("model_type", "clip") != "clip":
        raise ValueError(
            f"{path}: expected model_type clip in config.json, found "
            f"{str(config['model_type'])[:50]!r}; only CLIPModel checkpoints can be read"
        )
    vision, text = _section(config, "vision", path), _section(config, "text", path)
    for key in ("hidden_act", "layer_norm_eps"):
        if vision[key] != text[key]:
            raise ValueError(
                f"{path}: expected one {key} for both towers in config.json, found "
                f"{vision[key]!r} (vision) and {text[key]!r} (text)"
            )
    eos_token_id = text["eos_token_id"]
    return CheckpointFacts(
        vision_heads=vision["num_attention_heads"],
        text_heads=text["num_attention_heads"],
        activation=_activation(vision["hidden_act"], path),
        layer_norm_eps=float(vision["layer_norm_eps"]),
        eos_rule="argmax" if eos_token_id == _OLD_EOS else "first_eos",
        eos_token_id=eos_token_id,
    )


def _activation(name: str, path: Path) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(
            f"{path}: hidden_act: expected one of {', '.join(ACTIVATIONS)} in config.json, found "
            f"{name[:50]!r}; checkpoints with another activation cannot be converted"
        )
    return ACTIVATIONS[name]


def _section(config: dict[str, Any], tower: str, path: Path) -> dict[str, Any]:
    # Where the older entry is present, transformers lets it decide alone.
    section = config.get(f"{tower}_config_dict")
    if section is None:
        section = config.get(f"{tower}_config")
    if section is None:
        section = {}
    if not isinstance(section, dict):
        raise ValueError(f"{path}: expected an object {tower}_config in config.json")
    values = {**_DEFAULTS[tower], **{k: section[k] for k in _DEFAULTS[tower] if k in section}}
    for key, value in values.items():
        if not _is_possible(value, _DEFAULTS[tower][key]):
            raise ValueError(
                f"{path}: expected {key} like {_DEFAULTS[tower][key]!r} in config.json's "
                f"{tower}_config, found {str(value)[:50]!r}"
            )
    return values


def _is_possible(value: object, example: object) -> bool:
    if isinstance(example, str):
        return isinstance(value, str)
    kinds = (int,) if isinstance(example, int) else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and value > 0
