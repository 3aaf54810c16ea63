"""Clips that a list names, and captions that another file holds for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vtr_jax.data.annotations.rows import BadRow, Row, read_csv, read_text, refuse_bad_rows
from vtr_jax.data.split import Split, VideoClip

_SHOWN = 10


def read_list(path: Path) -> list[str]:
    """Ids of a text file, one a line, without white space around them; blank lines are skipped.

    A .csv file has its ids in the column video_id.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8, names nothing, or names an id twice (with the lines).
    """
    if path.suffix.lower() == ".csv":
        return ids_of_rows(path, *read_csv(path, ["video_id"]))
    # Not splitlines: it would also split at characters that may stand in a name.
    texts = read_text(path).split("\n")
    return _distinct_ids(path, [(line, text.strip()) for line, text in enumerate(texts, 1)], [])


def ids_of_rows(path: Path, rows: Sequence[Row], bad: Sequence[BadRow]) -> list[str]:
    """Return the ids in the column video_id; raises ValueError as `read_list`."""
    lines = [(row.line, row.cells["video_id"].strip()) for row in rows]
    unnamed = [BadRow(line, "no video id") for line, name in lines if not name]
    return _distinct_ids(path, lines, [*bad, *unnamed])


def _distinct_ids(path: Path, lines: Sequence[tuple[int, str]], bad: list[BadRow]) -> list[str]:
    first_line: dict[str, int] = {}
    for line, name in lines:
        if not name:
            continue
        if name in first_line:
            bad.append(BadRow(line, f"{name} stands on line {first_line[name]} too"))
        else:
            first_line[name] = line
    refuse_bad_rows(path, bad)
    if not first_line:
        raise ValueError(f"{path}: no videos, expected one a line")
    return list(first_line)


def grouped_split(
    dataset: str,
    name: str,
    clips: Sequence[VideoClip],
    captions_of: Mapping[str, Sequence[str]],
    notes: tuple[str, ...] = (),
) -> Split:
    """The split of `clips` in their order, with every caption of each in its own order.

    The cut-off points of the originals are the cumulative sums of its captions a clip.

    captions_of: captions by clip id; every clip has some.
    """
    counts = [len(captions_of[clip.clip_id]) for clip in clips]
    captions = tuple(caption for clip in clips for caption in captions_of[clip.clip_id])
    relation = np.repeat(np.arange(len(clips), dtype=np.int32), counts)
    return Split(dataset, name, tuple(clips), captions, relation, notes)


def require_captions(
    list_path: Path, ids: Sequence[str], captions_of: Mapping[str, Sequence[str]], source: object
) -> None:
    """Raise a ValueError that counts the listed ids without a caption, and shows some, if any.

    source: the file, or files, that the captions came from.
    """
    bare = [each for each in ids if not captions_of.get(each)]
    if bare:
        raise ValueError(
            f"{list_path}: {len(bare)} of {len(ids)} videos have no caption in {source}, e.g. "
            f"{', '.join(bare[:_SHOWN])}"
        )
