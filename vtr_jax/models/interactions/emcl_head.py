"""EMCL-Net's head: text-conditioned pooling of frames, EMCL over all pairs and texts, cosine.

    w_tvf = softmax_f(s_t . f_vf / temp) mask_vf,   E = [sum_f w_tvf f_vf  for all t, v;  s_t]
    logits_tv = cosine(s'_t, v'_tv)   with E' = EMCL(E)

The T x V pooled vectors are never written out: products with them are sums over frames, and the
norm of one needs only the frames' inner products. Source: EMCL (arXiv:2211.11427).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vtr_jax.models.interactions.expectation_maximisation import (
    EmSettings,
    moved_mu,
    reconstruct,
)

_dot = jnp.einsum


class PairRows(NamedTuple):
    """The rows of E by their factors.

    frames_vfd [V,F,D], sentence_td [T,D], weights_tvf [T,V,F]: the pooled row of a pair is
    the weighted sum of the video's frames.
    """

    frames_vfd: Array
    sentence_td: Array
    weights_tvf: Array

    def times(self, z_dk: Array) -> tuple[Array, Array]:
        """E Z: ([T,V,K] of the pairs, [T,K] of the texts)."""
        frames_vfk = _dot("vfd,dk->vfk", self.frames_vfd, z_dk, precision="highest")
        pairs_tvk = _dot("tvf,vfk->tvk", self.weights_tvf, frames_vfk, precision="highest")
        return pairs_tvk, _dot("td,dk->tk", self.sentence_td, z_dk, precision="highest")

    def gathered(self, m_rows: tuple[Array, Array]) -> Array:
        """E^T M, [D,K]."""
        pairs_tvk, texts_tk = m_rows
        by_frame_vfk = _dot("tvf,tvk->vfk", self.weights_tvf, pairs_tvk, precision="highest")
        pairs_dk = _dot("vfd,vfk->dk", self.frames_vfd, by_frame_vfk, precision="highest")
        return pairs_dk + _dot("td,tk->dk", self.sentence_td, texts_tk, precision="highest")


def pair_rows(sentence_td: Array, frames_vfd: Array, mask_vf: Array, temp: float) -> PairRows:
    """Frames weighted by a softmax over all frames, padding included, which is masked afterwards.

    The weights of a short clip so sum to less than one, as in the original.
    """
    scores_tvf = _dot("td,vfd->tvf", sentence_td, frames_vfd, precision="highest")
    weights_tvf = jax.nn.softmax(scores_tvf / temp, axis=-1) * mask_vf
    return PairRows(frames_vfd, sentence_td, weights_tvf)


def emcl_logits(rows: PairRows, mu_k: Array, settings: EmSettings) -> tuple[Array, Array]:
    """(cosines [T,V], mu after a training step [K]) of all pairs of these texts and videos."""
    z_dk, m_rows = reconstruct(rows, mu_k, settings)
    moved_k = moved_mu(jax.lax.stop_gradient(mu_k), m_rows, settings.momentum)
    pairs_tvk, texts_tk = (settings.beta * m for m in m_rows)
    text_td = rows.sentence_td + _dot("tk,dk->td", texts_tk, z_dk, precision="highest")
    text_td = text_td / jnp.linalg.norm(text_td, axis=-1, keepdims=True)

    frames_tvf = _dot("td,vfd->tvf", text_td, rows.frames_vfd, precision="highest")
    text_tk = _dot("td,dk->tk", text_td, z_dk, precision="highest")
    dots_tv = (rows.weights_tvf * frames_tvf).sum(-1)
    dots_tv += _dot("tvk,tk->tv", pairs_tvk, text_tk, precision="highest")

    gram_vfg = _dot("vfd,vgd->vfg", rows.frames_vfd, rows.frames_vfd, precision="highest")
    weighted_tvg = _dot("tvf,vfg->tvg", rows.weights_tvf, gram_vfg, precision="highest")
    frames_vfk = _dot("vfd,dk->vfk", rows.frames_vfd, z_dk, precision="highest")
    crossed_tvk = _dot("tvf,vfk->tvk", rows.weights_tvf, frames_vfk, precision="highest")
    gram_kl = _dot("dk,dl->kl", z_dk, z_dk, precision="highest")
    reconstructed_tvl = _dot("tvk,kl->tvl", pairs_tvk, gram_kl, precision="highest")
    squared_tv = (
        (weighted_tvg * rows.weights_tvf).sum(-1)
        + 2 * (crossed_tvk * pairs_tvk).sum(-1)
        + (reconstructed_tvl * pairs_tvk).sum(-1)
    )
    return dots_tv / jnp.sqrt(squared_tv), moved_k
