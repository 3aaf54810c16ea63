"""Training losses, as functions of logits; they know no model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def diagonal_cross_entropy(logits_ab: Array) -> Array:
    """Mean over rows i of -log softmax(row)[i]; logits [B,B], returns a float32 scalar."""
    log_probabilities = jax.nn.log_softmax(logits_ab.astype(jnp.float32), axis=-1)
    return -jnp.mean(jnp.diagonal(log_probabilities))


def symmetric_contrastive(logits_tv: Array, logits_vt: Array) -> tuple[Array, dict[str, Array]]:
    """Symmetric InfoNCE over a batch whose i-th text belongs to its i-th video.

    logits_tv [B,B] rows texts, logits_vt [B,B] rows videos. Returns the mean of both directions
    and the terms {logits_tv, logits_vt, loss_t2v, loss_v2t, contrastive}. Source: CLIP, and
    CLIP4Clip's equation of the same form.
    """
    loss_t2v = diagonal_cross_entropy(logits_tv)
    loss_v2t = diagonal_cross_entropy(logits_vt)
    loss = (loss_t2v + loss_v2t) / 2
    terms = {
        "logits_tv": logits_tv,
        "logits_vt": logits_vt,
        "loss_t2v": loss_t2v,
        "loss_v2t": loss_v2t,
        "contrastive": loss,
    }
    return loss, terms
