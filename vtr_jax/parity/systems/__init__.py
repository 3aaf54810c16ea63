"""What each original system records, one file a system."""

from __future__ import annotations

from vtr_jax.parity.recorded import RecordedSystem
from vtr_jax.parity.systems.backbone_tvr import BACKBONE_TVR
from vtr_jax.parity.systems.clip import CLIP
from vtr_jax.parity.systems.clip4clip import CLIP4CLIP
from vtr_jax.parity.systems.drl import DRL
from vtr_jax.parity.systems.eercf import EERCF
from vtr_jax.parity.systems.emcl import EMCL
from vtr_jax.parity.systems.internvideo import INTERNVIDEO

SYSTEMS: dict[str, RecordedSystem] = {
    "clip": CLIP,
    "clip4clip": CLIP4CLIP,
    "drl": DRL,
    "backbone_tvr": BACKBONE_TVR,
    "emcl": EMCL,
    "eercf": EERCF,
    "internvideo": INTERNVIDEO,
}

__all__ = ["SYSTEMS"]
