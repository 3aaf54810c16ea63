"""Which frames are read of clips whose files are at hand, to find those of two splits that are."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path

from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.sampling import plan_frames
from vtr_jax.data.split import VideoClip


class PlannedFrames:
    """The frames that a rule reads of clips, found without decoding when they are asked for."""

    def __init__(self, found: Mapping[str, Path], sampling: Sampling) -> None:
        """Remember where files are.

        Args:
            found: clip id -> path of its file.
            sampling: the rule.
        """
        self._found = found
        self._sampling = sampling
        self._frames: dict[tuple[Path, float | None, float | None], frozenset[int]] = {}

    def file_of(self, clip: VideoClip) -> Hashable:
        """Return the path of a clip's file; its name in the annotations if none was found."""
        return self._found.get(clip.clip_id, clip.file)

    def share(self, one: VideoClip, other: VideoClip) -> bool:
        """Return whether a frame is read for both of two clips of a file."""
        return not self._read(one).isdisjoint(self._read(other))

    def _read(self, clip: VideoClip) -> frozenset[int]:
        path = self._found.get(clip.clip_id)
        if path is None:
            return frozenset()
        key = (path, clip.start, clip.end)
        if key not in self._frames:
            try:
                plan = plan_frames(path, self._sampling, clip.start, clip.end)
                self._frames[key] = frozenset(plan.indices)
            except (OSError, ValueError):  # no frame is read of it, which is reported elsewhere
                self._frames[key] = frozenset()
        return self._frames[key]
