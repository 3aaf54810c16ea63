"""Names of ArrowLuo/CLIP4Clip: CLIP under `clip.`, the heads beside it."""

from __future__ import annotations

from vtr_jax.convert.names.rows import (
    AGGREGATION_ROWS,
    CROSS_ROWS,
    PREFIX,
    PREFIXED_CLIP_ROWS,
    PREFIXED_SCALARS,
    NameTable,
)

CLIP4CLIP_NAMES = NameTable(
    rows=(*PREFIXED_CLIP_ROWS, *AGGREGATION_ROWS, *CROSS_ROWS),
    clip_prefix=PREFIX,
    ignored=PREFIXED_SCALARS,
)
