"""Rows of a table of one's own: its columns, the clip of each row, and what is wrong with them."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vtr_jax.data.annotations.pairs import timed_id
from vtr_jax.data.annotations.parsed_once import parsed_once
from vtr_jax.data.annotations.rows import BadRow, Row, read_csv, read_jsonl, refuse_bad_rows
from vtr_jax.data.split import VideoClip, clip_name

EVERY_ROW = "all"
_NEEDED, _OPTIONAL = ("video", "caption"), ("split", "start", "end")
# "state" is as close to "start" as "strat" is: refusing it costs a renamed column, reading on
# without times would cost the clips.
_CLOSE = 0.75


@dataclass(frozen=True)
class Entry:
    """A row that can be used: its line, clip, caption and split."""

    line: int
    clip: VideoClip
    caption: str
    split: str


@parsed_once
def read_rows(path: str | os.PathLike[str]) -> tuple[list[Row], list[BadRow]]:
    """The rows of a .csv or .jsonl file, and those that cannot be read; not to be changed.

    Raises FileNotFoundError, and ValueError for a file of another form or one with a column that
    is not read, but looks like a misspelt one that would be.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        rows, bad = read_csv(path, _NEEDED)
    elif suffix == ".jsonl":
        rows, bad = read_jsonl(path)
    else:
        raise ValueError(f"{path}: the name ends in {suffix!r}, expected .csv or .jsonl")
    for columns, line in {tuple(row.cells): row.line for row in reversed(rows)}.items():
        _refuse_misspelt(f"{path}, line {1 if suffix == '.csv' else line}", columns)
    return rows, bad


def _refuse_misspelt(place: str, columns: Sequence[str]) -> None:
    absent = [name for name in _OPTIONAL if name not in columns]
    for column in columns:
        meant = None if column in (*_NEEDED, *_OPTIONAL) else _meant(column, absent)
        if meant:
            raise ValueError(
                f"{place}: column {column!r} would not be read; call it {meant!r} if it is that, "
                "else give it a name less like it"
            )


def _meant(column: str, absent: Sequence[str]) -> str | None:
    """The column that this one is meant to be, by its look: "start" for "t_start" or "strat"."""
    name = column.strip().lower()
    words = re.split(r"[\W_]+", name)
    for each in absent:
        if each in words or name.startswith(each):
            return each
    close = difflib.get_close_matches(name, absent, n=1, cutoff=_CLOSE)
    return close[0] if close else None


def ignored_columns(rows: Sequence[Row]) -> list[str]:
    """Names of the columns that are not read, in the order they first occur; blank names aside."""
    names = dict.fromkeys(name for row in rows for name in row.cells)
    return [name for name in names if name.strip() and name not in (*_NEEDED, *_OPTIONAL)]


def entries_of(
    path: str | os.PathLike[str], rows: list[Row], bad: list[BadRow], has_splits: bool
) -> list[Entry]:
    """One entry a row; raises one ValueError for all bad rows, those of `bad` among them.

    Rows whose videos differ in surrounding spaces only are of one video, spelled as in the first.
    """
    bad = list(bad)
    entries: list[Entry] = []
    first_entry: dict[str, Entry] = {}
    spelled: dict[str, str] = {}
    for row in rows:
        try:
            video = _text(row, "video")
            file = spelled.setdefault(video.strip(), video)
            entry = _entry(row, str(PurePosixPath(file)), has_splits)
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


def _entry(row: Row, file: str, has_splits: bool) -> Entry:
    start, end = _seconds(row, "start"), _seconds(row, "end")
    if end is not None:
        start = start or 0.0
        if start >= end:
            raise ValueError(f"start is {start:g} and end is {end:g}, expected start before end")
    # From 0 to the end is the whole video, however it is written.
    start = start if end is not None else start or None
    # The file's own name may begin or end in a space, so that it is kept; the id has none.
    clip = VideoClip(timed_id(clip_name(file.strip()), start, end), file, start, end)
    split = _text(row, "split").strip() if has_splits else EVERY_ROW
    return Entry(row.line, clip, _text(row, "caption").strip(), split)


def _text(row: Row, column: str) -> str:
    value = row.cells.get(column)
    if value is None or value == "":
        raise ValueError(f"no {column}")
    if not isinstance(value, str):
        raise ValueError(f"{column} is {value!r}, expected a text")
    if not value.strip():
        raise ValueError(f"{column} is blank")
    return value


def _seconds(row: Row, column: str) -> float | None:
    value: Any = row.cells.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        comma = isinstance(value, str) and re.fullmatch(r"\s*\d+,\d+\s*", value)
        hint = ", with a point instead of the comma" if comma else ""
        raise ValueError(f"{column} is {value!r}, expected seconds from 0 on{hint}")
    return seconds
