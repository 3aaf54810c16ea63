"""Names of ArrowLuo/CLIP4Clip: CLIP under `clip.`, the heads beside it."""

from __future__ import annotations

from vtr_jax.convert.names.clip import CLIP_ROWS, SCALARS
from vtr_jax.convert.names.rows import CONV3D, NameTable, Row, block_rows

PREFIX = "clip."

# The temporal Transformer's names, the same in every system that has it.
TEMPORAL_ROWS: tuple[Row, ...] = (
    Row("frame_position_embeddings.weight", "aggregation/position_embedding"),
    *block_rows("transformerClip.resblocks.{}", "aggregation/transformer/blocks"),
)

CLIP4CLIP_NAMES = NameTable(
    rows=(
        *(row.prefixed(PREFIX) for row in CLIP_ROWS),
        Row("clip.visual.conv2.weight", "visual/patch_embedding_3d/kernel", CONV3D),
        *TEMPORAL_ROWS,
    ),
    clip_prefix=PREFIX,
    ignored=tuple(PREFIX + name for name in SCALARS),
)
