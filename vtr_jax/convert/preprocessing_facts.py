"""Preprocessing of a converted checkpoint: read from its files, given by hand, or assumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vtr_jax.convert.checkpoint_file import CheckpointFile
from vtr_jax.convert.huggingface_folder import read_config
from vtr_jax.convert.image_settings import huggingface_image_settings, open_clip_image_settings
from vtr_jax.convert.tokenizer_settings import (
    check_tokenizer,
    huggingface_tokenizer,
    open_clip_tokenizer,
    tokenizer_of_file,
)
from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.recipes import RetrieverConfig
from vtr_jax.models.recipes.recipe import default_preprocessing
from vtr_jax.preprocessing import (
    CLIP_TOKENIZER,
    PREPROCESSING_OPTIONS,
    PROTOCOL_SETTINGS,
    Preprocessing,
    protocol_assumption,
)
from vtr_jax.vocabulary import TOKENISER_VOCABULARY

# Files of a Hugging Face folder with image settings, with the entry that has them, if nested.
_PROCESSORS = (
    ("preprocessor_config.json", None),
    ("processor_config.json", "image_processor"),
    ("video_preprocessor_config.json", None),
    ("processor_config.json", "video_processor"),
)


def with_given(config: RetrieverConfig, given: Mapping[str, Any]) -> RetrieverConfig:
    """Return the config with the preprocessing that options state.

    given: options by the names of PREPROCESSING_OPTIONS; others are
    ignored. Raises ValueError for values out
    of their range.
    """
    settings = given_settings(given)
    if not settings:
        return config
    preprocessing = config.preprocessing.replace(**settings)
    return dataclasses.replace(config, preprocessing=preprocessing)


def given_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of Preprocessing that options state, a tokenizer's file read."""
    settings = {
        PREPROCESSING_OPTIONS[name]: value
        for name, value in given.items()
        if name in PREPROCESSING_OPTIONS
    }
    tokenizer = settings.get("tokenizer")
    if isinstance(tokenizer, str) and tokenizer != CLIP_TOKENIZER:
        path = Path(tokenizer)
        if path.is_dir():
            path /= "tokenizer.json"
        settings["tokenizer"] = tokenizer_of_file(path, path.name, "none")
    return settings


def with_file_settings(
    config: RetrieverConfig,
    file: CheckpointFile,
    given: Mapping[str, Any],
    image_resolution: int | None = None,
    written: Mapping[str, Any] | None = None,
) -> RetrieverConfig:
    """Return the config with the preprocessing of a checkpoint's files and of options.

    What neither states is assumed, and listed in `assumed`. given: options by the names of
    PREPROCESSING_OPTIONS. Raises ValueError for settings that cannot be applied exactly, and for
    options that
    contradict a file.
    """
    stated = given_settings(given)
    if written is not None:
        read = _written_settings(written, config.clip, file.path)
        if file.path.is_dir():
            files = _file_settings(file, config.clip, stated.get("tokenizer"), image_resolution)
            _check_written(files, read, file.path)
    else:
        read = _file_settings(file, config.clip, stated.get("tokenizer"), image_resolution)
    for name, value in stated.items():
        if name in read and not _equal(read[name], value):
            option = next(
                option for option, field in PREPROCESSING_OPTIONS.items() if field == name
            )
            raise ValueError(
                f"{file.path}: option {option}={given[option]} contradicts its configuration, "
                f"which says {read[name]}"
            )
    known = {**read, **stated}
    if "tokenizer" not in known and config.clip.text.vocab_size > TOKENISER_VOCABULARY:
        raise ValueError(
            f"{file.path}: its text tower has {config.clip.text.vocab_size} entries, CLIP's "
            f"tokenizer {TOKENISER_VOCABULARY}: it was trained with another one; give it as "
            "--tokenizer=tokenizer.json (or --tokenizer=clip if it only has idle entries)"
        )
    if config.recipe == "clip":
        known.setdefault("max_words", max(3, config.clip.text.context_length))
    preprocessing = default_preprocessing(config.clip, dict(config.sizes)).replace(**known)
    check_tokenizer(preprocessing.tokenizer, config.clip.text, file.path)
    assumed = tuple(_assumptions(preprocessing, known))
    return dataclasses.replace(config, preprocessing=preprocessing, assumed=assumed)


def with_protocol(config: RetrieverConfig, given: Mapping[str, Any]) -> RetrieverConfig:
    """Return the config of a recipe started from CLIP with the protocol that options state."""
    stated = {
        name: value for name, value in given_settings(given).items() if name in PROTOCOL_SETTINGS
    }
    preprocessing = config.preprocessing.replace(**stated)
    assumed = (*config.assumed, *protocol_assumption(preprocessing, stated))
    return dataclasses.replace(config, preprocessing=preprocessing, assumed=assumed)


def _check_written(files: Mapping[str, Any], written: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError if the configuration files of a folder were changed after the weights."""
    for name, value in files.items():
        # transformers has one rule for the crop, so its files cannot state the other.
        if name not in ("crop_offset", "tokenizer") and not _equal(value, written.get(name)):
            raise ValueError(
                f"{folder}: its configuration files say {name}={value}, its weight file's metadata "
                f"{written.get(name)}; restore the files that were written with the weights"
            )


def _written_settings(written: Mapping[str, Any], clip: ClipConfig, path: Path) -> dict[str, Any]:
    """Return the settings in the metadata of a file that vtr_jax wrote."""
    try:
        stored = Preprocessing.from_json(written, path if path.is_dir() else path.parent)
    except ValueError as error:
        raise ValueError(f"{path}: its metadata: {error}") from error
    values = {field.name: getattr(stored, field.name) for field in dataclasses.fields(stored)}
    return {**values, "resolution": clip.vision.image_resolution}


def _native_resolution(file: CheckpointFile, clip: ClipConfig, forced: int | None) -> int:
    """Return the resolution that the configuration is about, before any --image_resolution."""
    stated = _stated_size(file)
    return clip.vision.image_resolution if forced is None or stated is None else stated


def _stated_size(file: CheckpointFile) -> int | None:
    """Return the image size of a configuration's vision tower, None if it states no number."""
    config = file.config or {}
    model = config.get("model_cfg") or {}
    vision = model.get("vision_cfg") or config.get("vision_config") or {}
    size = vision.get("image_size")
    size = size[0] if isinstance(size, list) and size else size
    return size if isinstance(size, int) else None


def _check_stated_size(file: CheckpointFile, resolution: int) -> None:
    """Raise ValueError if a configuration's image size is not that of the weights."""
    stated = _stated_size(file)
    if stated is not None and stated != resolution:
        raise ValueError(
            f"{file.path}: its {file.facts.config_name} says image_size={stated}, its position "
            f"embeddings are for {resolution} pixels; give --image_resolution={stated} to "
            "interpolate them"
        )


def _file_settings(
    file: CheckpointFile, clip: ClipConfig, tokenizer: Any, forced: int | None
) -> dict[str, Any]:
    """Return what the files of a checkpoint state; {} for a weight file on its own.

    tokenizer: given by hand, or None. forced: the resolution of --image_resolution.
    """
    folder = file.path if file.path.is_dir() else file.path.parent
    resolution = _native_resolution(file, clip, forced)
    if forced is None:
        _check_stated_size(file, resolution)
    if file.config is not None and "model_cfg" in file.config:
        text_cfg = file.config["model_cfg"]["text_cfg"]
        images = file.config.get("preprocess_cfg") or {}
        found = tokenizer or open_clip_tokenizer(text_cfg, folder, file.path)
        read = open_clip_image_settings(images, resolution, folder / file.facts.config_name)
        return {**read, "tokenizer": found}
    if file.config is None and not file.path.is_dir():
        return {}
    read = _processor_settings(folder, resolution)
    if "resized_side" in read and resolution != clip.vision.image_resolution:
        raise ValueError(
            f"{file.path}: image_resolution={forced}: its pictures are resized to "
            f"{read['resized_side']} pixels before the crop to {resolution}; give "
            "--resized_side=N together with a preprocessor_config.json without it"
        )
    found = huggingface_tokenizer(folder)
    return read if found is None else {**read, "tokenizer": found}


def _processor_settings(folder: Path, resolution: int) -> dict[str, Any]:
    """Return the settings of the processors in a Hugging Face folder, which must agree."""
    read: dict[str, dict[str, Any]] = {}
    for name, entry in _PROCESSORS:
        processor = read_config(folder, name)
        if processor is not None and entry is not None:
            processor = processor.get(entry)
        if processor is None:
            continue
        label = name if entry is None else f"{name} ({entry})"
        if not isinstance(processor, dict):
            raise ValueError(f"{folder / name}: expected an object {entry}, found {processor!r}")
        read[label] = huggingface_image_settings(processor, resolution, folder / label)
    labels = list(read)
    for label in labels[1:]:
        for name in read[labels[0]].keys() | read[label].keys():
            ours, theirs = read[labels[0]].get(name), read[label].get(name)
            if not _equal(ours, theirs):
                raise ValueError(
                    f"{folder}: {labels[0]} and {label} disagree: {name} is {ours} and {theirs}; "
                    "remove one of the files"
                )
    return read[labels[0]] if labels else {}


def _equal(one: Any, other: Any) -> bool:
    if one is None or other is None or isinstance(one, str) or not np.ndim(one):
        return bool(one == other)
    return np.shape(one) == np.shape(other) and np.allclose(one, other, atol=1e-6)


def _assumptions(preprocessing: Preprocessing, known: Mapping[str, Any]) -> Iterator[str]:
    """One sentence per setting that nothing stated, with the option that changes it."""
    if "tokenizer" not in known:
        yield "CLIP's tokenizer (or: --tokenizer=tokenizer.json)"
    if not {"mean", "std"} <= known.keys():
        yield (
            "pixels normalized by OpenAI's mean and standard deviation (or: "
            "--image_mean=0.5,0.5,0.5 --image_std=0.5,0.5,0.5)"
        )
    if "resize_mode" not in known:
        yield (
            f"pictures resized by {preprocessing.resize_mode!r}: shorter side, then center crop "
            "(or: --resize_mode=squash)"
        )
    if "interpolation" not in known:
        yield f"{preprocessing.interpolation} interpolation (or: --interpolation=bilinear)"
    yield from protocol_assumption(preprocessing, known)
