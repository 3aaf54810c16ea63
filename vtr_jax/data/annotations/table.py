"""Annotations of one's own: a CSV or JSONL file with one caption a row.

Columns (in any order; others are ignored): `video`, the path of a video file below the videos
folder; `caption`; `split`; and, to take a stretch of the video only, `start` and `end` in seconds.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vtr_jax.data.annotations.choices import MissingSplit, nearest
from vtr_jax.data.annotations.pairs import split_of_pairs, timed_id
from vtr_jax.data.annotations.rows import BadRow, Row, read_csv, read_jsonl, refuse_bad_rows
from vtr_jax.data.split import Split, VideoClip, clip_name

EVERY_ROW = "all"


@dataclass(frozen=True)
class _Entry:
    line: int
    clip: VideoClip
    caption: str
    split: str


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
    rows, bad = _read_rows(path)
    if not rows:
        refuse_bad_rows(path, bad)
        raise ValueError(f"{path}: no rows, expected one for each caption")
    has_splits = any("split" in row.cells for row in rows)
    if not has_splits and split != EVERY_ROW:
        raise MissingSplit(
            f"{path}: no column 'split', so nothing belongs to split {split!r}; add the column, or "
            f"ask for split {EVERY_ROW!r} to take every row"
        )
    entries = _entries(path, rows, bad, has_splits)
    chosen = [entry for entry in entries if entry.split == split]
    if not chosen:
        counts = Counter(entry.split for entry in entries)
        existing = ", ".join(f"{name} ({count} rows)" for name, count in counts.items())
        hint = nearest(split, counts)
        raise MissingSplit(f"{path}: no rows of split {split!r}; there are: {existing}{hint}")
    return split_of_pairs("table", split, [(entry.clip, entry.caption) for entry in chosen])


def table_splits(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names in the column `split` in the order they first occur; "all" without that column.

    Raises FileNotFoundError and ValueError as read_table, except that rows without a split are
    passed over.
    """
    rows, _ = _read_rows(path)
    if not any("split" in row.cells for row in rows):
        return (EVERY_ROW,)
    names = (row.cells.get("split") for row in rows)
    return tuple(dict.fromkeys(n.strip() for n in names if isinstance(n, str) and n.strip()))


def _read_rows(path: str | os.PathLike[str]) -> tuple[list[Row], list[BadRow]]:
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        return read_csv(path, ["video", "caption"])
    if suffix == ".jsonl":
        return read_jsonl(path)
    raise ValueError(f"{path}: the name ends in {suffix!r}, expected .csv or .jsonl")


def _entries(
    path: str | os.PathLike[str], rows: list[Row], bad: list[BadRow], has_splits: bool
) -> list[_Entry]:
    bad = list(bad)
    entries: list[_Entry] = []
    first_entry: dict[str, _Entry] = {}
    for row in rows:
        try:
            entry = _entry(row, has_splits)
        except ValueError as problem:
            bad.append(BadRow(row.line, str(problem)))
            continue
        first = first_entry.setdefault(entry.clip.clip_id, entry)
        if first.clip == entry.clip:
            entries.append(entry)
        else:
            bad.append(
                BadRow(
                    row.line,
                    f"clip id {entry.clip.clip_id!r} of {entry.clip.file} is that of "
                    f"{first.clip.file} (line {first.line}) too: rename one of the files",
                )
            )
    refuse_bad_rows(path, bad)
    return entries


def _entry(row: Row, has_splits: bool) -> _Entry:
    file = str(PurePosixPath(_text(row, "video")))
    start, end = _seconds(row, "start"), _seconds(row, "end")
    if end is not None:
        start = start or 0.0
        if start >= end:
            raise ValueError(f"start is {start:g} and end is {end:g}, expected start before end")
    # From 0 to the end is the whole video, however it is written.
    start = start if end is not None else start or None
    clip = VideoClip(timed_id(clip_name(file), start, end), file, start, end)
    split = _text(row, "split") if has_splits else EVERY_ROW
    return _Entry(row.line, clip, _text(row, "caption"), split)


def _text(row: Row, column: str) -> str:
    value = row.cells.get(column)
    if value is None or value == "":
        raise ValueError(f"no {column}")
    if not isinstance(value, str):
        raise ValueError(f"{column} is {value!r}, expected a text")
    if not value.strip():
        raise ValueError(f"{column} is blank")
    return value.strip()


def _seconds(row: Row, column: str) -> float | None:
    value: Any = row.cells.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{column} is {value!r}, expected seconds from 0 on")
    return seconds
