"""Frame aggregation: relating the frames of one clip in time, [B,F,D] to [B,F,D]."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jax import Array

from vtr_jax.models.runtime import Runtime
from vtr_jax.models.transformer import BlockInit, Transformer, key_mask_bias

HEAD_LAYER_NORM_EPS = 1e-12


@dataclasses.dataclass(frozen=True)
class TemporalConfig:
    """Sizes of a temporal Transformer: positions is the longest clip in frames."""

    width: int
    layers: int
    heads: int
    positions: int


def temporal_block_init(width: int) -> BlockInit:
    """Initializers wide enough for order to be learned where nothing is pretrained.

    With the original's normal(0.02) a fresh stack adds next to nothing to the frames. It draws
    that only for layers that CLIP has no block for; every other start copies CLIP's blocks.
    """
    normal = nnx.initializers.normal
    return BlockInit(
        qkv=normal(1.5 * width**-0.5),
        out=normal(2.0 * width**-0.5),
        fc=normal(width**-0.5),
        proj=normal(width**-0.5),
    )


class TemporalTransformer(nnx.Module):
    """seqTransf: a Transformer over frame vectors, added to them.

    Source: CLIP4Clip, also in DRL, BackBone_tvr and EMCL-Net. LayerNorm eps is 1e-12 although
    the blocks start as copies of CLIP's, and there is no final norm.
    """

    def __init__(self, config: TemporalConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        self.dtype = runtime.dtype
        self.positions = config.positions
        # As large as the features of a fresh tower: smaller ones are lost beside them, and order
        # is then learned late or never. A start from CLIP replaces them.
        self.position_embedding = nnx.Param(
            nnx.initializers.normal(1.0)(rngs.params(), (config.positions, config.width))
        )
        self.transformer = Transformer(
            config.width,
            config.layers,
            config.heads,
            eps=HEAD_LAYER_NORM_EPS,
            init=temporal_block_init(config.width),
            runtime=runtime,
            rngs=rngs,
        )

    def transformed(self, frames_bfd: Array, frame_mask_bf: Array) -> Array:
        """The Transformer's output before it is added to its input; float32 [B,F,D].

        Raises ValueError if there are more frames than position embeddings.
        """
        frames = frames_bfd.shape[1]
        if frames > self.positions:
            raise ValueError(
                f"{frames} frames a clip, but the temporal Transformer has {self.positions} "
                f"positions; use max_frames of at most {self.positions}"
            )
        x = frames_bfd.astype(self.dtype) + self.position_embedding[...][:frames].astype(self.dtype)
        return self.transformer(x, bias=key_mask_bias(frame_mask_bf)).astype(jnp.float32)

    def __call__(self, frames_bfd: Array, frame_mask_bf: Array) -> Array:
        """Frame vectors that have seen each other, float32 [B,F,D]."""
        return self.transformed(frames_bfd, frame_mask_bf) + frames_bfd
