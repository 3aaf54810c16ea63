"""Channel decorrelation (CDCR): the same channel of a matched word and frame should agree.

With standardised vectors z of N matched pairs and C = z_text^T z_video / N, [D,D], the loss is
alpha1 * sum_d (C_dd - 1)^2 + alpha2 * sum_{d != e} C_de^2.
Division is by N although the deviation is of N - 1: perfect agreement gives (N - 1) / N, and a
single pair gives NaN. All vectors are L2-normalised first. Source: DRL, also in InternVideo.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from vtr_jax.models.interactions.token_wise import WeightedVectors, own_similarities

# The originals draw below this number and take the remainder.
LARGEST_DRAW = 10000


def standardise(rows_nd: Array, mask_n: Array | None = None) -> Array:
    """Each channel of the real rows to mean 0 and deviation 1 (of N - 1, no epsilon).

    rows: [...,D]; mask: 1 on the rows [...] that count, None for all. Other rows are zero.
    """
    axes = tuple(range(rows_nd.ndim - 1))
    mask = jnp.ones(rows_nd.shape[:-1]) if mask_n is None else mask_n.astype(jnp.float32)
    mask_n1 = mask[..., None]
    count = mask.sum()
    mean_d = (rows_nd * mask_n1).sum(axes) / count
    centred = (rows_nd - mean_d) * mask_n1
    return centred / jnp.sqrt((centred**2).sum(axes) / (count - 1))


def pooled_correlation(text_bd: Array, video_bd: Array) -> Array:
    """C of one normalised vector a text and one a video, float32 [D,D] (interaction dp)."""
    z_text, z_video = standardise(text_bd), standardise(video_bd)
    return jnp.einsum("bd,be->de", z_text, z_video, precision="highest") / len(text_bd)


def draw_picks(rng: Array, token_mask_bl: Array, frame_mask_bf: Array) -> tuple[Array, Array]:
    """One word of every text and one frame of every clip, both int32 [B] (cdcr 1).

    Drawn below 10000 and reduced modulo the real positions, as in the originals; they stand first.
    """

    def draw(key: Array, mask_bn: Array) -> Array:
        count_b = jnp.maximum(mask_bn.astype(jnp.int32).sum(axis=1), 1)
        return jax.random.randint(key, count_b.shape, 0, LARGEST_DRAW) % count_b

    text_key, video_key = jax.random.split(rng)
    return draw(text_key, token_mask_bl), draw(video_key, frame_mask_bf)


def picked_correlation(
    text: WeightedVectors, video: WeightedVectors, picks: tuple[Array, Array]
) -> Array:
    """C of one word and one frame a sample, float32 [D,D] (cdcr 1); picks: indices [B] of both."""
    rows = jnp.arange(text.mask.shape[0])
    return pooled_correlation(text.vectors[rows, picks[0]], video.vectors[rows, picks[1]])


def best_positions(text: WeightedVectors, video: WeightedVectors) -> tuple[Array, Array]:
    """The best frame of every word [B,L] and the best word of every frame [B,F] of a pair.

    The first of equals; padding counts as 0, and can be the best.
    """
    similarity_blf = own_similarities(text, video)
    return jnp.argmax(similarity_blf, axis=2), jnp.argmax(similarity_blf, axis=1)


def matched_correlation(text: WeightedVectors, video: WeightedVectors, by_weight: bool) -> Array:
    """C over every word with its best frame and every frame with its best word, float32 [D,D].

    by_weight False: every pair counts the same (cdcr 2). True: by the weight of its word or
    frame (cdcr 3); the statistics that standardise are unweighted in both. The second half has
    the frame's channels first, as the originals add it.
    """
    best_frame_bl, best_token_bf = best_positions(text, video)
    of_words = _own_and_best(text, video.vectors, best_frame_bl, by_weight)
    of_frames = _own_and_best(video, text.vectors, best_token_bf, by_weight)
    return (of_words + of_frames) / 2


def _own_and_best(
    side: WeightedVectors, others_bmd: Array, best_bn: Array, by_weight: bool
) -> Array:
    best_bnd = jnp.take_along_axis(others_bmd, best_bn[..., None], axis=1)
    z_own, z_best = standardise(side.vectors, side.mask), standardise(best_bnd, side.mask)
    if by_weight:
        share_bn = jnp.where(side.mask > 0, side.weights, 0.0) / len(side.mask)
    else:
        share_bn = side.mask / side.mask.sum()
    return jnp.einsum("bnd,bne->de", share_bn[..., None] * z_own, z_best, precision="highest")


def diagonal_parts(correlation_dd: Array) -> tuple[Array, Array]:
    """(sum_d (C_dd - 1)^2, sum of the squares off the diagonal), float32 scalars."""
    diagonal_d = jnp.diagonal(correlation_dd)
    off = correlation_dd * (1.0 - jnp.eye(len(correlation_dd), dtype=correlation_dd.dtype))
    return jnp.sum((diagonal_d - 1.0) ** 2), jnp.sum(off**2)


def decorrelation_loss(correlation_dd: Array, alpha1: float, alpha2: float) -> Array:
    """The regulariser of a correlation [D,D], before its weight in the loss; float32 scalar."""
    on, off = diagonal_parts(correlation_dd)
    return alpha1 * on + alpha2 * off
