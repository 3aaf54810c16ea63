"""Facts that names and shapes cannot tell, in the metadata of the files that vtr_jax writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vtr_jax.models.recipes import RECIPES, RetrieverConfig
from vtr_jax.preprocessing import Preprocessing

_KEY = "vtr_jax"
_TOWERS = ("activation", "vision_heads", "text_heads", "layer_norm_eps", "end_of_text_id")
# What every original program has in its code, whatever the file says.
_HARD_CODED = {"activation": "quick_gelu", "layer_norm_eps": 1e-5, "end_of_text_id": None}


@dataclass(frozen=True)
class WrittenFacts:
    """What a file written by vtr_jax says of itself.

    system: whose names it has. towers: options of the towers by name. options: the recipe's.
    notes: what the reader should know. preprocessing: as Preprocessing.to_json, None in files of
    earlier versions. assumed: what the first conversion assumed.
    """

    system: str
    towers: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    preprocessing: dict[str, Any] | None = None
    assumed: tuple[str, ...] = ()


def facts_to_metadata(config: RetrieverConfig, system: str) -> dict[str, str]:
    """Return the metadata of a safetensors file with a retriever's parameters.

    Args:
        config: The retriever's description.
        system: Whose names the file has; the recipe's options are stored for its own names only.
    """
    facts: dict[str, Any] = {
        "towers": _tower_facts(config),
        "preprocessing": config.preprocessing.to_json(),
        "assumed": list(config.assumed),
    }
    if system == config.recipe:
        facts["options"] = dict(config.options)
    # "pt" is what PyTorch's and Hugging Face's readers expect to be told.
    return {"format": "pt", "system": system, _KEY: json.dumps(facts)}


def facts_from_metadata(metadata: Mapping[str, str], what: str) -> WrittenFacts | None:
    """Return the facts in a file's metadata, None for a file of other programs.

    Raises:
        ValueError: The metadata is damaged; the message begins with `what`.
    """
    system = metadata.get("system")
    if system not in RECIPES:
        return None
    if _KEY not in metadata:  # written by an early version
        return WrittenFacts(system)
    try:
        facts = json.loads(metadata[_KEY])
        towers, options = dict(facts["towers"]), dict(facts.get("options") or {})
        preprocessing = facts.get("preprocessing")
        preprocessing = None if preprocessing is None else dict(preprocessing)
        assumed = tuple(map(str, facts.get("assumed") or ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{what}: expected facts as JSON in its metadata ({error})") from error
    note = "activation, heads, epsilon, pooling and preprocessing are those in the file's metadata"
    known = {k: towers[k] for k in _TOWERS if k in towers}
    return WrittenFacts(system, known, options, (note,), preprocessing, assumed)


def hard_coded_differences(config: RetrieverConfig, system: str) -> tuple[str, ...]:
    """Return what the original program would compute differently, one sentence per fact."""
    facts = _tower_facts(config)
    differ = [name for name, value in _HARD_CODED.items() if facts[name] != value]
    if facts["vision_heads"] * 64 != config.clip.vision.width:
        differ.append("vision_heads")
    if facts["text_heads"] * 64 != config.clip.text.width:
        differ.append("text_heads")
    program = "openai/CLIP" if system == "clip" else system
    return tuple(_preprocessing_differences(config.preprocessing, program)) + tuple(
        f"{program} hard-codes {_rule(name)}, and this model has {name}={facts[name]}: in that "
        "program it would give other scores; change the program's code, or use "
        "--to=huggingface, which stores it"
        for name in differ
    )


def _preprocessing_differences(settings: Preprocessing, program: str) -> Iterator[str]:
    openai = Preprocessing()
    for what, ours, theirs in (
        ("the pixels' scale", settings.pixel_text, openai.pixel_text),
        ("the resize mode", settings.resize_mode, openai.resize_mode),
        ("the interpolation", settings.interpolation, openai.interpolation),
        ("the tokenizer", str(settings.tokenizer), str(openai.tokenizer)),
    ):
        if ours != theirs:
            yield (
                f"{program} hard-codes {what} ({theirs}), and this model has {ours}: change it in "
                "that program"
            )


def _tower_facts(config: RetrieverConfig) -> dict[str, Any]:
    vision, text = config.clip.vision, config.clip.text
    return {
        "activation": vision.activation,
        "vision_heads": vision.heads,
        "text_heads": text.heads,
        "layer_norm_eps": vision.layer_norm_eps,
        "end_of_text_id": text.end_of_text_id,
    }


def _rule(name: str) -> str:
    rules = {
        "activation": "QuickGELU",
        "layer_norm_eps": "a LayerNorm epsilon of 1e-05",
        "end_of_text_id": "pooling at the largest token id",
    }
    return rules.get(name, "heads of width 64")
