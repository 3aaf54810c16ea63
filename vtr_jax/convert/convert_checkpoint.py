"""A checkpoint file of any known program to a retriever directory, with a report.

convert_checkpoint("ViT-B-32.pt", "clip-b32")
convert_checkpoint("pytorch_model.bin.4", "msrvtt", recipe="clip4clip")
convert_checkpoint("ViT-B-32.pt", "fresh", recipe="clip4clip", sim_header="seqTransf")
convert_checkpoint("best.pth", "drl", recipe=None)  # told by the names in the file
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
from vtr_jax.convert.conversion_report import ConversionReport, assumptions
from vtr_jax.convert.from_state_dict import config_of_state_dict
from vtr_jax.convert.huggingface_names import openai_names
from vtr_jax.convert.loading import (
    LoadingOptions,
    options_that_help,
    put_together,
    take_loading_options,
    with_model_names,
)
from vtr_jax.convert.merge import is_internvideo
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.names.params import params_from_original
from vtr_jax.convert.open_clip import plain_names
from vtr_jax.convert.preprocessing_facts import with_file_settings, with_protocol
from vtr_jax.convert.recognise import Recognised, recognise
from vtr_jax.convert.safetensors_file import is_safetensors, read_metadata
from vtr_jax.convert.sizes import TOWER_OPTIONS, split_options
from vtr_jax.models.initialise import initialise_from_clip
from vtr_jax.models.recipes import RECIPES, recipe_named
from vtr_jax.models.retriever import Retriever, abstract_retriever, initial_state
from vtr_jax.vocabulary import TOKENISER_VOCABULARY


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
                f"{file.path}: option {name}={given[name]} contradicts its {facts.config_name}, "
                f"which says {told[name]}"
            )
    return {**told, **given}


def _clip_names(file: CheckpointFile, recipe: str) -> CheckpointFile:
    """The file with CLIP's own names bare, where nothing but CLIP lies under a prefix."""
    prefixed = bool(file.tensors) and all(name.startswith("clip.") for name in file.tensors)
    return strip_prefix(file, "clip.") if recipe == "clip" and prefixed else file


def _is_bare_clip(file: CheckpointFile, recipe: str) -> bool:
    prefix = NAME_TABLES[recipe].clip_prefix
    return bool(prefix) and "visual.proj" in file.tensors and not is_internvideo(file.tensors)


def _read(
    file: CheckpointFile,
    recipe: str,
    options: dict[str, Any],
    loading: LoadingOptions,
    seed: int,
) -> tuple[Retriever, tuple[str, ...]]:
    """The retriever whose parameters are in the file, in the file's dtypes, and notes."""
    what = str(file.path)
    try:
        tensors, renaming = with_model_names(file.tensors, recipe)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    config = config_of_state_dict(tensors, recipe, what, **options)
    config = with_file_settings(config, file, options)
    tensors, notes = put_together(tensors, config, loading, seed)
    abstract = abstract_retriever(config).params
    try:
        params = params_from_original(tensors, NAME_TABLES[recipe], abstract, dtype=None, what=what)
    except ValueError as error:
        raise ValueError(f"{error}{options_that_help(tensors, config, loading)}") from error
    state = initial_state(config, jax.random.key(0))
    return Retriever(params, state, config), (*renaming, *notes)


def _said_by_the_file(file: CheckpointFile) -> Recognised | None:
    """The system whose names write_back gave the file, if it did."""
    if file.path.is_dir() or not is_safetensors(file.path):
        return None
    system = read_metadata(file.path).get("system")
    return Recognised(system, "the file says so itself") if system in RECIPES else None


def _recognised(file: CheckpointFile, options: dict[str, Any]) -> Recognised:
    """The recipe that the file's names tell; options that only others have are said so."""
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    own = options.keys() - set(TOWER_OPTIONS)
    told = _said_by_the_file(file) or recognise(shapes, str(file.path), own)
    try:
        split_options(recipe_named(told.recipe), options)
    except ValueError as error:
        raise ValueError(f"{error} ({told}; for another, give --recipe=NAME)") from error
    return told


def _vocabulary_notes(retriever: Retriever) -> tuple[str, ...]:
    vocabulary = retriever.config.clip.text.vocab_size
    if vocabulary >= TOKENISER_VOCABULARY:
        return ()
    return (
        f"vocabulary of {vocabulary}, the tokeniser has {TOKENISER_VOCABULARY}: words wrap "
        "around, and captions mean something only to a tower trained so",
    )


def _report(
    file: CheckpointFile, retriever: Retriever, towers: dict[str, Any], notes: tuple[str, ...]
) -> ConversionReport:
    rule = True if file.facts.eos_rule or towers.get("end_of_text_id") is not None else None
    return ConversionReport(
        source=file.path.absolute().name,
        format=file.format,
        sha256=file.sha256,
        config=retriever.config,
        parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(retriever.params)),
        notes=(*notes, *_vocabulary_notes(retriever)),
        assumed=assumptions(retriever.config, {**towers, "end_of_text_rule": rule}),
    )


def convert_checkpoint(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    recipe: str | None = "clip",
    *,
    seed: int = 0,
    **options: Any,
) -> ConversionReport:
    """Convert a checkpoint file into a retriever directory, without PyTorch.

    source: an OpenAI archive, a torch.save file, a Hugging Face folder or safetensors file, of
    CLIP or of a trained retriever. recipe: which system's retriever it becomes, None for the one
    that the file's names tell; CLIP weights for another recipe start one, what they lack drawn
    from seed. options: the recipe's, spelt as the original's flags, and activation,
    vision_heads, text_heads, layer_norm_eps, end_of_text_id where names and shapes do not tell;
    those of LoadingOptions merge the file with CLIP, or let it lack parameters or have others.
    Raises FileNotFoundError, FileExistsError, or one ValueError naming all that does not fit;
    then nothing is left behind.
    """
    loading, options = take_loading_options(options)
    if recipe is not None:
        split_options(recipe_named(recipe), options)
    check_new_directory(directory)
    file = plain_names(openai_names(open_checkpoint(Path(source))))
    notes: tuple[str, ...] = ()
    if recipe is None:
        told = _recognised(file, options)
        recipe, notes = told.recipe, (str(told),)
    given, own = split_options(recipe_named(recipe), options)
    file = _clip_names(file, recipe)
    towers = _facts(file, given)
    notes = (*file.notes, *notes)
    if _is_bare_clip(file, recipe):
        clip, loaded = _read(file, "clip", towers, loading, seed)
        retriever = initialise_from_clip(clip, recipe, jax.random.key(seed), own)
        config = with_protocol(retriever.config, given)
        retriever = dataclasses.replace(retriever, config=config)
        notes = (*notes, f"CLIP weights start a {recipe}; what they lack is drawn from seed {seed}")
    else:
        retriever, loaded = _read(file, recipe, {**towers, **own}, loading, seed)
    report = _report(file, retriever, towers, (*notes, *loaded))
    config = dataclasses.replace(retriever.config, assumed=report.assumed)
    write_retriever(
        directory, config, retriever.params, state=retriever.state, facts=report.facts()
    )
    return report
