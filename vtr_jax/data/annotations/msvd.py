"""MSVD: lists of videos, and many captions each from a pickle or a JSON file."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtr_jax.data.annotations.choices import (
    MissingCaptions,
    annotation_folder,
    find_annotation,
    given_annotation,
)
from vtr_jax.data.annotations.listed import grouped_split, read_list, require_captions
from vtr_jax.data.annotations.plain_pickle import read_plain_pickle
from vtr_jax.data.annotations.rows import read_json
from vtr_jax.data.split import Split, VideoClip

CAPTION_FILES = ("raw-captions.pkl", "captions_msvd.json")


def read_msvd(
    annotations_dir: str | os.PathLike[str],
    split: str,
    *,
    captions_file: str | os.PathLike[str] | None = None,
    system: str = "clip4clip",
) -> Split:
    """Read a split of MSVD: its videos in list order, each with all its captions in file order.

    A caption that is a list of words becomes these words joined by single spaces.

    Args:
        annotations_dir: the folder with train_list.txt, val_list.txt and test_list.txt, and the
            captions unless given.
        split: "train", "val" or "test".
        captions_file: a pickle (.pkl, read without running anything in it) or JSON file of
            captions by video id; None = raw-captions.pkl or captions_msvd.json in the folder.
        system: all read alike.

    Raises:
        FileNotFoundError: no such folder, or captions_file is not there.
        MissingSplit: the list of this split is not in the folder; MissingCaptions: the captions
            are not.
        ValueError: unknown split or system, both caption files are there, or files that are not
            as expected.
    """
    folder = annotation_folder(annotations_dir, "MSVD's lists", split, system)
    list_path = find_annotation(folder, [f"{split}_list.txt"], split)
    ids = read_list(list_path)
    clips = [VideoClip(video_id, f"{video_id}.avi") for video_id in ids]
    if captions_file is None:
        captions_path = _captions_path(folder, split, clips)
    else:
        captions_path = given_annotation("captions_file", captions_file, folder)
    data = _read_captions(captions_path)
    listed = {each: data[each] for each in ids if each in data}
    captions_of = {each: _texts(captions_path, each, of_it) for each, of_it in listed.items()}
    require_captions(list_path, ids, captions_of, captions_path)
    return grouped_split("msvd", split, clips, captions_of)


def _captions_path(folder: Path, split: str, clips: list[VideoClip]) -> Path:
    there = [folder / name for name in CAPTION_FILES if (folder / name).is_file()]
    if not there:
        raise MissingCaptions(
            f"split {split!r} needs {' or '.join(CAPTION_FILES)}: no such file in {folder}; fetch "
            "MSVD's captions, or pass --captions_file=FILE",
            clips,
        )
    if len(there) > 1:
        raise ValueError(
            f"{folder}: holds {' and '.join(CAPTION_FILES)}, which spell some captions "
            "differently; pass one as --captions_file=FILE"
        )
    return there[0]


def _read_captions(path: Path) -> Mapping[str, Any]:
    data = (
        read_plain_pickle(path) if path.suffix.lower() in (".pkl", ".pickle") else read_json(path)
    )
    if not isinstance(data, dict):
        raise ValueError(
            f"{path}: a {type(data).__name__}, expected an object of video ids and their captions"
        )
    return data


def _texts(path: Path, video_id: str, captions: Any) -> list[str]:
    if not isinstance(captions, list):
        raise ValueError(
            f"{path}: {video_id} has {reprlib.repr(captions)}, expected a list of captions"
        )
    return [_text(path, video_id, place, caption) for place, caption in enumerate(captions)]


def _text(path: Path, video_id: str, place: int, caption: Any) -> str:
    words = [caption] if isinstance(caption, str) else caption
    if isinstance(words, list) and all(isinstance(word, str) for word in words) and any(words):
        return " ".join(words)
    raise ValueError(
        f"{path}: caption {place} of {video_id} is {reprlib.repr(caption)}, expected a text or a "
        "list of words"
    )
