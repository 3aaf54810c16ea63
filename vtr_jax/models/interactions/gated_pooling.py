"""EERCF's scores: frames and patches pooled by how well a text fits them.

weak:    d_n = t . x_n,  a = softmax(d / 0.01),  score = s * sum_n a_n d_n
strong:  w = softmax(t . x_n / temperature),  z = sum_n w_n y_n,  score = s * t . z / |z|

t, x, y are normalised; s = exp(logit_scale). Padded frames count as frames, as in the original.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vtr_jax.models.interactions.mean_pooling import l2_normalise, mean_frame
from vtr_jax.models.runtime import Runtime
from vtr_jax.models.tiling import map_pairs

WEAK_TEMPERATURE = 0.01
STRONG_FRAME_TEMPERATURE = 0.1
STRONG_PATCH_TEMPERATURE = 0.01


class GatingConfig(NamedTuple):
    """Sizes of the two learned matrices: the joint width and the frames of every clip."""

    width: int
    frames: int


class Gating(nnx.Module):
    """What EERCF learns beside CLIP and its temporal Transformer; both start as identities.

    sentence_matrix [D,D] stands between sentence and video, frame_matrix [F,F] behind the weak
    weights of the frames, so that it fixes the number of frames.
    """

    def __init__(self, config: GatingConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        del runtime, rngs  # scores are float32 whatever the compute dtype, and nothing is drawn
        self.sentence_matrix = nnx.Param(jnp.eye(config.width))
        self.frame_matrix = nnx.Param(jnp.eye(config.frames))


class GatedVideo(NamedTuple):
    """The normalised video side, all float32.

    pooled_vd [V,D]; frames_vfd [V,F,D] before and temporal_vfd [V,F,D] after frame aggregation;
    patches_vnd [V,N,D], the patches of all frames.
    """

    pooled_vd: Array
    frames_vfd: Array
    temporal_vfd: Array
    patches_vnd: Array


def gated_video(
    frames_vfd: Array, temporal_vfd: Array, patches_vfpd: Array, mask_vf: Array
) -> GatedVideo:
    """Normalise what encode_video gives; only the pooled vector knows the frame mask."""
    patches_vnd = patches_vfpd.reshape(len(patches_vfpd), -1, patches_vfpd.shape[-1])
    return GatedVideo(
        pooled_video(temporal_vfd, mask_vf),
        l2_normalise(frames_vfd),
        l2_normalise(temporal_vfd),
        l2_normalise(patches_vnd),
    )


def pooled_video(temporal_vfd: Array, mask_vf: Array) -> Array:
    """The normalised mean of the real frames, [V,D]; NaN for a clip without any."""
    return l2_normalise(mean_frame(temporal_vfd, mask_vf))


def _products(rows_nd: Array, columns_td: Array) -> Array:
    """Rows [N,D] with columns [T,D], in full precision: a softmax multiplies them by 100.

    [N,T] and not [T,N]: extended to many videos this is one matrix product that needs no copy.
    """
    return jnp.einsum("nd,td->nt", rows_nd, columns_td, precision="highest")


def sentence_video(sentence_td: Array, pooled_vd: Array, sentence_matrix: Array) -> Array:
    """Sentences through the learned matrix against whole videos, [T,V] before the scale."""
    through_td = jnp.einsum("td,de->te", sentence_td, sentence_matrix, precision="highest")
    return _products(through_td, pooled_vd)


def weak_scores(sentence_td: Array, video: GatedVideo, frame_matrix: Array) -> dict[str, Array]:
    """frame_weak and patch_weak of some texts with one video, each [T], before the scale.

    sentence_td [T,D], normalised; video: arrays without their first axis. The frames' weights go
    through the learned matrix after their softmax, so that they need not sum to 1.
    """
    frames_ft = _products(video.frames_vfd, sentence_td)
    softmax_ft = jax.nn.softmax(frames_ft / WEAK_TEMPERATURE, axis=0)
    weights_gt = jnp.einsum("fg,ft->gt", frame_matrix, softmax_ft, precision="highest")
    patches_nt = _products(video.patches_vnd, sentence_td)
    weights_nt = jax.nn.softmax(patches_nt / WEAK_TEMPERATURE, axis=0)
    return {
        "frame_weak": jnp.sum(frames_ft * weights_gt, axis=0),
        "patch_weak": jnp.sum(patches_nt * weights_nt, axis=0),
    }


def strong_scores(sentence_td: Array, video: GatedVideo, strong_patches: bool) -> dict[str, Array]:
    """frame_strong and patch_strong of some texts with one video, each [T], before the scale.

    Arguments as weak_scores. strong_patches False: patch_strong is frame_strong, as in the
    original. No [T,F,D] is made: the norm of a weighted sum of frames follows from their
    products, |z|^2 = w^T (Y Y^T) w.
    """
    frames_ft = _products(video.frames_vfd, sentence_td)
    weights_ft = jax.nn.softmax(frames_ft / STRONG_FRAME_TEMPERATURE, axis=0)
    gram_fg = _products(video.temporal_vfd, video.temporal_vfd)
    mixed_ft = jnp.einsum("fg,gt->ft", gram_fg, weights_ft, precision="highest")
    norm_t = jnp.sqrt(jnp.sum(weights_ft * mixed_ft, axis=0))
    products_ft = _products(video.temporal_vfd, sentence_td)
    frame_strong_t = jnp.sum(weights_ft * products_ft, axis=0) / norm_t
    if not strong_patches:
        return {"frame_strong": frame_strong_t, "patch_strong": frame_strong_t}
    # Patches outnumber the width, so that here the sum is cheaper than their products.
    patches_nt = _products(video.patches_vnd, sentence_td)
    weights_nt = jax.nn.softmax(patches_nt / STRONG_PATCH_TEMPERATURE, axis=0)
    pooled_td = jnp.einsum("nt,nd->td", weights_nt, video.patches_vnd, precision="highest")
    patch_strong_t = jnp.sum(sentence_td * l2_normalise(pooled_td), axis=-1)
    return {"frame_strong": frame_strong_t, "patch_strong": patch_strong_t}


def with_every_video(
    scores_of_one: Callable[[Array, GatedVideo], dict[str, Array]],
    sentence_td: Array,
    video: GatedVideo,
    tile: int,
) -> dict[str, Array]:
    """Scores of some texts with one video, extended to every video: each [T,V].

    tile: texts and videos a side of what is computed at once, and again in the backward pass.
    """

    def compare(texts_td: Array, videos: GatedVideo) -> dict[str, Array]:
        return jax.vmap(lambda one: scores_of_one(texts_td, one), out_axes=1)(videos)

    return map_pairs(compare, sentence_td, video, tile)


def pooled_by_own_text(sentence_bd: Array, video: GatedVideo) -> tuple[Array, Array]:
    """One vector of frames and one of patches a video, gated by the video's own text.

    sentence_bd [B,D], the i-th text of the i-th video. Returns two normalised [B,D]. No gradient
    reaches the weights. Source: EERCF's training mode.
    """
    frames_bf = jnp.einsum("bd,bfd->bf", sentence_bd, video.frames_vfd, precision="highest")
    patches_bn = jnp.einsum("bd,bnd->bn", sentence_bd, video.patches_vnd, precision="highest")
    of_frames = jax.nn.softmax(frames_bf / STRONG_FRAME_TEMPERATURE, axis=-1)
    of_patches = jax.nn.softmax(patches_bn / STRONG_PATCH_TEMPERATURE, axis=-1)

    def pool(weights_bn: Array, rows_bnd: Array) -> Array:
        weights_bn = jax.lax.stop_gradient(weights_bn)
        return l2_normalise(jnp.einsum("bn,bnd->bd", weights_bn, rows_bnd, precision="highest"))

    return pool(of_frames, video.temporal_vfd), pool(of_patches, video.patches_vnd)
