"""Names of jpthu17/EMCL's EMCL-Net: CLIP under `clip.`, frame aggregation beside it.

Its bases (mu) are in no checkpoint.
"""

from __future__ import annotations

from vtr_jax.convert.names.rows import (
    AGGREGATION_ROWS,
    PREFIX,
    PREFIXED_CLIP_ROWS,
    PREFIXED_SCALARS,
    NameTable,
)

EMCL_NAMES = NameTable(
    rows=(*PREFIXED_CLIP_ROWS, *AGGREGATION_ROWS),
    clip_prefix=PREFIX,
    ignored=PREFIXED_SCALARS,
)
