"""MSR-VTT: its lists of videos and its captions."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from vtr_jax.data.annotations.choices import (
    MissingCaptions,
    MissingSplit,
    annotation_folder,
    check_choice,
    find_annotation,
)
from vtr_jax.data.annotations.listed import grouped_split, ids_of_rows, read_list
from vtr_jax.data.annotations.msrvtt_captions import captions_of_videos
from vtr_jax.data.annotations.rows import BadRow, read_csv, refuse_bad_rows
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
        MissingSplit: this split's list or captions (MissingCaptions) are not there, or training
            would hold it.
        ValueError: unknown split, list or system, or files that are not as expected.
    """
    folder = annotation_folder(annotations_dir, "MSR-VTT's lists", split, system)
    check_choice("train_list", train_list, TRAIN_LISTS)
    check_choice("test_list", test_list, TEST_LISTS)
    if split == "val" and train_list != "full":
        raise MissingSplit(
            f"MSR-VTT's validation videos, all or most, are in its {train_list} training list; use "
            "--train_list=full, or the test split to select on it as the originals do"
        )
    names = {"train": TRAIN_LISTS[train_list], "val": VAL_LISTS, "test": TEST_LISTS[test_list]}
    list_path = find_annotation(folder, names[split], split)
    if split == "test" and test_list == "1k-A":
        return _one_caption_a_clip(split, list_path)
    ids = read_list(list_path)
    clips = tuple(VideoClip(video_id, f"{video_id}.mp4") for video_id in ids)
    try:
        pairs = captions_of_videos(folder, data_file, list_path, ids)
    except MissingSplit as reason:
        raise MissingCaptions(str(reason), clips) from reason
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
    clips = tuple(
        VideoClip(video_id, f"{video_id}.mp4") for video_id in ids_of_rows(list_path, rows, bad)
    )
    captions = tuple(row.cells["sentence"] for row in rows)
    return Split("msrvtt", split, clips, captions, np.arange(len(rows), dtype=np.int32))
