"""What a conversion read, what it assumed because nothing said so, and what it wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from vtr_jax.convert.sizes import HEAD_WIDTHS
from vtr_jax.models.clip import TextConfig
from vtr_jax.models.recipes import RetrieverConfig
from vtr_jax.models.recipes.clip4clip import CROSS_HEADS


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """What was read, what was assumed, and what was written."""

    source: str
    format: str
    sha256: str
    config: RetrieverConfig
    parameters: int
    notes: tuple[str, ...]
    assumed: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What the retriever directory remembers of its origin."""
        return {
            "source": {"file": self.source, "format": self.format, "sha256": self.sha256},
            "notes": list(self.notes),
            "assumed": list(self.assumed),
        }

    def __str__(self) -> str:
        vision, text = self.config.clip.vision, self.config.clip.text
        settings = self.config.preprocessing
        lines = [
            f"read     {self.source}: {self.format}, sha256 {self.sha256[:16]}...",
            f"recipe   {self.config.recipe} {dict(self.config.options) or ''}".rstrip(),
            f"vision   {vision.layers} layers, width {vision.width}, {vision.heads} heads, patch "
            f"{vision.patch_size} ({vision.linear_patch}), {vision.image_resolution} pixels; "
            f"resized {settings.resize}; {settings.pixel_text}",
            f"text     {text.layers} layers, width {text.width}, {text.heads} heads, "
            f"{text.context_length} tokens, vocabulary {text.vocab_size}; "
            f"tokenizer {settings.tokenizer}, at most {settings.max_words} tokens per caption",
            f"joint    width {text.embed_dim}; {self.parameters:,} parameters",
            f"rules    activation {vision.activation}, LayerNorm epsilon {vision.layer_norm_eps}, "
            f"{_pooling(text)}",
            *(f"note     {note}" for note in self.notes),
            *(f"assumed  {assumption}" for assumption in self.assumed),
        ]
        return "\n".join(lines)


def _pooling(text: TextConfig) -> str:
    if text.end_of_text_id is None:
        return "texts pooled at their largest token id"
    return f"texts pooled at their first token {text.end_of_text_id}"


def assumptions(config: RetrieverConfig, known: Mapping[str, Any]) -> tuple[str, ...]:
    """What neither shapes nor a configuration file nor the caller said, with the option for it.

    known: values by option name; None or absent where nothing said it. end_of_text_rule is True
    where a configuration told the pooling rule, whichever it is.
    """
    vision, text = config.clip.vision, config.clip.text
    head_width = HEAD_WIDTHS.get(vision.width, 64)
    guesses = {
        "activation": f"activation {vision.activation}, as OpenAI's models (or: --activation=gelu)",
        "vision_heads": f"{vision.heads} vision heads = width / {head_width} (or: "
        "--vision_heads=N)",
        "text_heads": f"{text.heads} text heads = width / 64 (or: --text_heads=N)",
        "layer_norm_eps": f"LayerNorm epsilon {vision.layer_norm_eps}, as OpenAI's models (or: "
        "--layer_norm_eps=X)",
        "end_of_text_rule": f"{_pooling(text)}, as OpenAI's models (or: --end_of_text_id=N)",
    }
    unknown = [guess for name, guess in guesses.items() if known.get(name) is None]
    return (*unknown, *config.assumed, *_recipe_guesses(config))


def _recipe_guesses(config: RetrieverConfig) -> Iterator[str]:
    """What neither shapes nor the caller said of the recipe's own modules."""
    options = dict(config.options)
    if options.get("sim_header") == "tightTransf" and options["cross_num_attention_heads"] is None:
        yield (
            f"{CROSS_HEADS} heads in the cross-encoder, as CLIP4Clip's cross config (or: "
            "--cross_num_attention_heads=N)"
        )
    if "return_list" in options and options["return_list"] is None:
        yield (
            f"the last {config.size('temporal_blocks')} layers feed the temporal token, as "
            "InternVideo's models (or: --return_list=8,9,10,11)"
        )
