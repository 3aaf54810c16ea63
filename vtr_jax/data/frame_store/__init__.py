"""The frame store: every video clip decoded once, its frames kept as images in record files.

`prepare` writes a store from video files, `FrameStore` reads it. The directory is a dataset in
tensorflow-datasets' own format: `tfds.builder_from_directory(store_dir)` opens it too.
"""

from __future__ import annotations

from vtr_jax.data.frame_store.beam import BeamRunner
from vtr_jax.data.frame_store.estimate import PrepareEstimate, estimate
from vtr_jax.data.frame_store.prepare import TooManyBadVideos, prepare
from vtr_jax.data.frame_store.report import BadClip, PrepareReport
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.frame_store.store import DamagedStore, FrameStore

__all__ = [
    "BadClip",
    "BeamRunner",
    "DamagedStore",
    "FrameStore",
    "PrepareEstimate",
    "PrepareReport",
    "StoreSettings",
    "TooManyBadVideos",
    "estimate",
    "prepare",
]
