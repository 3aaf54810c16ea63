"""Names of InternVideo's retrieval program: its own CLIP under `clip.`, the scorers beside it."""

from __future__ import annotations

from vtr_jax.convert.names.row import block_rows
from vtr_jax.convert.names.rows import (
    CLIP_ROWS,
    CONV3D,
    PREFIX,
    PREFIXED_SCALARS,
    TOKEN_WEIGHT_ROWS,
    NameTable,
    Row,
)

# Where the original has underscores, or a time axis of one tap, CLIP has something else.
RENAMED = {
    "visual.proj": "visual_proj",
    "visual.ln_post.weight": "visual_ln_post.weight",
    "visual.ln_post.bias": "visual_ln_post.bias",
}
CONV1 = "visual.conv1.weight"

_TOWER_ROWS: tuple[Row, ...] = tuple(
    Row(RENAMED.get(row.original, row.original), row.ours, row.axes)
    for row in CLIP_ROWS
    if row.original != CONV1
)

_DECODER = "visual.transformer.dec.{}"
_READERS = "visual/temporal/blocks"
_TEMPORAL_ROWS: tuple[Row, ...] = (
    Row(CONV1, "visual/patch_embedding/kernel", CONV3D),
    Row("visual.transformer.temporal_cls_token", "visual/temporal/token"),
    Row("visual.transformer.balance", "visual/temporal/balance"),
    Row("visual.transformer.dpe.{}.weight", f"{_READERS}/positions/kernel", CONV3D),
    Row("visual.transformer.dpe.{}.bias", f"{_READERS}/positions/bias"),
    *block_rows(_DECODER, _READERS),
    Row(f"{_DECODER}.ln_3.weight", f"{_READERS}/ln_3/scale"),
    Row(f"{_DECODER}.ln_3.bias", f"{_READERS}/ln_3/bias"),
    Row("text_mask_embedding", "text_mask/embedding"),
)

INTERNVIDEO_NAMES = NameTable(
    rows=tuple(row.prefixed(PREFIX) for row in (*_TOWER_ROWS, *_TEMPORAL_ROWS)) + TOKEN_WEIGHT_ROWS,
    clip_prefix=PREFIX,
    ignored=PREFIXED_SCALARS,
)
