"""VATEX: lists of videos, and ten English captions each from either form of its JSON files."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vtr_jax.data.annotations.choices import (
    MissingCaptions,
    annotation_folder,
    check_choice,
    find_annotation,
    given_annotation,
)
from vtr_jax.data.annotations.listed import grouped_split, read_list, require_captions
from vtr_jax.data.annotations.rows import read_json
from vtr_jax.data.split import Split, VideoClip

TEST_LISTS = {"1k5": "test_list.txt", "1k5_sec": "test1k5_sec_list.txt"}
# One object by video id; or else the lists of the official release, or of InternVideo (_ceph).
DATA_FILE = "vatex_data.json"
OFFICIAL_FILES = (
    *("vatex_training_v1.0.json", "vatex_training_v1.0_ceph.json"),
    *("vatex_validation_v1.0.json", "vatex_validation_v1.0_ceph.json"),
)


def read_vatex(
    annotations_dir: str | os.PathLike[str],
    split: str,
    *,
    test_list: str = "1k5",
    captions_file: str | os.PathLike[str] | None = None,
    system: str = "clip4clip",
) -> Split:
    """Read a split of VATEX: its videos in list order, each with its English captions in order.

    Args:
        annotations_dir: the folder with train_list.txt, val_list.txt, test_list.txt or
            test1k5_sec_list.txt, and the captions unless given.
        split: "train", "val" or "test".
        test_list: "1k5" (half of the official validation set, the other half being val) or
            "1k5_sec" (another 1,500, which shares 776 videos with val).
        captions_file: a JSON file, either an object of {enCap: [...]} by video id or a list of
            {videoID, enCap: [...]}; None = vatex_data.json in the folder, or else all of
            vatex_{training,validation}_v1.0.json or ..._v1.0_ceph.json that are there.
        system: "internvideo" leaves listed videos without captions out, and notes their number;
            the others refuse them.

    Raises:
        FileNotFoundError: no such folder, or captions_file is not there.
        MissingSplit: the list of this split is not in the folder; MissingCaptions: the captions
            are not.
        ValueError: unknown split, test_list or system, or files that are not as expected.
    """
    folder = annotation_folder(annotations_dir, "VATEX's lists", split, system)
    check_choice("test_list", test_list, TEST_LISTS)
    list_name = TEST_LISTS[test_list] if split == "test" else f"{split}_list.txt"
    list_path = find_annotation(folder, [list_name], split)
    ids = read_list(list_path)
    if captions_file is None:
        paths = _caption_paths(folder)
    else:
        paths = [given_annotation("captions_file", captions_file, folder)]
    if not paths:
        raise MissingCaptions(
            f"split {split!r} ({len(ids)} videos in {list_name}) needs {DATA_FILE}, or "
            "vatex_{training,validation}_v1.0.json (or ..._v1.0_ceph.json): none is in "
            f"{folder}; fetch VATEX's captions, or pass --captions_file=FILE",
            map(_clip, ids),
        )
    captions_of = _captions(paths)
    notes: tuple[str, ...] = ()
    if system == "internvideo":
        listed, ids = ids, [each for each in ids if captions_of.get(each)]
        if len(ids) < len(listed):
            bare = len(listed) - len(ids)
            notes = (f"{bare} of {len(listed)} videos left out, as internvideo does: no captions",)
    sources = ", ".join(map(str, paths))
    require_captions(list_path, ids, captions_of, sources)
    if not ids:
        raise ValueError(f"{list_path}: none of its {len(listed)} videos has captions in {sources}")
    clips = [_clip(video_id) for video_id in ids]
    return grouped_split("vatex", split, clips, captions_of, notes)


def _clip(video_id: str) -> VideoClip:
    return VideoClip(video_id, f"{video_id}.mp4")


def _caption_paths(folder: Path) -> list[Path]:
    if (folder / DATA_FILE).is_file():
        return [folder / DATA_FILE]
    return [folder / name for name in OFFICIAL_FILES if (folder / name).is_file()]


def _captions(paths: list[Path]) -> dict[str, list[str]]:
    """Captions by video id, of all files together."""
    captions_of: dict[str, list[str]] = {}
    source: dict[str, Path] = {}
    for path in paths:
        for place, video_id, captions in _entries(path, read_json(path)):
            if video_id in source:
                raise ValueError(f"{path}: {place} is in {source[video_id]} before")
            source[video_id] = path
            captions_of[video_id] = captions
    return captions_of


def _entries(path: Path, data: Any) -> Iterator[tuple[str, str, list[str]]]:
    """Where in the file, video id and captions of every entry."""
    if isinstance(data, dict):
        named = [(video_id, video_id, entry) for video_id, entry in data.items()]
    elif isinstance(data, list):
        ids = [entry.get("videoID") if isinstance(entry, dict) else None for entry in data]
        named = [
            (f"entry {n} ({video_id})", video_id, entry)
            for n, (video_id, entry) in enumerate(zip(ids, data, strict=True))
        ]
    else:
        raise ValueError(
            f"{path}: {reprlib.repr(data)}, expected an object of video ids, or a list of objects "
            "with videoID and enCap"
        )
    for place, video_id, entry in named:
        captions = entry.get("enCap") if isinstance(entry, dict) else None
        is_list = isinstance(captions, list) and all(isinstance(each, str) for each in captions)
        if not isinstance(video_id, str) or not is_list:
            raise ValueError(
                f"{path}: {place} is {reprlib.repr(entry)}, expected an object with the list of "
                "texts enCap"
            )
        yield place, video_id, list(captions or ())
