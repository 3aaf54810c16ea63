"""Names of foolwood/DRL: CLIP under `clip.`, the heads beside it, as in CLIP4Clip."""

from __future__ import annotations

from vtr_jax.convert.names.rows import (
    AGGREGATION_ROWS,
    CROSS_ROWS,
    PREFIX,
    PREFIXED_CLIP_ROWS,
    PREFIXED_SCALARS,
    TOKEN_WEIGHT_ROWS,
    NameTable,
)

DRL_NAMES = NameTable(
    rows=(*PREFIXED_CLIP_ROWS, *AGGREGATION_ROWS, *TOKEN_WEIGHT_ROWS, *CROSS_ROWS),
    clip_prefix=PREFIX,
    ignored=PREFIXED_SCALARS,
)
