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


def centred(rows_nd: Array, mask_n: Array) -> tuple[Array, Array]:
    """Rows minus the mean of the real rows, and the deviation of these (of N - 1, no epsilon).

    rows: [...,D]; mask: 1 on the rows [...] that count. Returns ([...,D], [D]).
    """
    axes = tuple(range(rows_nd.ndim - 1))
    mask_n1 = mask_n.astype(jnp.float32)[..., None]
    count = mask_n1.sum()
    centred_nd = rows_nd - (rows_nd * mask_n1).sum(axes) / count
    return centred_nd, jnp.sqrt((centred_nd**2 * mask_n1).sum(axes) / (count - 1))


def standardise(rows_nd: Array, mask_n: Array | None = None) -> Array:
    """Each channel of the real rows to mean 0 and deviation 1; [...,D], arguments as centred.

    mask: None for all rows. A single row, or a constant channel, gives NaN.
    """
    mask_n = jnp.ones(rows_nd.shape[:-1]) if mask_n is None else mask_n
    centred_nd, deviation_d = centred(rows_nd, mask_n)
    return centred_nd / deviation_d


def weighted_correlation(own_nd: Array, other_nd: Array, mask_n: Array, share_n: Array) -> Array:
    """sum_n share_n z_n^T z'_n, float32 [D,D], z the standardised rows.

    own, other: [...,D], matched row by row. mask: 1 on the rows [...] that the statistics are of.
    share: the weight of each row, 0 where the mask is. The deviations divide the matrix and not
    the rows, so that rows are copied as little as possible.
    """
    (own, own_deviation_d), (other, other_deviation_d) = (
        centred(rows, mask_n) for rows in (own_nd, other_nd)
    )
    width = own.shape[-1]
    shared_nd = (share_n[..., None] * own).reshape(-1, width)
    covariance_de = jnp.einsum(
        "nd,ne->de", shared_nd, other.reshape(-1, width), precision="highest"
    )
    return covariance_de / own_deviation_d[:, None] / other_deviation_d


def pooled_correlation(text_bd: Array, video_bd: Array) -> Array:
    """C of one normalised vector a text and one a video, float32 [D,D] (interaction dp)."""
    every_b = jnp.ones(len(text_bd))
    return weighted_correlation(text_bd, video_bd, every_b, every_b / len(text_bd))


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
    if by_weight:
        share_bn = jnp.where(side.mask > 0, side.weights, 0.0) / len(side.mask)
    else:
        share_bn = side.mask / side.mask.sum()
    return weighted_correlation(side.vectors, best_bnd, side.mask, share_bn)


def diagonal_parts(correlation_dd: Array) -> tuple[Array, Array]:
    """(sum_d (C_dd - 1)^2, sum of the squares off the diagonal), float32 scalars."""
    diagonal_d = jnp.diagonal(correlation_dd)
    off = correlation_dd * (1.0 - jnp.eye(len(correlation_dd), dtype=correlation_dd.dtype))
    return jnp.sum((diagonal_d - 1.0) ** 2), jnp.sum(off**2)


def decorrelation_loss(correlation_dd: Array, alpha1: float, alpha2: float) -> Array:
    """The regulariser of a correlation [D,D], before its weight in the loss; float32 scalar."""
    on, off = diagonal_parts(correlation_dd)
    return alpha1 * on + alpha2 * off
