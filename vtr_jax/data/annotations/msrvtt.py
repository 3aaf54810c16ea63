"""MSR-VTT: its lists of videos and its captions."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from vtr_jax.data.annotations.choices import (
    MissingSplit,
    annotation_folder,
    check_choice,
    find_annotation,
)
from vtr_jax.data.annotations.listed import grouped_split, read_list, require_captions
from vtr_jax.data.annotations.rows import BadRow, read_csv, read_json, refuse_bad_rows
from vtr_jax.data.split import Split, VideoClip

# The lists of CLIP4Clip, and under the same name those of collaborative-experts (.txt).
TRAIN_LISTS = {
    "9k": ("MSRVTT_train.9k.csv", "train_list_jsfusion.txt"),
    "7k": ("MSRVTT_train.7k.csv",),
    "full": ("MSRVTT_train.full.csv", "train_list_full.txt"),
    "1k-B": ("train_list_miech.txt",),
}
VAL_LISTS = ("MSRVTT_val.full.csv", "val_list_full.txt")
TEST_LISTS = {
    "1k-A": ("MSRVTT_JSFUSION_test.csv",),
    "full": ("MSRVTT_test.full.csv", "test_list_full.txt"),
    "1k-B": ("test_list_miech.txt",),
}
DATA_FILE = "MSRVTT_data.json"


def read_msrvtt(
    annotations_dir: str | os.PathLike[str],
    split: str,
    *,
    train_list: str = "9k",
    test_list: str = "1k-A",
    data_file: str | os.PathLike[str] | None = None,
    system: str = "clip4clip",
) -> Split:
    """Read a split of MSR-VTT.

    Clips stand in the order of their list. Training captions (20 a video) stand in the order of
    the data file; those of the validation set and of the full and 1k-B test sets are grouped by
    clip; the 1k-A test set has one caption a clip.

    Args:
        annotations_dir: the folder with the lists, and the data file unless given.
        split: "train", "val" or "test".
        train_list: "9k", "7k", "full" or "1k-B".
        test_list: "1k-A" (1,000 videos, one caption each), "full" (2,990 videos, all captions) or
            "1k-B" (another 1,000 videos, all captions).
        data_file: the JSON file with videos and sentences; None = MSRVTT_data.json in the folder,
            or else its one JSON file of that form. 1k-A needs none.
        system: "xpool" groups training captions by clip too; the others read alike.

    Raises:
        FileNotFoundError: no such folder, or data_file is not there.
        MissingSplit: this split's list or captions are not there, or training would hold it.
        ValueError: unknown split, list or system, or files that are not as expected.
    """
    folder = annotation_folder(annotations_dir, "MSR-VTT's lists", split, system)
    check_choice("train_list", train_list, TRAIN_LISTS)
    check_choice("test_list", test_list, TEST_LISTS)
    if split == "val" and train_list != "full":
        raise MissingSplit(
            f"MSR-VTT's validation videos, all or most, are in its {train_list} training list; use "
            "train_list='full', or split='test' to select on the test set as the originals do"
        )
    names = {"train": TRAIN_LISTS[train_list], "val": VAL_LISTS, "test": TEST_LISTS[test_list]}
    list_path = find_annotation(folder, names[split], split)
    if split == "test" and test_list == "1k-A":
        return _one_caption_a_clip(split, list_path)
    ids = read_list(list_path)
    clips = tuple(VideoClip(video_id, f"{video_id}.mp4") for video_id in ids)
    pairs = _captions(folder, data_file, list_path, ids)
    if split == "train" and system != "xpool":
        index_of = {video_id: index for index, video_id in enumerate(ids)}
        relation = np.array([index_of[video_id] for video_id, _ in pairs], np.int32)
        return Split("msrvtt", split, clips, tuple(caption for _, caption in pairs), relation)
    captions_of = defaultdict(list)
    for video_id, caption in pairs:
        captions_of[video_id].append(caption)
    return grouped_split("msrvtt", split, clips, captions_of)


def _one_caption_a_clip(split: str, list_path: Path) -> Split:
    rows, bad = read_csv(list_path, ["video_id", "sentence"])
    bad += [BadRow(row.line, "no sentence") for row in rows if not row.cells["sentence"].strip()]
    refuse_bad_rows(list_path, bad)
    clips = tuple(VideoClip(video_id, f"{video_id}.mp4") for video_id in read_list(list_path))
    captions = tuple(row.cells["sentence"] for row in rows)
    return Split("msrvtt", split, clips, captions, np.arange(len(rows), dtype=np.int32))


def _captions(
    folder: Path, data_file: str | os.PathLike[str] | None, list_path: Path, ids: list[str]
) -> list[tuple[str, str]]:
    """Video id and caption of every sentence about the listed ids, in file order."""
    path = folder / DATA_FILE if data_file is None else Path(data_file)
    if data_file is None and not path.is_file():
        path = _search_data(folder, list_path)
    data = read_json(path)
    if not _has_captions(data):
        raise ValueError(f"{path}: expected an object with the lists 'videos' and 'sentences'")
    pairs = [_pair(path, place, each) for place, each in enumerate(data["sentences"])]
    captions_of = {video_id: (caption,) for video_id, caption in pairs}
    listed = set(ids)
    covered = len(listed & captions_of.keys())
    if covered < len(ids) and path.name != DATA_FILE and data_file is None:
        raise MissingSplit(
            f"{list_path.name} needs {folder / DATA_FILE}: no such file, and the one JSON file of "
            f"its form, {path.name}, has captions of {covered} of {len(ids)} videos"
        )
    require_captions(list_path, ids, captions_of, path)
    return [pair for pair in pairs if pair[0] in listed]


def _search_data(folder: Path, list_path: Path) -> Path:
    fitting = [path for path in sorted(folder.glob("*.json")) if _has_captions(read_json(path))]
    if not fitting:
        raise MissingSplit(
            f"{list_path.name} needs {folder / DATA_FILE}: no such file, and no other JSON file "
            "beside it holds 'videos' and 'sentences': fetch MSR-VTT's captions, or pass data_file"
        )
    if len(fitting) > 1:
        names = ", ".join(path.name for path in fitting)
        raise ValueError(f"{folder}: several files hold captions, pass one as data_file: {names}")
    return fitting[0]


def _has_captions(data: Any) -> bool:
    lists = [data.get(name) for name in ("videos", "sentences")] if isinstance(data, dict) else [0]
    return all(isinstance(each, list) for each in lists)


def _pair(path: Path, place: int, sentence: Any) -> tuple[str, str]:
    cells = sentence if isinstance(sentence, dict) else {}
    video_id, caption = cells.get("video_id"), cells.get("caption")
    if isinstance(video_id, str) and isinstance(caption, str):
        return video_id, caption
    raise ValueError(
        f"{path}: sentences[{place}] is {str(sentence)[:80]}, expected an object with the texts "
        "'video_id' and 'caption'"
    )
