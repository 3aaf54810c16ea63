"""Names of shallowdream66/BackBone_tvr: DRL's, without a cross-encoder."""

from __future__ import annotations

from vtr_jax.convert.names.rows import (
    AGGREGATION_ROWS,
    PREFIX,
    PREFIXED_CLIP_ROWS,
    PREFIXED_SCALARS,
    TOKEN_WEIGHT_ROWS,
    NameTable,
)

BACKBONE_TVR_NAMES = NameTable(
    rows=(*PREFIXED_CLIP_ROWS, *AGGREGATION_ROWS, *TOKEN_WEIGHT_ROWS),
    clip_prefix=PREFIX,
    ignored=PREFIXED_SCALARS,
)
