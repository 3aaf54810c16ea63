"""The data of a run: splits checked against each other and against the frame store."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vtr_jax.data.annotations import MissingSplit, each_file_parsed_once, read_split
from vtr_jax.data.preprocess import tokenize_preprocessed
from vtr_jax.data.split import Split, check_overlap
from vtr_jax.evaluation.evaluate import require_frames
from vtr_jax.preprocessing import Preprocessing

SELECTION_OF_VALIDATION = {
    "val": "validation split",
    "holdout": "validation split",
    "test": "test split",
    "none": "none",
}


@dataclasses.dataclass(frozen=True)
class RunData:
    """What a run trains on and is selected by.

    validation is None where nothing is evaluated during training. tokens: ids and mask of all
    captions of a split, int32 [C,L] each. skipped: clips that the store lacks, by split name.
    warnings: what a person should know, one sentence each. left_to_evaluate: the split that the
    result can be evaluated on, test or else val; None where the annotations have neither.
    """

    store: Any
    train: Split
    validation: Split | None
    train_tokens: tuple[np.ndarray, np.ndarray]
    validation_tokens: tuple[np.ndarray, np.ndarray] | None
    skipped: dict[str, list[str]]
    warnings: tuple[str, ...] = ()
    left_to_evaluate: str | None = None


def hold_out(train: Split, clips: int, seed: int) -> tuple[Split, Split]:
    """Split off some training clips, drawn by the seed, with all their captions: (rest, held out).

    Raises ValueError if nothing would be left to train on.
    """
    if not 0 < clips < len(train.clips):
        raise ValueError(
            f"data.holdout_clips: expected 1 to {len(train.clips) - 1} of the {len(train.clips)} "
            f"training clips, got {clips}"
        )
    chosen = np.random.default_rng([seed, clips]).permutation(len(train.clips))[:clips]
    held = {train.clips[i].clip_id for i in chosen}
    rest = train.restrict([clip.clip_id for clip in train.clips if clip.clip_id not in held])
    return rest, dataclasses.replace(train.restrict(held), name="holdout")


def _read_splits(config: ConfigDict) -> tuple[Split, Split | None]:
    data = config.data
    options = data.options.to_dict()
    train = read_split(data.dataset, data.annotations, "train", **options)
    if data.validation == "none":
        return train, None
    if data.validation == "holdout":
        return hold_out(train, data.holdout_clips, config.seed)
    return train, read_split(data.dataset, data.annotations, data.validation, **options)


def _refuse_overlap(train: Split, validation: Split | None) -> None:
    if validation is None:
        return
    common = check_overlap(train, validation)
    if common:
        raise ValueError(
            f"{len(common)} of the {len(validation.clips)} clips of {validation.name} are also in "
            f"{train.name}, so that validation would measure memory: {', '.join(common[:5])}; "
            "fix the annotations"
        )


def _split_if_any(config: ConfigDict, name: str) -> Split | None:
    """Return a split that nothing is trained on, None if the annotations do not have it.

    Raises ValueError or FileNotFoundError for annotations that are damaged.
    """
    data = config.data
    try:
        return read_split(data.dataset, data.annotations, name, **data.options.to_dict())
    except MissingSplit:
        return None


def _left_to_evaluate(config: ConfigDict, test: Split | None) -> str | None:
    if test is not None:
        return "test"
    return "val" if _split_if_any(config, "val") is not None else None


def _test_overlap(
    config: ConfigDict, train: Split, validation: Split | None, test: Split | None
) -> tuple[str, ...]:
    """Sentences about clips of the test split that training or selection sees.

    No reason to refuse: the run itself is sound, a score on those clips is not.
    """
    if test is None:
        return ()
    seen = [(train, "trained on")]
    if validation is not None and config.data.validation != "test":
        seen.append((validation, "selected by"))
    return tuple(
        f"WARNING: {len(common)} of the {len(test.clips)} clips of test are {use} as part of "
        f"{split.name}, a score on them measures memory: {', '.join(common[:5])}"
        for split, use in seen
        if (common := check_overlap(split, test))
    )


def load_run_data(config: ConfigDict, preprocessing: Preprocessing | None = None) -> RunData:
    """Read splits, open the store, tokenise the captions once.

    preprocessing: whose tokenizer reads the captions; None for CLIP's.
    Raises ValueError or FileNotFoundError before anything is computed: paths not given, splits
    that overlap, clips the store lacks (unless data.skip_missing), clips to validate on without
    frames.
    """
    from vtr_jax.data.frame_store.store import FrameStore

    for name, meaning in (
        ("annotations", "the annotation file or folder"),
        ("store", "the frame store that `vtr prepare` wrote"),
    ):
        if not config.data[name]:
            raise ValueError(f"data.{name}: give {meaning}: --config.data.{name}=PATH")
    with each_file_parsed_once():
        train, validation = _read_splits(config)
        _refuse_overlap(train, validation)
        test = _split_if_any(config, "test")
        left = _left_to_evaluate(config, test)
    warnings = _test_overlap(config, train, validation, test)
    store = FrameStore.open(config.data.store)
    skipped: dict[str, list[str]] = {}

    def covered(split: Split) -> Split:
        if config.data.skip_missing:
            split, skipped[split.name] = store.covered_part(split)
        else:
            store.require_covers(split)
        return split

    train = covered(train)
    limit, preprocessing = config.data.max_words, preprocessing or Preprocessing()
    train_tokens = tokenize_preprocessed(train.captions, preprocessing, limit)
    if validation is None:
        return RunData(store, train, None, train_tokens, None, skipped, warnings, left)
    validation = covered(validation)
    require_frames(store, validation)
    tokens = tokenize_preprocessed(validation.captions, preprocessing, limit)
    return RunData(store, train, validation, train_tokens, tokens, skipped, warnings, left)
