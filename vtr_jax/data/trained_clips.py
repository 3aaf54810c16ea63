"""The clips that a run trains on, kept beside it: no score on them is worth anything."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from vtr_jax.data.split import Split, VideoClip, check_overlap
from vtr_jax.files import write_atomically

TRAINED_CLIPS_FILE = "trained_clips.json"


def write_trained_clips(directory: Path, train: Split) -> None:
    """Write ids, files and times of the clips of a split to DIR/trained_clips.json."""
    clips = [list(dataclasses.astuple(clip)) for clip in train.clips]
    content = json.dumps({"dataset": train.dataset, "clips": clips}) + "\n"
    write_atomically(directory / TRAINED_CLIPS_FILE, content.encode())


def clips_trained_on(directory: Path, split: Split) -> list[str] | None:
    """Ids of the clips of a split that a run trained on, as check_overlap finds them.

    None where the directory is no run: nobody knows. Raises ValueError for a damaged file.
    """
    path = directory / TRAINED_CLIPS_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        clips = tuple(VideoClip(*clip) for clip in content["clips"])
        train = Split(content["dataset"], "train", clips, (), np.zeros(0, np.int32))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: damaged, expected the clips of the run as JSON ({error}); the same "
            "`vtr train` command writes it again"
        ) from error
    return check_overlap(train, split)
