"""The clips that a retriever was trained on, kept beside it: no score on them is worth anything."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vtr_jax.data.split import Split, VideoClip, check_overlap
from vtr_jax.files import write_atomically

TRAINED_CLIPS_FILE = "trained_clips.json"


@dataclasses.dataclass(frozen=True)
class TrainedClips:
    """What a retriever was trained on, by its run and by those that it started from.

    splits: their clips, without captions. complete: whether these are all; False where nobody
    knows what else there was.
    """

    splits: tuple[Split, ...]
    complete: bool

    def and_those_of(self, *added: Split) -> TrainedClips:
        """These and the clips of other splits."""
        known = {split.clips for split in added}
        others = [split for split in self.splits if split.clips not in known]
        return TrainedClips((*others, *added), self.complete)

    def among(self, split: Split) -> list[str] | None:
        """Ids of the clips of a split that were trained on, as check_overlap finds them.

        None where none is known to be, but not everything is known.
        """
        found = {clip_id for train in self.splits for clip_id in check_overlap(train, split)}
        if not found and not self.complete:
            return None
        return [clip.clip_id for clip in split.clips if clip.clip_id in found]


NO_CLIPS = TrainedClips((), complete=True)
UNKNOWN_CLIPS = TrainedClips((), complete=False)


def write_trained_clips(directory: Path, trained: TrainedClips) -> None:
    """Write ids, files and times of the clips to DIR/trained_clips.json."""
    splits = [
        {
            "dataset": split.dataset,
            "clips": [list(dataclasses.astuple(clip)) for clip in split.clips],
        }
        for split in trained.splits
    ]
    content = json.dumps({"complete": trained.complete, "splits": splits}) + "\n"
    write_atomically(directory / TRAINED_CLIPS_FILE, content.encode())


def read_trained_clips(directory: Path) -> TrainedClips:
    """What the directory of a retriever tells; UNKNOWN_CLIPS where it tells nothing.

    Raises ValueError for a damaged file.
    """
    path = directory / TRAINED_CLIPS_FILE
    if not path.is_file():
        return UNKNOWN_CLIPS
    try:
        return _read(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: damaged, expected the clips of the run as JSON ({_wrong(error)}); remove it, "
            "and the same `vtr train` command of this folder writes it again"
        ) from error


def _wrong(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _read(content: Mapping[str, Any]) -> TrainedClips:
    # Files of earlier versions hold one split, and do not tell what the run started from.
    told = content.get("splits", [content])
    splits = tuple(
        Split(
            split["dataset"],
            "train",
            tuple(VideoClip(*clip) for clip in split["clips"]),
            (),
            np.zeros(0, np.int32),
        )
        for split in told
    )
    return TrainedClips(splits, bool(content.get("complete", False)))


def clips_trained_on(directory: Path, split: Split) -> list[str] | None:
    """Ids of the clips of a split that a retriever was trained on, None where nobody knows.

    Raises ValueError for a damaged file.
    """
    return read_trained_clips(directory).among(split)


def memory_warning(split: Split, trained_on: list[str]) -> str:
    """What a person should know of scores on a split with clips that were trained on."""
    return (
        f"WARNING: the retriever was trained on {len(trained_on)} of the {len(split.clips)} clips "
        f"of {split.name}, so that these scores measure memory: {', '.join(trained_on[:5])}"
    )
