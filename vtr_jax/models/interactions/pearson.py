"""EERCF's Pearson constraint: each dimension of a text and its video should rise together."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from vtr_jax.models.interactions.channel_decorrelation import standardise

# A constant of the original program, which weights the other pairs of dimensions with 0.
DIAGONAL_WEIGHT = 0.14


def pearson_constraint(text_bd: Array, video_bd: Array) -> Array:
    """0.14 * sum over d of (c_d - 1)^2, c_d the correlation of dimension d over the batch.

    The i-th row of both [B,D] belongs together. Deviations divide by B - 1 but the correlation by
    B, so that a perfect match has (B-1)/B; one row gives NaN. A sum, not a mean, over D.
    """
    correlation_d = jnp.mean(standardise(text_bd) * standardise(video_bd), axis=0)
    return DIAGONAL_WEIGHT * jnp.sum((correlation_d - 1) ** 2)
