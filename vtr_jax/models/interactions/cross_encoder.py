"""The tight head: a Transformer over each text joined with each video's frames.

logit_ij = w . quick_gelu(W LN([t_i, f_j1 .. f_jF] after the blocks)[0])
Sources: CLIP4Clip (tightTransf) and DRL (xti).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vtr_jax.models.aggregation import HEAD_LAYER_NORM_EPS
from vtr_jax.models.runtime import Runtime
from vtr_jax.models.tiling import map_pairs
from vtr_jax.models.transformer import (
    Transformer,
    bert_block_init,
    key_mask_bias,
    layer_norm,
    linear,
    quick_gelu,
)

HIDDEN_DROPOUT = 0.1


@dataclasses.dataclass(frozen=True)
class CrossConfig:
    """Sizes of a cross-encoder: positions is the longest clip in frames, plus one."""

    width: int
    layers: int
    heads: int
    positions: int


class CrossEncoder(nnx.Module):
    """A score for every pair of a text and a video."""

    def __init__(self, config: CrossConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        width, normal = config.width, nnx.initializers.normal(0.02)
        self.dtype = runtime.dtype
        self.positions = config.positions
        self.tile = runtime.cross_tile
        self.position_embedding = nnx.Param(normal(rngs.params(), (config.positions, width)))
        self.transformer = Transformer(
            width,
            config.layers,
            config.heads,
            eps=HEAD_LAYER_NORM_EPS,
            init=bert_block_init(),
            runtime=runtime,
            rngs=rngs,
        )
        self.ln_pool = layer_norm(width, HEAD_LAYER_NORM_EPS, runtime, rngs)
        self.pooler = linear(width, width, normal, runtime, rngs)
        self.score = linear(width, 1, normal, runtime, rngs)

    def hidden(
        self, text_td: Array, frames_vfd: Array, mask_vf: Array, keep_tvsd: Array | None = None
    ) -> Array:
        """The last block's output for every pair, [T,V,1+F,D] in the compute dtype.

        keep_tvsd: what dropout multiplies the embedded sequences by. Raises ValueError if there
        are more frames than positions.
        """
        (t, d), (v, f) = text_td.shape, mask_vf.shape
        if 1 + f > self.positions:
            raise ValueError(
                f"{f} frames a clip, but the cross-encoder has {self.positions} positions, one of "
                f"them the text's; use max_frames of at most {self.positions - 1}"
            )
        text = jnp.broadcast_to(text_td[:, None, None], (t, v, 1, d))
        frames = jnp.broadcast_to(frames_vfd[None], (t, v, f, d))
        sequences = jnp.concatenate([text, frames], axis=2) + self.position_embedding[...][: 1 + f]
        if keep_tvsd is not None:
            sequences = sequences * keep_tvsd
        mask = jnp.concatenate([jnp.ones((v, 1), mask_vf.dtype), mask_vf], axis=1)
        mask = jnp.broadcast_to(mask[None], (t, v, 1 + f)).reshape(t * v, 1 + f)
        x = sequences.astype(self.dtype).reshape(t * v, 1 + f, d)
        return self.transformer(x, bias=key_mask_bias(mask)).reshape(t, v, 1 + f, d)

    def pooled(self, hidden_tvsd: Array) -> Array:
        """The text's position after norm, dense layer and activation, [T,V,D]."""
        return quick_gelu(self.pooler(self.ln_pool(hidden_tvsd)[:, :, 0]))

    def pair_logits(
        self, text_td: Array, frames_vfd: Array, mask_vf: Array, keep_tvsd: Array | None = None
    ) -> Array:
        """Logits of all pairs at once, float32 [T,V]; arguments as for hidden."""
        pooled = self.pooled(self.hidden(text_td, frames_vfd, mask_vf, keep_tvsd))
        return self.score(pooled)[..., 0].astype(jnp.float32)

    def __call__(
        self, text_td: Array, frames_vfd: Array, mask_vf: Array, rng: Array | None = None
    ) -> Array:
        """Logits of every text and video, float32 [T,V], a tile of pairs at a time.

        text_td [T,D] and frames_vfd [V,F,D] are not normalised; mask_vf [V,F] of 0/1. rng: key
        for dropout, whose draws belong to a pair and so do not depend on the tiles; None for none.
        """
        texts = (text_td, jnp.arange(text_td.shape[0]))
        videos = (frames_vfd, mask_vf, jnp.arange(frames_vfd.shape[0]))

        def compare(texts: tuple[Array, Array], videos: tuple[Array, Array, Array]) -> Array:
            (text, text_index), (frames, mask, video_index) = texts, videos
            keep = None
            if rng is not None:
                keep = pair_dropout(rng, text_index, video_index, frames.shape[1:])
            return self.pair_logits(text, frames, mask, keep)

        return map_pairs(compare, texts, videos, self.tile)


def pair_dropout(
    rng: Array, text_index_t: Array, video_index_v: Array, frames_shape: tuple[int, ...]
) -> Array:
    """What dropout multiplies each pair's sequence by: 0, or 1 / (1 - rate); [T,V,1+F,D]."""
    shape = (1 + frames_shape[0], frames_shape[1])

    def of_pair(text_index: Array, video_index: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(rng, text_index), video_index)
        return jax.random.bernoulli(key, 1 - HIDDEN_DROPOUT, shape)

    of_row = jax.vmap(of_pair, in_axes=(None, 0))
    kept_tvsd = jax.vmap(of_row, in_axes=(0, None))(text_index_t, video_index_v)
    return kept_tvsd / (1 - HIDDEN_DROPOUT)
