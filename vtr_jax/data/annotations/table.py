"""Annotations of one's own: a CSV or JSONL file with one caption a row.

Columns (in any order): `video`, the path of a video file below the videos folder; `caption`;
`split`; and, to take a stretch of the video only, `start` and `end` in seconds. Others are not
read, and said to be; one that looks like a misspelt `split`, `start` or `end` is refused.
"""

from __future__ import annotations

import os
from collections import Counter

from vtr_jax.data.annotations.choices import MissingSplit, nearest
from vtr_jax.data.annotations.pairs import split_of_pairs
from vtr_jax.data.annotations.parsed_once import parsed_once
from vtr_jax.data.annotations.rows import refuse_bad_rows
from vtr_jax.data.annotations.table_rows import (
    EVERY_ROW,
    Entry,
    Row,
    entries_of,
    ignored_columns,
    read_rows,
)
from vtr_jax.data.split import Split


def read_table(path: str | os.PathLike[str], split: str) -> Split:
    """Read the rows of one split.

    Rows with the same video, start and end are captions of one clip. Clips stand in the order of
    their first row, captions in the order of rows. A clip's id is the path of its video without
    extension, and `#start-end` where the row has times.

    Args:
        path: a .csv file whose first line names the columns, or a .jsonl file with an object a
            line.
        split: a value of the column `split`; "all" takes every row of a file without that column.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not as expected, or has bad rows (all counted, ten listed with
            their lines).
        MissingSplit: it has no rows of this split (the message lists those it has).
    """
    rows, bad = read_rows(path)
    if not rows:
        refuse_bad_rows(path, bad)
        raise ValueError(f"{path}: no rows, expected one for each caption")
    has_splits = any("split" in row.cells for row in rows)
    if not has_splits and split != EVERY_ROW:
        raise MissingSplit(
            f"{path}: no column 'split', so nothing belongs to split {split!r}; add the column, or "
            f"ask for split {EVERY_ROW!r} (evaluate: --split={EVERY_ROW}) to take every row"
        )
    entries = _entries(path, has_splits)
    chosen = [entry for entry in entries if entry.split == split]
    if not chosen:
        counts = Counter(entry.split for entry in entries)
        existing = ", ".join(f"{name} ({count} rows)" for name, count in counts.items())
        hint = nearest(split, counts)
        raise MissingSplit(f"{path}: no rows of split {split!r}; there are: {existing}{hint}")
    pairs = [(entry.clip, entry.caption) for entry in chosen]
    return split_of_pairs("table", split, pairs, _notes(rows, has_splits))


@parsed_once
def _entries(path: str | os.PathLike[str], has_splits: bool) -> list[Entry]:
    return entries_of(path, *read_rows(path), has_splits)


def _notes(rows: list[Row], has_splits: bool) -> tuple[str, ...]:
    notes = []
    if not has_splits:
        notes.append(
            f"no column 'split', so every row is taken; evaluate with --split={EVERY_ROW}, and add "
            "the column (train, val, test) to train"
        )
    if ignored := ignored_columns(rows):
        notes.append(f"columns that are not read: {', '.join(ignored)}")
    return tuple(notes)


def table_splits(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names in the column `split` in the order they first occur; "all" without that column.

    Raises FileNotFoundError and ValueError as read_table, except that rows without a split are
    passed over if others have one.
    """
    rows, bad = read_rows(path)
    if not any("split" in row.cells for row in rows):
        return (EVERY_ROW,)
    cells = (row.cells.get("split") for row in rows)
    names = tuple(dict.fromkeys(n.strip() for n in cells if isinstance(n, str) and n.strip()))
    if not names:
        entries_of(path, rows, bad, has_splits=True)  # which rejects every row, and says why
    return names
