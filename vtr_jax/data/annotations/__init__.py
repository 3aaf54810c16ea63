"""Annotation files to splits: one reader a data set, found by name.

split = read_split("msrvtt", "annotations/msrvtt", "train", train_list="9k")
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from vtr_jax.data.annotations.msrvtt import read_msrvtt
from vtr_jax.data.annotations.table import read_table
from vtr_jax.data.split import Split

READERS: dict[str, Callable[..., Split]] = {"msrvtt": read_msrvtt, "table": read_table}


def read_split(
    dataset: str, annotations: str | os.PathLike[str], split: str, **options: Any
) -> Split:
    """Read one split of a data set.

    Args:
        dataset: "msrvtt", or "table" for a CSV or JSONL file of one's own.
        annotations: the folder (msrvtt) or file (table) with the annotations.
        split: "train", "val", "test", or a name of the table's own.
        **options: those of the data set's reader.

    Raises:
        ValueError: unknown data set, option or split, or what the reader refuses.
        FileNotFoundError: an annotation file is missing.
    """
    if dataset not in READERS:
        raise ValueError(f"dataset is {dataset!r}, expected one of {', '.join(sorted(READERS))}")
    parameters = inspect.signature(READERS[dataset]).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(known))
    if unknown:
        names = ", ".join(known) or "none"
        raise ValueError(f"{dataset} has no option {', '.join(unknown)}; its options: {names}")
    return READERS[dataset](annotations, split, **options)
