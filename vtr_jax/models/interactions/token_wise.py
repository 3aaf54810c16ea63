"""Token-wise interaction: every word meets its best frame, every frame its best word (TI, WTI).

S[a,b,t,v] = <word t of text a, frame v of video b> * text_mask[a,t] * video_mask[b,v]
t2v[a,b] = sum_t w[a,t] max_v S,   v2t[a,b] = sum_v w[b,v] max_t S,   logit = (t2v + v2t) / 2

Padding counts as 0 and not as minus infinity, so a best match that is negative becomes 0 where
the other side is padded. The originals do this, and their weights were trained under it.
S is [T,V,L,F]; only one tile of it exists at a time, in the backward pass too.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vtr_jax.models.interactions.caption_lengths import map_pairs_by_length
from vtr_jax.models.interactions.mean_pooling import l2_normalise
from vtr_jax.models.runtime import Runtime
from vtr_jax.models.tiling import map_pairs
from vtr_jax.models.transformer import linear

# What the originals overwrite the raw weight of a padded position with, before the softmax.
DRL_MASKED = -float("inf")  # also InternVideo; a clip without a frame gives NaN
BACKBONE_TVR_MASKED = -9e15  # a clip without a frame gives even weights

# Linear layers by wti_arch, numbered as in the originals' sequences (odd numbers are ReLU).
LAYERS_OF_ARCH: dict[int, tuple[str, ...]] = {
    1: ("linear",),
    2: ("linear_0", "linear_2"),
    3: ("linear_0", "linear_2", "linear_4"),
}


@dataclasses.dataclass(frozen=True)
class TokenWeightConfig:
    """Width of the vectors to be weighed, and the number of layers that weigh them (wti_arch)."""

    width: int
    arch: int


class TokenWeight(nnx.Module):
    """How much each vector counts, before masking and softmax: an MLP with one output.

    wti_arch 1: Linear(D,1). 2: Linear(D,D), ReLU, Linear(D,1). 3: one more hidden layer.
    Source: DRL's text_weight_fc and video_weight_fc, also in BackBone_tvr and InternVideo.
    """

    def __init__(self, config: TokenWeightConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        self.names = LAYERS_OF_ARCH[config.arch]
        width, init = config.width, nnx.initializers.normal(0.02)
        for name in self.names:
            outputs = 1 if name == self.names[-1] else width
            setattr(self, name, linear(width, outputs, init, runtime, rngs))

    def __call__(self, vectors_bnd: Array) -> Array:
        """Raw weights of un-normalised vectors, [B,N,D] to float32 [B,N]."""
        x = vectors_bnd
        for name in self.names[:-1]:
            x = jax.nn.relu(getattr(self, name)(x))
        return getattr(self, self.names[-1])(x)[..., 0].astype(jnp.float32)


class WeightedVectors(NamedTuple):
    """One side of the interaction: normalised vectors [B,N,D], mask [B,N], weights [B,N]."""

    vectors: Array
    mask: Array
    weights: Array


def softmax_weights(raw_bn: Array, mask_bn: Array, masked: float) -> Array:
    """Softmax over the second axis with padded positions set to `masked`; float32 [B,N]."""
    return jax.nn.softmax(jnp.where(mask_bn > 0, raw_bn.astype(jnp.float32), masked), axis=1)


def mean_weights(mask_bn: Array) -> Array:
    """Equal weights of the real positions, float32 [B,N]; NaN where there is none (TI)."""
    mask = mask_bn.astype(jnp.float32)
    return mask / mask.sum(axis=1, keepdims=True)


def weighted(vectors_bnd: Array, mask_bn: Array, weights_bn: Array) -> WeightedVectors:
    """One side from its un-normalised vectors [B,N,D] and the weights that they have."""
    return WeightedVectors(l2_normalise(vectors_bnd), mask_bn.astype(jnp.float32), weights_bn)


def without_padding(side: WeightedVectors) -> WeightedVectors:
    """The same side with zero vectors at padding, which has the cosine 0 with everything."""
    return side._replace(vectors=side.vectors * side.mask[..., None])


def similarities(text: WeightedVectors, video: WeightedVectors) -> Array:
    """Cosines of every word and frame of every pair, float32 [T,L,V,F]; sides without_padding.

    Meant for one tile. The axes are in the order of the product of two matrices, words by frames:
    nothing is transposed.
    """
    return jnp.einsum("tld,vfd->tlvf", text.vectors, video.vectors, precision="highest")


def own_similarities(text: WeightedVectors, video: WeightedVectors) -> Array:
    """Cosines of the i-th text and the i-th video alone, 0 at padding; float32 [B,L,F]."""
    cosine_blf = jnp.einsum("bld,bfd->blf", text.vectors, video.vectors, precision="highest")
    return cosine_blf * text.mask[:, :, None] * video.mask[:, None, :]


def _best_matches(text: WeightedVectors, video: WeightedVectors) -> tuple[Array, Array]:
    """Of every word its best frame [T,L,V], of every frame its best word [T,V,F]."""
    similarity_tlvf = similarities(text, video)
    return similarity_tlvf.max(axis=3), similarity_tlvf.max(axis=1)


def _weighted_sums(
    text: WeightedVectors, video: WeightedVectors, best_frame_tlv: Array, best_token_tvf: Array
) -> dict[str, Array]:
    return {
        "t2v": (best_frame_tlv * text.weights[:, :, None]).sum(axis=1),
        "v2t": (best_token_tvf * video.weights).sum(axis=2),
    }


def _tile_scores(text: WeightedVectors, video: WeightedVectors) -> dict[str, Array]:
    return _weighted_sums(text, video, *_best_matches(text, video))


def token_wise_scores(text: WeightedVectors, video: WeightedVectors, tile: int) -> dict[str, Array]:
    """Scores of every text and video by their best-matching parts, each float32 [T,V].

    tile: texts and videos a side of what is computed at once; results do not depend on it.
    Returns {logits_tv, t2v, v2t}: logits_tv is the mean of the other two, without any scale.
    Source: DRL (token-wise and weighted token-wise interaction), BackBone_tvr, InternVideo.
    """
    return _with_logits(
        map_pairs(_tile_scores, without_padding(text), without_padding(video), tile)
    )


def _with_logits(parts: dict[str, Array]) -> dict[str, Array]:
    return {"logits_tv": (parts["t2v"] + parts["v2t"]) / 2, **parts}


class _ShortTexts(NamedTuple):
    """Captions to be cut, and what padding counts as [T]: 0, minus infinity where there is none."""

    text: WeightedVectors
    padding: Array


def _first_words(short: _ShortTexts, words: int) -> _ShortTexts:
    return short._replace(text=jax.tree.map(lambda leaf: leaf[:, :words], short.text))


def _tile_scores_of_short(short: _ShortTexts, video: WeightedVectors) -> dict[str, Array]:
    best_frame_tlv, best_token_tvf = _best_matches(short.text, video)
    best_token_tvf = jnp.maximum(best_token_tvf, short.padding[:, None, None])
    return _weighted_sums(short.text, video, best_frame_tlv, best_token_tvf)


def token_wise_scores_of_short(
    text: WeightedVectors, video: WeightedVectors, tile: int
) -> dict[str, Array]:
    """token_wise_scores that leaves padded words out: the same to rounding, sooner for evaluation.

    Arguments and result as there; not for gradients, which would compile every length twice.
    """
    full_t = (text.mask > 0).all(axis=1)
    short = _ShortTexts(without_padding(text), jnp.where(full_t, -jnp.inf, 0.0))
    return _with_logits(
        map_pairs_by_length(
            _tile_scores_of_short, _first_words, short, text.mask, without_padding(video), tile
        )
    )
