"""MSR-VTT: its lists of videos and its captions, as CLIP4Clip's loaders read them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from vtr_jax.data.annotations.rows import BadRow, Row, read_csv, read_json, refuse_bad_rows
from vtr_jax.data.split import Split, VideoClip

TRAIN_LISTS = {
    "9k": "MSRVTT_train.9k.csv",
    "7k": "MSRVTT_train.7k.csv",
    "full": "MSRVTT_train.full.csv",
}
VAL_LIST = "MSRVTT_val.full.csv"
TEST_LISTS = {"1k-A": "MSRVTT_JSFUSION_test.csv", "full": "MSRVTT_test.full.csv"}
DATA_FILE = "MSRVTT_data.json"


def read_msrvtt(
    annotations_dir: str | os.PathLike[str],
    split: str,
    *,
    train_list: str = "9k",
    test_list: str = "1k-A",
    data_file: str | os.PathLike[str] | None = None,
) -> Split:
    """Read a split of MSR-VTT.

    Clips stand in the order of their list. Training captions (20 a video) stand in the order of
    the data file; those of the validation and the full test set are grouped by clip; the 1k-A
    test set has one caption a clip.

    Args:
        annotations_dir: the folder with the lists, and the data file unless given.
        split: "train", "val" or "test".
        train_list: "9k", "7k" or "full".
        test_list: "1k-A" (1,000 videos, one caption each) or "full" (2,990 videos, all captions).
        data_file: the JSON file with videos and sentences; None = MSRVTT_data.json in the folder,
            or else its one JSON file of that form. 1k-A needs none.

    Raises:
        FileNotFoundError: a list or the data file is missing.
        ValueError: unknown split or list, a validation list that would overlap with training, or
            files that are not as expected (naming file and line).
    """
    folder = Path(annotations_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected the one with MSR-VTT's lists")
    _check_known("train_list", train_list, TRAIN_LISTS)
    _check_known("test_list", test_list, TEST_LISTS)
    if split == "train":
        return _in_data_file_order(split, folder / TRAIN_LISTS[train_list], folder, data_file)
    if split == "val" and train_list == "full":
        return _grouped_by_clip(split, folder / VAL_LIST, folder, data_file)
    if split == "val":
        raise ValueError(
            f"MSR-VTT's validation videos are part of its {train_list} training list; use "
            "train_list='full', or split='test' to select on the test set as the originals do"
        )
    if split != "test":
        raise ValueError(f"split is {split!r}, expected train, val or test")
    if test_list == "full":
        return _grouped_by_clip(split, folder / TEST_LISTS["full"], folder, data_file)
    return _one_caption_a_clip(split, folder / TEST_LISTS["1k-A"])


def _in_data_file_order(
    split: str, list_path: Path, folder: Path, data_file: str | os.PathLike[str] | None
) -> Split:
    clips = _listed_clips(list_path, _list_rows(list_path, ["video_id"]))
    data_path, data = _load_data(folder, data_file)
    index_of = {clip.clip_id: index for index, clip in enumerate(clips)}
    captions: list[str] = []
    relation: list[int] = []
    for video_id, caption in _sentences(data_path, data):
        if video_id in index_of:
            captions.append(caption)
            relation.append(index_of[video_id])
    _check_captioned(list_path, clips, set(relation), data_path, data)
    return Split("msrvtt", split, clips, tuple(captions), np.array(relation, np.int32))


def _grouped_by_clip(
    split: str, list_path: Path, folder: Path, data_file: str | os.PathLike[str] | None
) -> Split:
    mixed = _in_data_file_order(split, list_path, folder, data_file)
    order = np.argsort(mixed.caption_clip, kind="stable")
    captions = tuple(mixed.captions[caption] for caption in order)
    return Split("msrvtt", split, mixed.clips, captions, mixed.caption_clip[order])


def _one_caption_a_clip(split: str, list_path: Path) -> Split:
    rows = _list_rows(list_path, ["video_id", "sentence"])
    bad = [BadRow(row.line, "no sentence") for row in rows if not row.cells["sentence"].strip()]
    refuse_bad_rows(list_path, bad)
    captions = tuple(row.cells["sentence"] for row in rows)
    relation = np.arange(len(rows), dtype=np.int32)
    return Split("msrvtt", split, _listed_clips(list_path, rows), captions, relation)


def _list_rows(path: Path, columns: list[str]) -> list[Row]:
    rows, bad = read_csv(path, columns)
    refuse_bad_rows(path, bad)
    if not rows:
        raise ValueError(f"{path}: no videos, expected a line for each below the header")
    return rows


def _listed_clips(path: Path, rows: list[Row]) -> tuple[VideoClip, ...]:
    bad = []
    first_line: dict[str, int] = {}
    for row in rows:
        video_id = row.cells["video_id"].strip()
        if not video_id:
            bad.append(BadRow(row.line, "no video id"))
        elif video_id in first_line:
            bad.append(BadRow(row.line, f"{video_id} stands on line {first_line[video_id]} too"))
        else:
            first_line[video_id] = row.line
    refuse_bad_rows(path, bad)
    return tuple(VideoClip(video_id, f"{video_id}.mp4") for video_id in first_line)


def _load_data(folder: Path, data_file: str | os.PathLike[str] | None) -> tuple[Path, Any]:
    if data_file is None and not (folder / DATA_FILE).is_file():
        return _search_data(folder)
    path = folder / DATA_FILE if data_file is None else Path(data_file)
    data = read_json(path)
    if not _has_captions(data):
        raise ValueError(f"{path}: expected an object with the lists 'videos' and 'sentences'")
    return path, data


def _search_data(folder: Path) -> tuple[Path, Any]:
    contents = {path: read_json(path) for path in sorted(folder.glob("*.json"))}
    fitting = {path: data for path, data in contents.items() if _has_captions(data)}
    if not fitting:
        raise FileNotFoundError(
            f"{folder / DATA_FILE}: no such file, and no other JSON file beside it holds 'videos' "
            "and 'sentences': fetch MSR-VTT's captions, or pass data_file"
        )
    if len(fitting) > 1:
        names = ", ".join(path.name for path in fitting)
        raise ValueError(f"{folder}: several files hold captions, pass one as data_file: {names}")
    return next(iter(fitting.items()))


def _has_captions(data: Any) -> bool:
    return isinstance(data, dict) and all(
        isinstance(data.get(name), list) for name in ("videos", "sentences")
    )


def _sentences(path: Path, data: Any) -> list[tuple[str, str]]:
    pairs = []
    for position, sentence in enumerate(data["sentences"]):
        video_id = sentence.get("video_id") if isinstance(sentence, dict) else None
        caption = sentence.get("caption") if isinstance(sentence, dict) else None
        if not isinstance(video_id, str) or not isinstance(caption, str):
            raise ValueError(
                f"{path}: sentences[{position}] is {str(sentence)[:80]}, expected an object with "
                "the texts 'video_id' and 'caption'"
            )
        pairs.append((video_id, caption))
    return pairs


def _check_captioned(
    list_path: Path, clips: tuple[VideoClip, ...], captioned: set[int], data_path: Path, data: Any
) -> None:
    bare = [clip.clip_id for index, clip in enumerate(clips) if index not in captioned]
    if not bare:
        return
    known = {video.get("video_id") for video in data["videos"] if isinstance(video, dict)}
    unknown = sum(video_id not in known for video_id in bare)
    raise ValueError(
        f"{list_path}: {len(bare)} of {len(clips)} videos have no caption in {data_path} "
        f"({unknown} of them are unknown there), e.g. {', '.join(bare[:10])}"
    )


def _check_known(name: str, value: str, known: dict[str, str]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
