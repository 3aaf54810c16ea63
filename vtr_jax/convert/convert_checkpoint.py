"""A checkpoint file of any known program to a retriever directory, with a report.

convert_checkpoint("ViT-B-32.pt", "clip-b32")
convert_checkpoint("pytorch_model.bin.4", "msrvtt", recipe="clip4clip")
convert_checkpoint("ViT-B-32.pt", "fresh", recipe="clip4clip", sim_header="seqTransf")
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vtr_jax.checkpoint import check_new_directory, write_retriever
from vtr_jax.convert.checkpoint_file import CheckpointFile, open_checkpoint, strip_prefix
from vtr_jax.convert.from_state_dict import config_of_state_dict
from vtr_jax.convert.huggingface_names import openai_names
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.names.params import params_from_original
from vtr_jax.convert.sizes import split_options
from vtr_jax.models.clip import TOKENISER_VOCABULARY
from vtr_jax.models.initialise import initialise_from_clip
from vtr_jax.models.recipes import RetrieverConfig, recipe_named
from vtr_jax.models.retriever import Retriever, abstract_retriever


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
        lines = [
            f"read     {self.source}: {self.format}, sha256 {self.sha256[:16]}...",
            f"recipe   {self.config.recipe} {dict(self.config.options) or ''}".rstrip(),
            f"vision   {vision.layers} layers, width {vision.width}, {vision.heads} heads, patch "
            f"{vision.patch_size} ({vision.linear_patch}), {vision.image_resolution} pixels",
            f"text     {text.layers} layers, width {text.width}, {text.heads} heads, "
            f"{text.context_length} tokens, vocabulary {text.vocab_size}",
            f"joint    width {text.embed_dim}; {self.parameters:,} parameters",
            *(f"note     {note}" for note in self.notes),
            *(f"assumed  {assumption}" for assumption in self.assumed),
        ]
        return "\n".join(lines)


def _facts(file: CheckpointFile, given: dict[str, Any]) -> dict[str, Any]:
    """Tower options from config.json and from the caller, refused where they disagree."""
    facts = file.facts
    told = {
        "vision_heads": facts.vision_heads,
        "text_heads": facts.text_heads,
        "activation": facts.activation,
        "layer_norm_eps": facts.layer_norm_eps,
        "end_of_text_id": facts.eos_token_id if facts.eos_rule == "first_eos" else None,
    }
    told = {name: value for name, value in told.items() if value is not None}
    for name in told.keys() & given.keys():
        if told[name] != given[name]:
            raise ValueError(
                f"{file.path}: option {name}={given[name]} contradicts its config.json, which "
                f"says {told[name]}"
            )
    return {**told, **given}


def _assumptions(config: RetrieverConfig, known: dict[str, Any]) -> tuple[str, ...]:
    vision, text = config.clip.vision, config.clip.text
    guesses = {
        "activation": f"activation {vision.activation}, as OpenAI's models (or: --activation=gelu)",
        "vision_heads": f"{vision.heads} vision heads = width / 64 (or: --vision_heads=N)",
        "text_heads": f"{text.heads} text heads = width / 64 (or: --text_heads=N)",
    }
    return tuple(guess for name, guess in guesses.items() if known.get(name) is None)


def _clip_names(file: CheckpointFile, recipe: str) -> CheckpointFile:
    """The file with CLIP's own names bare, where nothing but CLIP lies under a prefix."""
    prefixed = bool(file.tensors) and all(name.startswith("clip.") for name in file.tensors)
    return strip_prefix(file, "clip.") if recipe == "clip" and prefixed else file


def _is_bare_clip(file: CheckpointFile, recipe: str) -> bool:
    prefix = NAME_TABLES[recipe].clip_prefix
    return bool(prefix) and "visual.proj" in file.tensors


def _read(file: CheckpointFile, recipe: str, options: dict[str, Any]) -> Retriever:
    """The retriever whose parameters are in the file, in the file's dtypes."""
    what = str(file.path)
    config = config_of_state_dict(file.tensors, recipe, what, **options)
    abstract = abstract_retriever(config).params
    params = params_from_original(
        file.tensors, NAME_TABLES[recipe], abstract, dtype=None, what=what
    )
    return Retriever(params, {}, config)


def convert_checkpoint(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    recipe: str = "clip",
    *,
    seed: int = 0,
    **options: Any,
) -> ConversionReport:
    """Convert a checkpoint file into a retriever directory, without PyTorch.

    source: an OpenAI archive, a torch.save file, a Hugging Face folder or safetensors file, of
    CLIP or of a trained retriever. recipe: which system's retriever it becomes; CLIP weights for
    another recipe start one, what they lack drawn from seed. options: the recipe's, spelt as the
    original's flags, and activation, vision_heads, text_heads where names and shapes do not tell.
    Raises FileNotFoundError, FileExistsError, or one ValueError naming all that does not fit;
    then nothing is left behind.
    """
    known = recipe_named(recipe)
    check_new_directory(directory)
    given, own = split_options(known, options)
    file = _clip_names(openai_names(open_checkpoint(Path(source))), recipe)
    towers = _facts(file, given)
    notes = file.notes
    if _is_bare_clip(file, recipe):
        clip = _read(file, "clip", towers)
        retriever = initialise_from_clip(clip, recipe, jax.random.key(seed), own)
        notes = (*notes, f"CLIP weights start a {recipe}; what they lack is drawn from seed {seed}")
    else:
        retriever = _read(file, recipe, {**towers, **own})
    vocabulary = retriever.config.clip.text.vocab_size
    if vocabulary < TOKENISER_VOCABULARY:
        notes = (
            *notes,
            f"vocabulary of {vocabulary}, the tokeniser has {TOKENISER_VOCABULARY}: words wrap "
            "around, and captions mean something only to a tower trained so",
        )
    report = ConversionReport(
        source=file.path.absolute().name,
        format=file.format,
        sha256=file.sha256,
        config=retriever.config,
        parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(retriever.params)),
        notes=notes,
        assumed=_assumptions(retriever.config, towers),
    )
    write_retriever(directory, retriever.config, retriever.params, facts=report.facts())
    return report
