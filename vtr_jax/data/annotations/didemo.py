"""DiDeMo: a paragraph a video, or a description a moment."""

from __future__ import annotations

import os
import reprlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vtr_jax.data.annotations.choices import annotation_folder, check_flag, find_annotation
from vtr_jax.data.annotations.listed import read_list
from vtr_jax.data.annotations.pairs import split_of_pairs, timed_id
from vtr_jax.data.annotations.rows import read_json
from vtr_jax.data.frame_choice import cut_to_whole_seconds
from vtr_jax.data.split import Split, VideoClip, clip_name

# The annotations cover the first 30 seconds; the originals read the second that 30 names too.
START, END = 0.0, 31.0
SEGMENT_SECONDS = 5.0


def read_didemo(
    annotations_dir: str | os.PathLike[str],
    split: str,
    *,
    moments: bool = False,
    whole_seconds: bool = False,
    system: str = "clip4clip",
) -> Split:
    """Read a split of DiDeMo: the listed videos, in the order they first occur in the JSON file.

    A video is one clip, from 0 to 31 seconds, and its caption is all its descriptions joined by
    one space (paragraph retrieval).

    Args:
        annotations_dir: the folder with {train,val,test}_data.json and {train,val,test}_list.txt;
            the names of videos in both may have their extensions or not.
        split: "train", "val" or "test".
        moments: every description is a caption of its own, of the stretch it was written for: the
            mean start to the mean end of what its annotators marked, in segments of 5 seconds.
        whole_seconds: cut the times of moments down to whole seconds, as the originals' loader
            does. Their frames may then lie outside the moment.
        system: all read alike. A video file may have any extension, whatever its listed name
            ends in.

    Raises:
        FileNotFoundError: no such folder.
        MissingSplit: the list or the descriptions of this split are not in it.
        ValueError: unknown split or system, or files that are not as expected.
    """
    folder = annotation_folder(annotations_dir, "DiDeMo's JSON files and lists", split, system)
    check_flag("moments", moments)
    check_flag("whole_seconds", whole_seconds)
    list_path = find_annotation(folder, [f"{split}_list.txt"], split)
    path = find_annotation(folder, [f"{split}_data.json", f"{split}_data.json.gz"], split)
    listed = read_list(list_path)
    entries = _read_entries(path)
    listed_names = _listed_names(listed, entries)
    by_video: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        if entry["video"] in listed_names:
            by_video[listed_names[entry["video"]]].append(entry)
    if not by_video:
        raise ValueError(
            f"{list_path}: none of its {len(listed)} videos has descriptions in {path}, with or "
            f"without extension; it lists {listed[0]}, the other holds {entries[0]['video']}"
        )
    pairs: list[tuple[VideoClip, str]] = []
    for name, of_video in by_video.items():
        if moments:
            pairs += [
                (_moment(path, name, entry, whole_seconds), entry["description"])
                for entry in of_video
            ]
        else:
            text = " ".join(entry["description"] for entry in of_video)
            pairs.append((_clip(name, name, START, END), text))
    return split_of_pairs("didemo", split, pairs, _notes(listed, entries, by_video))


def _notes(listed: list[str], entries: list[Any], by_video: dict[str, Any]) -> tuple[str, ...]:
    notes = []
    if len(by_video) < len(listed):
        bare = len(listed) - len(by_video)
        notes.append(f"{bare} of {len(listed)} listed videos left out: no descriptions")
    unused = len(entries) - sum(map(len, by_video.values()))
    if unused:
        notes.append(f"{unused} of {len(entries)} descriptions left out: video not listed")
    return tuple(notes)


def _listed_names(listed: Sequence[str], entries: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The listed name of each video: the same, or where none is, the one but for extensions.

    Never both: the JSON files hold some videos twice, under two extensions, and list one of them.
    """
    videos = {entry["video"] for entry in entries}
    same = videos & set(listed)
    if same:
        return {name: name for name in same}
    by_bare = {_bare(name): name for name in listed}
    return {video: by_bare[_bare(video)] for video in videos if _bare(video) in by_bare}


def _bare(name: str) -> str:
    return name.rpartition(".")[0] or name


def _clip(clip_id: str, name: str, start: float, end: float) -> VideoClip:
    # Some names end in a bare dot, in .null or in nothing, so their files were saved as others.
    others = () if clip_name(name) != name else (f"{_bare(name)}.mp4", f"{name}.mp4")
    return VideoClip(clip_id, name, start, end, other_names=others)


def _moment(path: Path, name: str, entry: dict[str, Any], is_cut: bool) -> VideoClip:
    times = entry.get("times")
    if not isinstance(times, list) or not times or not all(map(_is_stretch, times)):
        raise ValueError(
            f"{path}: a description of {name} has times {reprlib.repr(times)}, expected pairs of "
            "first and last segment"
        )
    first, last = np.mean(times, axis=0)
    start = round(float(first) * SEGMENT_SECONDS, 3)
    end = round(float(last + 1) * SEGMENT_SECONDS, 3)
    times = cut_to_whole_seconds(start, end) if is_cut else (start, end)
    return _clip(timed_id(name, start, end), name, *times)


def _is_stretch(pair: Any) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    return all(type(each) is int for each in pair) and 0 <= pair[0] <= pair[1] < 1000


def _read_entries(path: Path) -> list[dict[str, Any]]:
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: {reprlib.repr(entries)}, expected a list of descriptions")
    for place, entry in enumerate(entries):
        cells = entry if isinstance(entry, dict) else {}
        texts = cells.get("video"), cells.get("description")
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(
                f"{path}: entry {place} is {reprlib.repr(entry)}, expected an object with the "
                "texts 'video' and 'description'"
            )
    return entries
