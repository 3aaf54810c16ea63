"""Which original parameter is which of ours: one table of rows a system."""

from __future__ import annotations

from vtr_jax.convert.names.backbone_tvr import BACKBONE_TVR_NAMES
from vtr_jax.convert.names.clip import CLIP_NAMES
from vtr_jax.convert.names.clip4clip import CLIP4CLIP_NAMES
from vtr_jax.convert.names.drl import DRL_NAMES
from vtr_jax.convert.names.eercf import EERCF_NAMES
from vtr_jax.convert.names.emcl import EMCL_NAMES
from vtr_jax.convert.names.internvideo import INTERNVIDEO_NAMES
from vtr_jax.convert.names.row import NameTable

NAME_TABLES: dict[str, NameTable] = {
    "clip": CLIP_NAMES,
    "clip4clip": CLIP4CLIP_NAMES,
    "drl": DRL_NAMES,
    "backbone_tvr": BACKBONE_TVR_NAMES,
    "emcl": EMCL_NAMES,
    "eercf": EERCF_NAMES,
    "internvideo": INTERNVIDEO_NAMES,
}

__all__ = ["NAME_TABLES", "NameTable"]
