"""Where a run starts from: a retriever directory, the seed, or its own checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vtr_jax.checkpoint import (
    DESCRIPTION_FILE,
    config_to_json,
    load_retriever,
    read_config,
    read_description,
)
from vtr_jax.data.trained_clips import (
    NO_CLIPS,
    TRAINED_CLIPS_FILE,
    UNKNOWN_CLIPS,
    TrainedClips,
    read_trained_clips,
)
from vtr_jax.models.initialise import initialise_from_clip
from vtr_jax.models.recipes import RetrieverConfig, recipe_named
from vtr_jax.models.recipes.recipe import default_preprocessing
from vtr_jax.models.retriever import Retriever, abstract_retriever, init_retriever
from vtr_jax.preprocessing import (
    SAMPLING_SETTINGS,
    Preprocessing,
    protocol_assumption,
    without_protocol,
)
from vtr_jax.sharding import local_mesh
from vtr_jax.training.config import clip_of

# Below, the towers of a run from scratch would learn next to nothing.
LEAST_COEF_LR_FROM_SCRATCH = 0.1


def check_start(config: ConfigDict) -> None:
    """Raise ValueError for a run from scratch whose towers would stay as they were drawn."""
    if config.init:
        return
    settings, wrong = config.optimizer, []
    freezes_nothing = settings.freeze_nothing_in_3d and config.options.get("linear_patch") == "3d"
    if settings.freeze_layer_num >= 0 and not freezes_nothing:
        wrong.append(
            f"optimizer.freeze_layer_num={settings.freeze_layer_num} would keep embeddings and "
            "stems as they were drawn (-1 trains everything)"
        )
    if settings.coef_lr < LEAST_COEF_LR_FROM_SCRATCH:
        wrong.append(
            f"optimizer.coef_lr={settings.coef_lr:g} would hardly move the towers (1.0 trains them "
            f"like the rest; expected {LEAST_COEF_LR_FROM_SCRATCH} or more)"
        )
    if wrong:
        raise ValueError(
            "init is not given, so the towers start untrained, but "
            + "; and ".join(wrong)
            + ". Give the retriever directory to start from, --config.init=DIR, or train from "
            "scratch: --config.optimizer.freeze_layer_num=-1 --config.optimizer.coef_lr=1.0"
        )


def starting_retriever(config: ConfigDict) -> Retriever:
    """The retriever a run starts from: config.init, or drawn from the seed.

    A retriever directory of recipe "clip" gives the towers, one of the same recipe everything.
    Raises ValueError for a directory of another recipe, or options it does not have.
    """
    key = jax.random.key(config.seed)
    recipe, options, sizes = config.recipe, config.options.to_dict(), config.sizes.to_dict()
    if not config.init:
        description = recipe_named(recipe).config(clip_of(config), options, sizes)
        # Untrained weights prefer no frames and no token limit: the run chooses them.
        assumed = tuple(protocol_assumption(description.preprocessing, ()))
        return init_retriever(dataclasses.replace(description, assumed=assumed), key)
    # Whole in every process: what is made of it is laid out on the run's mesh afterwards.
    source = load_retriever(config.init, local_mesh())
    if source.config.recipe == "clip" and recipe != "clip":
        return initialise_from_clip(source, recipe, key, options, sizes)
    wanted = recipe_named(recipe).config(
        source.config.clip, options, sizes, source.preprocessing, source.config.assumed
    )
    if source.config != wanted:
        raise ValueError(
            f"init: {config.init} does not fit this run: "
            + "; ".join(_differing(source.config, wanted))
            + ". Give the run the settings of what it starts from, or start from a CLIP"
        )
    return source


def start_preprocessing(config: ConfigDict) -> Preprocessing:
    """Return the preprocessing of what a run starts from: config.init, or the defaults."""
    if config.init:
        return read_config(config.init).preprocessing
    return default_preprocessing(clip_of(config), config.sizes.to_dict())


def with_training_settings(retriever: Retriever, config: ConfigDict, store: Any) -> Retriever:
    """Return the retriever with the frames and the token limit that a run trains it on.

    They replace what was assumed before; images and tokenizer stay as they are.
    """
    data = config.data
    preprocessing = retriever.preprocessing.replace(
        max_words=data.max_words,
        max_frames=data.max_frames,
        slice_framepos=data.slice_framepos,
        frame_order=data.eval_frame_order,
        **{name: store.settings.get(name) for name in SAMPLING_SETTINGS},
    )
    described = dataclasses.replace(
        retriever.config,
        preprocessing=preprocessing,
        assumed=without_protocol(retriever.config.assumed),
    )
    return dataclasses.replace(retriever, config=described)


def clips_before(init: str) -> TrainedClips:
    """What the retriever that a run starts from was trained on; nothing where that is the seed.

    CLIP as published has seen pictures alone. Raises ValueError for a damaged record.
    """
    if not init:
        return NO_CLIPS
    directory = Path(init)
    if (directory / TRAINED_CLIPS_FILE).is_file():
        return read_trained_clips(directory)
    if not (directory / DESCRIPTION_FILE).is_file():
        return UNKNOWN_CLIPS  # a run that is resumed may have lost what it started from
    is_clip = read_description(directory).get("retriever", {}).get("recipe") == "clip"
    return NO_CLIPS if is_clip else UNKNOWN_CLIPS


def clips_of_run(workdir: Path) -> TrainedClips:
    """What a run that is resumed was trained on, itself and before it began.

    A file that does not tell everything, as those of earlier versions, is added to what is known
    of the retriever that the run started from.
    """
    own = read_trained_clips(workdir)
    if own.complete:
        return own
    source = read_description(workdir).get("source", {}).get("trained_from")
    if source is None:
        return own
    return clips_before("" if source == "seed" else source).and_those_of(*own.splits)


def resumed_retriever(workdir: Path) -> Retriever:
    """The retriever of a run that has checkpoints, as shapes: init is not needed any more.

    Raises FileNotFoundError or ValueError where WORKDIR/retriever.json is lost or damaged.
    """
    path = workdir / DESCRIPTION_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: lost, although there are checkpoints; restore it from a copy of the run"
        )
    return abstract_retriever(read_config(workdir))


def _differing(held: RetrieverConfig, wanted: RetrieverConfig) -> list[str]:
    """What two descriptions differ in, as "options.sim_header is 'meanP', the run wants ..."."""
    if held.recipe != wanted.recipe:  # whose options have nothing to do with each other
        return [f"it is a {held.recipe}, the run wants a {wanted.recipe}"]
    ours, theirs = (_flat(config_to_json(config)) for config in (held, wanted))
    return [
        f"its {name} is {ours.get(name)!r}, the run wants {theirs.get(name)!r}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else None
        flat |= {f"{prefix}{name}": value} if inner is None else inner
    return flat
