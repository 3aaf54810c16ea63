"""Names of openai/CLIP. Two plain matrices are used untransposed, every Linear transposed."""

from __future__ import annotations

from vtr_jax.convert.names.rows import CONV2D, NameTable, Row, block_rows

# Scalars of released archives; the shapes say the same.
SCALARS = ("input_resolution", "context_length", "vocab_size")

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

CLIP_NAMES = NameTable(rows=CLIP_ROWS, ignored=SCALARS)
