"""Annotation files to splits: one reader a data set, found by name.

split = read_split("msrvtt", "annotations/msrvtt", "train", train_list="9k")
available_splits("msrvtt", "annotations/msrvtt")     # ("train", "test")
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

from vtr_jax.data.annotations.activitynet import read_activitynet
from vtr_jax.data.annotations.choices import (
    SPLIT_NAMES,
    MissingCaptions,
    MissingSplit,
    check_choice,
    nearest_name,
)
from vtr_jax.data.annotations.didemo import read_didemo
from vtr_jax.data.annotations.lsmdc import read_lsmdc
from vtr_jax.data.annotations.msrvtt import read_msrvtt
from vtr_jax.data.annotations.msvd import read_msvd
from vtr_jax.data.annotations.parsed_once import each_file_parsed_once
from vtr_jax.data.annotations.table import read_table, table_splits
from vtr_jax.data.annotations.vatex import read_vatex
from vtr_jax.data.split import Split

__all__ = [
    "READERS",
    "MissingCaptions",
    "MissingSplit",
    "available_splits",
    "check_options",
    "each_file_parsed_once",
    "read_available_splits",
    "read_split",
    "read_splits",
    "reader_options",
    "split_names",
]

READERS: dict[str, Callable[..., Split]] = {
    "activitynet": read_activitynet,
    "didemo": read_didemo,
    "lsmdc": read_lsmdc,
    "msrvtt": read_msrvtt,
    "msvd": read_msvd,
    "vatex": read_vatex,
    "table": read_table,
}


def read_split(
    dataset: str, annotations: str | os.PathLike[str], split: str, **options: Any
) -> Split:
    """Read one split of a data set.

    Args:
        dataset: a key of READERS; "table" is a CSV or JSONL file of one's own.
        annotations: the folder with the data set's annotation files, or the table.
        split: "train", "val", "test", or a name of the table's own.
        **options: those of the data set's reader.

    Raises:
        MissingSplit (a ValueError): these annotations do not have the split.
        ValueError: unknown data set, option or split, or what the reader refuses.
        FileNotFoundError: the annotations, or a file named in an option, are not there.
    """
    return read_splits(dataset, annotations, [split], **options)[split]


def read_splits(
    dataset: str, annotations: str | os.PathLike[str], splits: Iterable[str], **options: Any
) -> dict[str, Split]:
    """Read several splits of a data set; each annotation file is read and parsed once.

    Inside each_file_parsed_once, files that were parsed before are not parsed again.

    Args:
        dataset, annotations, **options: as read_split.
        splits: names; all of them are expected to exist.

    Returns:
        the splits by name.

    Raises:
        MissingSplit, ValueError, FileNotFoundError: as read_split.
    """
    check_options(dataset, options)
    with each_file_parsed_once():
        return {name: READERS[dataset](annotations, name, **options) for name in splits}


def read_available_splits(
    dataset: str, annotations: str | os.PathLike[str], **options: Any
) -> tuple[dict[str, Split], dict[str, str]]:
    """Read every split that these annotations have.

    Returns:
        the splits by name, and why each of the others does not exist, by name.

    Raises:
        MissingSplit: there is not one.
        ValueError, FileNotFoundError: as read_split.
    """
    check_options(dataset, options)
    splits: dict[str, Split] = {}
    missing: dict[str, str] = {}
    with each_file_parsed_once():
        for name in split_names(dataset, annotations):
            try:
                splits[name] = READERS[dataset](annotations, name, **options)
            except MissingSplit as reason:
                missing[name] = str(reason)
    if not splits:
        reasons = "\n".join(missing.values())
        raise MissingSplit(f"{reasons}\n{annotations}: no split of {dataset} is there")
    return splits, missing


def available_splits(
    dataset: str, annotations: str | os.PathLike[str], **options: Any
) -> tuple[str, ...]:
    """Names of the splits that these annotations have, in the order train, val, test.

    A table's are those of its column `split`, or "all". Raises as read_available_splits.
    """
    return tuple(read_available_splits(dataset, annotations, **options)[0])


def split_names(dataset: str, annotations: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the splits that a data set may have, there or not; of a table, those it has.

    Raises ValueError for an unknown data set, and what table_splits raises.
    """
    check_choice("dataset", dataset, sorted(READERS))
    return table_splits(annotations) if dataset == "table" else SPLIT_NAMES


def reader_options(dataset: str) -> tuple[str, ...]:
    """Names of the options that the data set's reader takes; ValueError for an unknown data set."""
    check_choice("dataset", dataset, sorted(READERS))
    parameters = inspect.signature(READERS[dataset]).parameters.values()
    return tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)


def check_options(dataset: str, options: Iterable[str], command: Collection[str] = ()) -> None:
    """Refuse names that are no options of a data set's reader, with the nearest that is one.

    command: options of the command that was told, which the name may be meant to be.
    Raises ValueError, also for an unknown data set.
    """
    known = reader_options(dataset)
    unknown = [name for name in sorted(options) if name not in known]
    if not unknown:
        return
    meant = nearest_name(unknown[0], (*known, *command))
    if meant in command:
        raise ValueError(f"--{unknown[0]}: no such option; did you mean --{meant}?")
    hint = f"; did you mean {meant}?" if meant else ""
    names = ", ".join(known) or "none"
    raise ValueError(f"{dataset} has no option {', '.join(unknown)}; its options: {names}{hint}")
