"""Names of openai/CLIP, and of every program that keeps them."""

from __future__ import annotations

from vtr_jax.convert.names.rows import CLIP_ROWS, SCALARS, NameTable

CLIP_NAMES = NameTable(rows=CLIP_ROWS, ignored=SCALARS)
