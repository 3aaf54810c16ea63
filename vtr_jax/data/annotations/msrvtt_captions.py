"""MSR-VTT's captions: the JSON file that holds those of all its videos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vtr_jax.data.annotations.choices import MissingSplit, given_annotation
from vtr_jax.data.annotations.listed import require_captions
from vtr_jax.data.annotations.rows import read_json

DATA_FILE = "MSRVTT_data.json"


def captions_of_videos(
    folder: Path, data_file: str | os.PathLike[str] | None, list_path: Path, ids: list[str]
) -> list[tuple[str, str]]:
    """Video id and caption of every sentence about the listed ids, in file order.

    Raises MissingSplit where no file has them, FileNotFoundError where data_file is not there, and
    ValueError for files that are not as expected.
    """
    if data_file is not None:
        path = given_annotation("data_file", data_file, folder)
    else:
        path = folder / DATA_FILE
        path = path if path.is_file() else _search_data(folder, list_path)
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
            "beside it holds 'videos' and 'sentences': fetch MSR-VTT's captions, or pass "
            "--data_file=FILE"
        )
    if len(fitting) > 1:
        names = ", ".join(path.name for path in fitting)
        raise ValueError(f"{folder}: several files hold captions, pass one as --data_file: {names}")
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
