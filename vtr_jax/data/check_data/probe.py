"""What a few frames of one video tell of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from vtr_jax.data.decode import UnreadableVideo, frames_at, stated_length
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.sampling import sample_pictures

# Containers overstate their length by a frame or so: what `vtr prepare` takes for a whole video.
_OVERSTATED = 0.1


@dataclass(frozen=True)
class Probe:
    """What one file gave.

    reason: why it cannot be read at all; None = it can. seconds: its length. early: the frame that
    cannot be decoded although it is stated; None = there is none.
    """

    reason: str | None
    seconds: float = 0.0
    early: str | None = None


def probe_file(path: Path) -> Probe:
    """Decode the first frame of a video file, one in its middle, and one near its end.

    Each costs its group of pictures; damage elsewhere is found when the clip is prepared.
    """
    try:
        length = stated_length(path)
        if length.fps <= 0 or length.frame_count <= 0:
            return Probe("no frames")
        last = length.frame_count - 1 - max(1, int(_OVERSTATED * length.frame_count))
        wanted = sorted({0, max(last, 0) // 2, max(last, 0)})
        decoded = sum(1 for _ in frames_at(path, wanted, thread_type="NONE"))
    except UnreadableVideo as error:
        return Probe(error.reason)
    if not decoded:
        return Probe("no decodable frame")
    seconds = length.frame_count / length.fps
    if decoded == len(wanted):
        return Probe(None, seconds)
    return Probe(None, seconds, f"no frame {wanted[decoded]} of {length.frame_count}")


def probe_folder(path: Path, sampling: Sampling) -> Probe:
    """Open the first image that a folder rule takes."""
    try:
        for _ in sample_pictures(path, sampling).pictures:
            break
    except UnreadableVideo as error:
        return Probe(error.reason)
    except ValueError as error:
        return Probe(str(error))
    # Folders have no times: nothing starts behind their end.
    return Probe(None, math.inf)
