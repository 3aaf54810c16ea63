"""Groups of rows that several systems share: towers, frame aggregation, cross-encoder.

A system's table puts together what it has:

NameTable(
    rows=(*PREFIXED_CLIP_ROWS, *AGGREGATION_ROWS, Row("my.weight", "head/kernel", LINEAR)),
    clip_prefix=PREFIX,
    ignored=PREFIXED_SCALARS,
)
"""

from __future__ import annotations

from vtr_jax.convert.names.row import CONV2D, CONV3D, LINEAR, NameTable, Row, block_rows

PREFIX = "clip."

# Scalars of released archives; the shapes say the same.
SCALARS = ("input_resolution", "context_length", "vocab_size")
PREFIXED_SCALARS = tuple(PREFIX + name for name in SCALARS)

# openai/CLIP. Two plain matrices are used untransposed, every Linear transposed.
CLIP_ROWS: tuple[Row, ...] = (
    Row("positional_embedding", "text/position_embedding"),
    Row("text_projection", "text/projection"),
    Row("logit_scale", "logit_scale"),
    Row("visual.class_embedding", "visual/class_embedding"),
    Row("visual.positional_embedding", "visual/position_embedding"),
    Row("visual.proj", "visual/projection"),
    Row("visual.conv1.weight", "visual/patch_embedding/kernel", CONV2D),
    Row("visual.ln_pre.weight", "visual/ln_pre/scale"),
    Row("visual.ln_pre.bias", "visual/ln_pre/bias"),
    *block_rows("visual.transformer.resblocks.{}", "visual/transformer/blocks"),
    Row("visual.ln_post.weight", "visual/ln_post/scale"),
    Row("visual.ln_post.bias", "visual/ln_post/bias"),
    *block_rows("transformer.resblocks.{}", "text/transformer/blocks"),
    Row("token_embedding.weight", "text/token_embedding/embedding"),
    Row("ln_final.weight", "text/ln_final/scale"),
    Row("ln_final.bias", "text/ln_final/bias"),
)

# CLIP inside a trained retriever; conv2 is there with linear_patch=3d.
PREFIXED_CLIP_ROWS: tuple[Row, ...] = (
    *(row.prefixed(PREFIX) for row in CLIP_ROWS),
    Row("clip.visual.conv2.weight", "visual/patch_embedding_3d/kernel", CONV3D),
)

# seqTransf; seqLSTM keeps the position embeddings too, and never reads them.
AGGREGATION_ROWS: tuple[Row, ...] = (
    Row("frame_position_embeddings.weight", "aggregation/position_embedding"),
    *block_rows("transformerClip.resblocks.{}", "aggregation/transformer/blocks"),
    Row("lstm_visual.weight_ih_l0", "aggregation/input_kernel", LINEAR),
    Row("lstm_visual.weight_hh_l0", "aggregation/hidden_kernel", LINEAR),
    Row("lstm_visual.bias_ih_l0", "aggregation/input_bias"),
    Row("lstm_visual.bias_hh_l0", "aggregation/hidden_bias"),
)

# The cross-encoder over one text and the frames of one clip: tightTransf, xti.
CROSS_ROWS: tuple[Row, ...] = (
    Row("cross.embeddings.position_embeddings.weight", "cross/position_embedding"),
    *block_rows("cross.transformer.resblocks.{}", "cross/transformer/blocks"),
    Row("cross.pooler.ln_pool.weight", "cross/ln_pool/scale"),
    Row("cross.pooler.ln_pool.bias", "cross/ln_pool/bias"),
    Row("cross.pooler.dense.weight", "cross/pooler/kernel", LINEAR),
    Row("cross.pooler.dense.bias", "cross/pooler/bias"),
    Row("similarity_dense.weight", "cross/score/kernel", LINEAR),
    Row("similarity_dense.bias", "cross/score/bias"),
)

# The weight of every word and frame (wti): alone with wti_arch 1, else numbered by layer.
TOKEN_WEIGHT_ROWS: tuple[Row, ...] = tuple(
    row
    for side in ("text", "video")
    for theirs, ours in (("", ""), (".0", "_0"), (".2", "_2"), (".4", "_4"))
    for row in (
        Row(f"{side}_weight_fc{theirs}.weight", f"{side}_weight/linear{ours}/kernel", LINEAR),
        Row(f"{side}_weight_fc{theirs}.bias", f"{side}_weight/linear{ours}/bias"),
    )
)

__all__ = [
    "AGGREGATION_ROWS",
    "CLIP_ROWS",
    "CONV2D",
    "CONV3D",
    "CROSS_ROWS",
    "LINEAR",
    "PREFIX",
    "PREFIXED_CLIP_ROWS",
    "PREFIXED_SCALARS",
    "SCALARS",
    "TOKEN_WEIGHT_ROWS",
    "NameTable",
    "Row",
    "block_rows",
]
