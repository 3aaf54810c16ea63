"""A checkpoint file of any known program to a retriever directory, with a report.

convert_checkpoint("ViT-B-32.pt", "clip-b32")
convert_checkpoint("pytorch_model.bin.4", "msrvtt", recipe="clip4clip")
convert_checkpoint("ViT-B-32.pt", "fresh", recipe="clip4clip", sim_header="seqTransf")
convert_checkpoint("best.pth", "drl", recipe=None)  # told by the names in the file
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vtr_jax.checkpoint import check_new_directory, write_retriever
from vtr_jax.convert.checkpoint_file import CheckpointFile, open_checkpoint, strip_prefix
from vtr_jax.convert.conversion_report import ConversionReport, assumptions
from vtr_jax.convert.families import family_hint
from vtr_jax.convert.foreign_files import refuse_relatives
from vtr_jax.convert.from_state_dict import config_of_state_dict
from vtr_jax.convert.huggingface_folder import WEIGHT_FILES
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
from vtr_jax.convert.names.params import check_names, params_from_original
from vtr_jax.convert.open_clip import plain_names
from vtr_jax.convert.preprocessing_facts import with_file_settings, with_protocol
from vtr_jax.convert.recognise import Recognised, recognise
from vtr_jax.convert.safetensors_file import is_safetensors, read_metadata
from vtr_jax.convert.sizes import TOWER_OPTIONS, resized_positions, split_options
from vtr_jax.convert.written_facts import WrittenFacts, facts_from_metadata
from vtr_jax.models.initialise import initialise_from_clip
from vtr_jax.models.recipes import RECIPES, recipe_named
from vtr_jax.models.retriever import Retriever, abstract_retriever, initial_state
from vtr_jax.vocabulary import TOKENISER_VOCABULARY


def _facts(
    file: CheckpointFile, given: dict[str, Any], stored: WrittenFacts | None
) -> dict[str, Any]:
    """Tower options from the file itself, its configuration and the caller, if they agree."""
    facts = file.facts
    source = facts.config_name if stored is None else "metadata"
    told = {
        "vision_heads": facts.vision_heads,
        "text_heads": facts.text_heads,
        "activation": facts.activation,
        "layer_norm_eps": facts.layer_norm_eps,
        "end_of_text_id": facts.eos_token_id if facts.eos_rule == "first_eos" else None,
    }
    told = {name: value for name, value in told.items() if value is not None}
    if stored is not None:
        for name, value in stored.towers.items():
            if value is not None and name in told and told[name] != value:
                raise ValueError(
                    f"{file.path}: {facts.config_name} says {name}={told[name]}, its weight file's "
                    f"metadata {value}; restore the configuration that was written with the weights"
                )
        told |= {name: value for name, value in stored.towers.items() if value is not None}
    for name in told.keys() & given.keys():
        if told[name] != given[name]:
            raise ValueError(
                f"{file.path}: option {name}={given[name]} contradicts its {source}, "
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
    stored: WrittenFacts | None = None,
) -> tuple[Retriever, tuple[str, ...]]:
    """The retriever whose parameters are in the file, in the file's dtypes, and notes."""
    what = str(file.path)
    try:
        tensors, renaming = with_model_names(file.tensors, recipe)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    config = config_of_state_dict(tensors, recipe, what, **options)
    written = None if stored is None else stored.preprocessing
    config = with_file_settings(config, file, options, loading.image_resolution, written)
    tensors, notes = put_together(tensors, config, loading, seed)
    abstract = abstract_retriever(config).params
    try:
        check_names(tensors, NAME_TABLES[recipe], abstract, what)
    except ValueError as error:
        raise ValueError(f"{error}{options_that_help(tensors, config, loading)}") from error
    params = params_from_original(
        tensors,
        NAME_TABLES[recipe],
        abstract,
        dtype=None,
        what=what,
        allow_nonfinite=loading.allow_nonfinite,
    )
    state = initial_state(config, jax.random.key(0))
    return Retriever(params, state, config), (*renaming, *notes)


def _stored_facts(file: CheckpointFile) -> WrittenFacts | None:
    """What vtr_jax stored in the file, if it wrote it; its configuration must not contradict."""
    path = file.path / WEIGHT_FILES[0] if file.path.is_dir() else file.path
    if not path.is_file() or not is_safetensors(path):
        return None
    return facts_from_metadata(read_metadata(path), str(path))


def _activation_of_run(file: CheckpointFile, towers: dict[str, Any]) -> tuple[str, str] | None:
    """The activation of an open_clip training file, by the model's name in it, and the reason.

    Raises ValueError that asks for the activation if the file does not name its model.
    """
    if file.run_name is None or towers.get("activation") is not None:
        return None
    model = re.search(r"(?:^|-)model_(.+?)-lr_", file.run_name)
    if model is None:
        raise ValueError(
            f"{file.path}: expected an activation for this training file of open_clip, found none "
            f"(its run is called {file.run_name[:60]!r}, which names no model); give "
            "--activation=gelu or --activation=quick_gelu, or put open_clip_config.json next to it"
        )
    activation = "quick_gelu" if "quickgelu" in model[1] else "gelu"
    return activation, (
        f"activation {activation}, as open_clip's model {model[1]}, which the training file names "
        "(or: --activation=quick_gelu, if it was trained from --pretrained openai or with "
        "--force-quick-gelu)"
    )


def _recognised(
    file: CheckpointFile, options: dict[str, Any], stored: WrittenFacts | None
) -> Recognised:
    """The recipe that the file's names tell; options that only others have are said so."""
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    own = options.keys() - set(TOWER_OPTIONS)
    if stored is not None and stored.system in RECIPES:
        told = Recognised(stored.system, "the file says so itself")
    else:
        told = recognise(shapes, str(file.path), own)
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


def _family_notes(
    file: CheckpointFile, retriever: Retriever, known: dict[str, Any]
) -> tuple[str, ...]:
    """Which published weights a file without a configuration may be, if it matters."""
    needed = ("activation", "image_mean", "image_std", "resize_mode")
    if file.config is not None or all(known.get(name) is not None for name in needed):
        return ()
    hint = family_hint(retriever.config.clip)
    return () if hint is None else (hint,)


def _report(
    file: CheckpointFile,
    retriever: Retriever,
    towers: dict[str, Any],
    notes: tuple[str, ...],
    guessed: tuple[str, ...],
) -> ConversionReport:
    rule = True if file.facts.eos_rule or towers.get("end_of_text_id") is not None else None
    known = {"end_of_text_rule": rule, **towers}
    return ConversionReport(
        source=file.path.absolute().name,
        format=file.format,
        sha256=file.sha256,
        config=retriever.config,
        parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(retriever.params)),
        notes=(*notes, *_vocabulary_notes(retriever), *_family_notes(file, retriever, towers)),
        assumed=tuple(dict.fromkeys((*guessed, *assumptions(retriever.config, known)))),
    )


def _open(source: Path, loading: LoadingOptions) -> CheckpointFile:
    """The checkpoint under OpenAI's names, with the frames' size that was asked for."""
    file = open_checkpoint(source, loading.entry, loading.prefix)
    refuse_relatives(file.tensors, str(file.path))
    file = plain_names(openai_names(file))
    if loading.image_resolution is None:
        return file
    tensors = resized_positions(file.tensors, loading.image_resolution, str(file.path))
    note = f"position embeddings interpolated to {loading.image_resolution} pixels (bicubic)"
    return dataclasses.replace(file, tensors=tensors, notes=(*file.notes, note))


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
    those of LoadingOptions merge the file with CLIP, choose one of several models in it, resize
    its images, or let it lack parameters, have others, or have values that are not finite.
    Raises FileNotFoundError, FileExistsError, or one ValueError naming all that does not fit;
    then nothing is left behind.
    """
    loading, options = take_loading_options(options)
    if recipe is not None:
        split_options(recipe_named(recipe), options)
    check_new_directory(directory)
    file = _open(Path(source), loading)
    stored = _stored_facts(file)
    notes: tuple[str, ...] = () if stored is None else stored.notes
    if recipe is None:
        told = _recognised(file, options, stored)
        recipe, notes = told.recipe, (*notes, str(told))
    given, own = split_options(recipe_named(recipe), options)
    file = _clip_names(file, recipe)
    towers = _facts(file, given, stored)
    guessed = () if stored is None else stored.assumed
    if (run := _activation_of_run(file, towers)) is not None:
        towers["activation"], guessed = run[0], (run[1],)
    if stored is not None and stored.system == recipe:
        own = {**stored.options, **own}
    notes = (*file.notes, *notes)
    if _is_bare_clip(file, recipe):
        clip, loaded = _read(file, "clip", towers, loading, seed, stored)
        retriever = initialise_from_clip(clip, recipe, jax.random.key(seed), own)
        config = with_protocol(retriever.config, given)
        retriever = dataclasses.replace(retriever, config=config)
        notes = (*notes, f"CLIP weights start a {recipe}; what they lack is drawn from seed {seed}")
    else:
        retriever, loaded = _read(file, recipe, {**towers, **own}, loading, seed, stored)
    known = {**towers, "end_of_text_rule": True} if stored and stored.towers else towers
    report = _report(file, retriever, known, (*notes, *loaded), guessed)
    config = dataclasses.replace(retriever.config, assumed=report.assumed)
    write_retriever(
        directory, config, retriever.params, state=retriever.state, facts=report.facts()
    )
    return report
