"""Clips stored with fewer frames than their rule chose, because their video ends early.

The originals go on with the frames there are, and so does a store; but a damaged or half fetched
file looks just so, and someone must say it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vtr_jax.files import write_atomically

EARLY_ENDS_FILE = "ends_early.json"
# Containers overstate their length by a frame or so; beyond that, a file is cut off or damaged.
_TOLERATED_SHARE = 0.1


class FrameCounts(NamedTuple):
    """Frames of one clip.

    stored: how many are stored. chosen: how many its rule takes of a video of the stated length.
    note: what is wrong with the file although it can be read.
    """

    stored: int
    chosen: int
    note: str = ""

    @property
    def ends_early(self) -> bool:
        """Whether the video has fewer frames than it states."""
        return self.stored < self.chosen or bool(self.note)

    @property
    def lost(self) -> int:
        """Number of chosen frames that the video lacks."""
        return self.chosen - self.stored

    @property
    def is_problem(self) -> bool:
        """Whether more is missing than containers overstate."""
        return self.lost_much or bool(self.note)

    @property
    def lost_much(self) -> bool:
        """Whether more is missing than one frame and a tenth of them."""
        return self.chosen - self.stored > max(1, _TOLERATED_SHARE * self.chosen)

    def __str__(self) -> str:
        if self.stored < self.chosen:
            return f"ends early: {self.stored} of {self.chosen} chosen frames"
        return f"ends early: {self.note}"


def read_early_ends(store_dir: Path) -> dict[str, FrameCounts]:
    """Clip id -> frame counts of a store's clips that end early; none where nobody noted them."""
    path = store_dir / EARLY_ENDS_FILE
    if not path.exists():
        return {}
    try:
        noted = json.loads(path.read_text())
        return {clip_id: FrameCounts(*counts) for clip_id, counts in noted.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise OSError(f"{path}: damaged ({error}); delete it, the frames are not in it") from error


def write_early_ends(store_dir: Path, early: Mapping[str, FrameCounts]) -> None:
    """Notes the clips of a store that end early, beside its record files."""
    lines = json.dumps({clip_id: early[clip_id] for clip_id in sorted(early)}, indent=0)
    write_atomically(store_dir / EARLY_ENDS_FILE, (lines + "\n").encode())
