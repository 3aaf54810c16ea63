"""Names of adxcreative/EERCF: CLIP4Clip's, and the two matrices that start as identities."""

from __future__ import annotations

from vtr_jax.convert.names.rows import (
    AGGREGATION_ROWS,
    PREFIX,
    PREFIXED_CLIP_ROWS,
    PREFIXED_SCALARS,
    NameTable,
    Row,
)

EERCF_NAMES = NameTable(
    rows=(
        Row("global_mat_weight", "gating/sentence_matrix"),
        Row("frame_logit_weight", "gating/frame_matrix"),
        *PREFIXED_CLIP_ROWS,
        *AGGREGATION_ROWS,
    ),
    clip_prefix=PREFIX,
    ignored=PREFIXED_SCALARS,
)
