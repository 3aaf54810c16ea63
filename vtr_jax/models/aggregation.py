"""Frame aggregation: relating the frames of one clip in time, [B,F,D] to [B,F,D]."""

from __future__ import annotations

import dataclasses

import jax
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


@dataclasses.dataclass(frozen=True)
class LstmConfig:
    """Sizes of a frame LSTM: positions is the table that the originals keep beside it."""

    width: int
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


class FrameLstm(nnx.Module):
    """seqLSTM: one forward LSTM over the real frames of a clip, added to them.

    Gates stand in the order input, forget, candidate, output. Source: CLIP4Clip, also in DRL,
    BackBone_tvr and EMCL-Net. They keep a table of positions beside it and never read it.
    """

    def __init__(self, config: LstmConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        width = config.width
        bound = width**-0.5
        self.dtype = runtime.dtype

        def uniform(*shape: int) -> nnx.Param:
            return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound))

        self.input_kernel = uniform(width, 4 * width)
        self.hidden_kernel = uniform(width, 4 * width)
        self.input_bias = uniform(4 * width)
        self.hidden_bias = uniform(4 * width)
        self.position_embedding = nnx.Param(
            nnx.initializers.normal(0.02)(rngs.params(), (config.positions, width))
        )

    def outputs(self, frames_bfd: Array) -> Array:
        """The hidden state after every frame, float32 [B,F,D]; a state has seen no later frame."""
        x = frames_bfd.astype(self.dtype) @ self.input_kernel[...].astype(self.dtype)
        gates_fbg = jnp.swapaxes(x.astype(jnp.float32), 0, 1) + self.input_bias[...]
        hidden_kernel = self.hidden_kernel[...].astype(self.dtype)

        def step(carry: tuple[Array, Array], gates_bg: Array) -> tuple[tuple[Array, Array], Array]:
            hidden_bd, cell_bd = carry
            recurrent = (hidden_bd.astype(self.dtype) @ hidden_kernel).astype(jnp.float32)
            gates = jnp.split(gates_bg + recurrent + self.hidden_bias[...], 4, axis=-1)
            put, keep, candidate, show = gates
            cell_bd = jax.nn.sigmoid(keep) * cell_bd + jax.nn.sigmoid(put) * jnp.tanh(candidate)
            hidden_bd = jax.nn.sigmoid(show) * jnp.tanh(cell_bd)
            return (hidden_bd, cell_bd), hidden_bd

        zero_bd = jnp.zeros((frames_bfd.shape[0], frames_bfd.shape[2]), jnp.float32)
        return jnp.swapaxes(jax.lax.scan(step, (zero_bd, zero_bd), gates_fbg)[1], 0, 1)

    def added(self, frames_bfd: Array, frame_mask_bf: Array, longest: int | None) -> Array:
        """What is added to the frames, float32 [B,F,D].

        The hidden state at real frames, zero after the end of a clip, and the frame itself from
        the end of the longest clip on.
        """
        count_b = frame_mask_bf.astype(jnp.int32).sum(axis=1)
        end = jnp.max(count_b) if longest is None else longest
        position_f = jnp.arange(frames_bfd.shape[1])
        real_bf = position_f < count_b[:, None]
        beyond_f = position_f >= end
        after = jnp.where(beyond_f[None, :, None], frames_bfd, 0.0)
        return jnp.where(real_bf[:, :, None], self.outputs(frames_bfd), after)

    def __call__(
        self, frames_bfd: Array, frame_mask_bf: Array, longest: int | None = None
    ) -> Array:
        """Frame vectors that have seen those before them, float32 [B,F,D].

        longest: frames of the longest clip of the batch; None counts them in the mask. Frames
        after it count twice, as in the originals (their padding writes the input over again).
        """
        return self.added(frames_bfd, frame_mask_bf, longest) + frames_bfd
