"""ActivityNet Captions: a paragraph a video, or a sentence a moment."""

from __future__ import annotations

import math
import os
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any

from vtr_jax.data.annotations.choices import (
    annotation_folder,
    check_choice,
    check_flag,
    find_annotation,
)
from vtr_jax.data.annotations.listed import read_list
from vtr_jax.data.annotations.pairs import split_of_pairs, timed_id
from vtr_jax.data.annotations.rows import read_json
from vtr_jax.data.frame_choice import cut_to_whole_seconds
from vtr_jax.data.split import Split, VideoClip

PREFIX = "v_"
# Ids of the originals, or else of collaborative-experts, who list only those with captions.
ID_FILES = {
    "train": ["train_ids.json", "train_list.txt"],
    "val_1": ["val_ids.json", "val_1_list.txt"],
    "val_2": ["val_ids.json", "val_2_list.txt"],
}
_SHOWN = 5


def read_activitynet(
    annotations_dir: str | os.PathLike[str],
    split: str,
    *,
    moments: bool = False,
    whole_seconds: bool = False,
    val_file: str = "val_1",
    system: str = "clip4clip",
) -> Split:
    """Read a split of ActivityNet Captions, videos in the order of their list.

    A video is one clip, from 0 to its length rounded up to whole seconds, and its caption is all
    its sentences joined by one space (paragraph retrieval). Listed ids without sentences are left
    out, as in the originals; their number stands in the notes.

    Args:
        annotations_dir: the folder with train.json, val_1.json (each may be gzipped) and the ids
            train_ids.json and val_ids.json.
        split: "train", "val" or "test"; the last two are the same videos, for the originals test
            on val_1.
        moments: every sentence is a caption of its own, of the stretch it was written for.
        whole_seconds: cut the times of moments down to whole seconds, as the originals' loader
            does. Their frames may then lie outside the moment.
        val_file: "val_1", or "val_2", which describes the same videos again.
        system: all read alike. The names v_ID and ID of a video file are both found.

    Raises:
        FileNotFoundError: no such folder.
        MissingSplit: the ids or sentences of this split are not in it.
        ValueError: unknown split, val_file or system, or files that are not as expected.
    """
    folder = annotation_folder(annotations_dir, "ActivityNet Captions' JSON files", split, system)
    check_choice("val_file", val_file, ("val_1", "val_2"))
    check_flag("moments", moments)
    check_flag("whole_seconds", whole_seconds)
    name = "train" if split == "train" else val_file
    list_path = find_annotation(folder, ID_FILES[name], split)
    path = find_annotation(folder, [f"{name}.json", f"{name}.json.gz"], split)
    ids = _read_ids(list_path)
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: a {type(data).__name__}, expected an object of video ids")
    captioned = [video_id for video_id in ids if video_id in data]
    if not captioned:
        raise ValueError(
            f"{list_path}: none of its {len(ids)} ids has sentences in {path}, which holds ids "
            f"like {reprlib.repr(list(data)[:_SHOWN])}"
        )
    bare = [video_id for video_id in ids if video_id not in data]
    notes = [f"{len(bare)} of {len(ids)} ids left out: no sentences"] if bare else []
    pairs: list[tuple[VideoClip, str]] = []
    empty = 0
    for video_id in captioned:
        entry = _checked(path, video_id, data[video_id])
        if not moments:
            pairs.append((_clip(video_id, 0.0, math.ceil(entry["duration"])), _paragraph(entry)))
            continue
        for (start, end), sentence in zip(entry["timestamps"], entry["sentences"], strict=True):
            empty += start >= end
            if start < end:
                moment = _moment(video_id, start, end, whole_seconds)
                pairs.append((moment, sentence.strip()))
    if empty:
        notes.append(f"{empty} moments left out: start is not before end")
    return split_of_pairs("activitynet", split, pairs, tuple(notes))


def _paragraph(entry: dict[str, Any]) -> str:
    return " ".join(entry["sentences"])


def _clip(video_id: str, start: float, end: float) -> VideoClip:
    # A YouTube id may begin with v_ itself, so the prefix goes once.
    other = video_id.removeprefix(PREFIX) if video_id.startswith(PREFIX) else PREFIX + video_id
    return VideoClip(video_id, f"{video_id}.mp4", start, float(end), other_names=(f"{other}.mp4",))


def _moment(video_id: str, start: float, end: float, is_cut: bool) -> VideoClip:
    whole = _clip(video_id, float(start), end)
    moment_id = timed_id(video_id, whole.start, whole.end)
    times = cut_to_whole_seconds(start, end) if is_cut else (whole.start, whole.end)
    return VideoClip(moment_id, whole.file, *times, whole.other_names)


def _read_ids(path: Path) -> list[str]:
    if path.suffix != ".json":
        return read_list(path)
    ids = read_json(path)
    if not isinstance(ids, list) or not ids or not all(isinstance(each, str) for each in ids):
        raise ValueError(f"{path}: {reprlib.repr(ids)}, expected a list of video ids")
    repeated = [each for each, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{path}: {len(repeated)} ids stand twice, e.g. {', '.join(repeated[:_SHOWN])}"
        )
    return ids


def _checked(path: Path, video_id: str, entry: Any) -> dict[str, Any]:
    cells = entry if isinstance(entry, dict) else {}
    duration, times, sentences = (
        cells.get(name) for name in ("duration", "timestamps", "sentences")
    )
    if not _is_seconds(duration) or duration == 0:
        found = f"duration {reprlib.repr(duration)}, expected seconds above 0"
    elif not isinstance(sentences, list) or not all(isinstance(text, str) for text in sentences):
        found = f"sentences {reprlib.repr(sentences)}, expected a list of texts"
    elif not any(text.strip() for text in sentences):
        found = "no sentence that is not blank"
    elif not isinstance(times, list) or len(times) != len(sentences):
        found = f"timestamps {reprlib.repr(times)}, expected a pair for each sentence"
    elif not all(isinstance(t, list) and len(t) == 2 and all(map(_is_seconds, t)) for t in times):
        found = f"timestamps {reprlib.repr(times)}, expected pairs of seconds"
    else:
        return cells
    raise ValueError(f"{path}: {video_id} has {found}")


def _is_seconds(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < math.inf
