"""LSMDC: tab-separated lines of clip id, four times and a sentence, without quoting."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtr_jax.data.annotations.choices import annotation_folder, find_annotation
from vtr_jax.data.annotations.rows import BadRow, read_text, refuse_bad_rows
from vtr_jax.data.split import Split, VideoClip

FILES = {
    "train": ["LSMDC16_annos_training.csv"],
    "val": ["LSMDC16_annos_val.csv"],
    # The second is how one would spell it; the first is how the file is called.
    "test": ["LSMDC16_challenge_1000_publictect.csv", "LSMDC16_challenge_1000_publictest.csv"],
}
_FIELDS = 6
_SKIPPED_BY_EMCL = {
    "0017_Pianist_00.23.28.872-00.23.34.843",
    "0017_Pianist_00.30.36.767-00.30.38.009",
    "3064_SPARKLE_2012_01.41.07.000-01.41.11.793",
}
SKIPPED_CLIPS = {
    "emcl": _SKIPPED_BY_EMCL,
    "backbone_tvr": _SKIPPED_BY_EMCL,
    "xpool": {"1012_Unbreakable_00.05.16.065-00.05.21.941"},
}
# Places in the list of distinct training clips that InternVideo leaves out.
_LEFT_OUT_BY_INTERNVIDEO = range(58_200, 58_300)


@dataclass(frozen=True)
class _Line:
    clip_id: str
    sentence: str


def read_lsmdc(
    annotations_dir: str | os.PathLike[str], split: str, *, system: str = "clip4clip"
) -> Split:
    """Read a split of LSMDC: a caption a line in file order, clips in the order they first occur.

    The same clip may have several training lines. Times are not used: the clips are cut already.

    Args:
        annotations_dir: the folder with LSMDC16_annos_training.csv, LSMDC16_annos_val.csv and
            LSMDC16_challenge_1000_publictect.csv.
        split: "train", "val" or "test".
        system: "emcl" and "backbone_tvr" leave three clips out; "xpool" leaves one out, keeps the
            last caption of each clip only, and looks for its video in a folder named after the
            film; "internvideo" leaves out the training clips 58,200 to 58,299; the others read
            alike. What is left out stands in the notes.

    Raises:
        FileNotFoundError: no such folder.
        MissingSplit: the file of this split is not in it.
        ValueError: unknown split or system, or lines that are not as expected (with their
            numbers).
    """
    folder = annotation_folder(annotations_dir, "LSMDC's annotation files", split, system)
    lines = _read_lines(find_annotation(folder, FILES[split], split))
    kept = [line for line in lines if line.clip_id not in SKIPPED_CLIPS.get(system, ())]
    if system == "internvideo" and split == "train":
        ids = list(dict.fromkeys(line.clip_id for line in kept))
        left_out = set(ids[_LEFT_OUT_BY_INTERNVIDEO.start : _LEFT_OUT_BY_INTERNVIDEO.stop])
        kept = [line for line in kept if line.clip_id not in left_out]
    if system == "xpool":
        kept = [_Line(*last) for last in {line.clip_id: line.sentence for line in kept}.items()]
    index_of = {name: place for place, name in enumerate(dict.fromkeys(x.clip_id for x in kept))}
    dropped = len(lines) - len(kept)
    return Split(
        "lsmdc",
        split,
        tuple(_clip(clip_id, system) for clip_id in index_of),
        tuple(line.sentence for line in kept),
        np.array([index_of[line.clip_id] for line in kept], np.int32),
        (f"{dropped} of {len(lines)} lines left out, as {system} does",) if dropped else (),
    )


def _clip(clip_id: str, system: str) -> VideoClip:
    flat = f"{clip_id}.avi"
    if system != "xpool":
        return VideoClip(clip_id, flat)
    # The film: the id up to its first dot, less the underscore and the hour.
    film = clip_id.split(".")[0][:-3]
    return VideoClip(clip_id, f"{film}/{flat}", other_names=(flat,))


def _read_lines(path: Path) -> list[_Line]:
    lines: list[_Line] = []
    bad: list[BadRow] = []
    # Not splitlines: it would also split at characters that may stand in a sentence.
    for number, text in enumerate(read_text(path).split("\n"), 1):
        # Stripped first, as in the originals: a line without a sentence loses its last tab.
        fields = text.strip().split("\t")
        if fields == [""]:
            continue
        if len(fields) != _FIELDS:
            bad.append(BadRow(number, _field_count(len(fields))))
        else:
            lines.append(_Line(fields[0].strip(), fields[-1].strip()))
    refuse_bad_rows(path, bad)
    if not lines:
        raise ValueError(f"{path}: no lines, expected one for each caption")
    return lines


def _field_count(found: int) -> str:
    hint = " (no sentence, or no clip id)" if found == _FIELDS - 1 else ""
    return (
        f"{found} fields{hint}, expected {_FIELDS} separated by tabs: clip id, start and end "
        "aligned, start and end extracted, sentence"
    )
