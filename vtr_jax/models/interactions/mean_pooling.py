"""Cosine of the sentence and the mean frame (CLIP4Clip's loose heads, zero-shot CLIP).

v = normalise(mean over real frames of normalise(f)),  logit = exp(s) * normalise(t) . v
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def l2_normalise(x: Array) -> Array:
    """Divide by the L2 norm over the last axis; no epsilon, so a zero vector gives NaN."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def mean_frame(frames_bfd: Array, mask_bf: Array) -> Array:
    """Mean of the normalised real frames, [B,D]; zero for a clip that has none."""
    weights_bf = mask_bf.astype(jnp.float32)
    count_b = weights_bf.sum(axis=1)
    total_bd = jnp.einsum("bf,bfd->bd", weights_bf, l2_normalise(frames_bfd))
    return total_bd / jnp.where(count_b == 0, 1.0, count_b)[:, None]


def cosines(sentence_td: Array, video_vd: Array) -> Array:
    """The cosine of every text and video, float32 [T,V].

    The product of normalised float32 vectors is taken in full precision on every device,
    because ranks hang on its last digits.
    """
    return jnp.einsum(
        "td,vd->tv", l2_normalise(sentence_td), l2_normalise(video_vd), precision="highest"
    )


def cosine_logits(sentence_td: Array, video_vd: Array, logit_scale: Array) -> Array:
    """exp(logit_scale) times the cosine of every text and video; float32 [T,V]."""
    return jnp.exp(logit_scale) * cosines(sentence_td, video_vd)


def mean_pooling_logits(
    sentence_td: Array, frames_vfd: Array, mask_vf: Array, logit_scale: Array
) -> Array:
    """Logits of every text against the mean frame of every video, float32 [T,V].

    sentence_td [T,D], frames_vfd [V,F,D] (un-normalised), mask_vf [V,F] of 0/1, logit_scale ().
    A video without a real frame has a column of NaN, as in CLIP4Clip.
    """
    return cosine_logits(sentence_td, mean_frame(frames_vfd, mask_vf), logit_scale)
