"""What each original system records, one file a system."""

from __future__ import annotations

from vtr_jax.parity.recorded import RecordedSystem
from vtr_jax.parity.systems.clip import CLIP
from vtr_jax.parity.systems.clip4clip import CLIP4CLIP

SYSTEMS: dict[str, RecordedSystem] = {"clip": CLIP, "clip4clip": CLIP4CLIP}

__all__ = ["SYSTEMS"]
