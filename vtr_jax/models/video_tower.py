"""InternVideo's vision tower: a frame-by-frame ViT whose listed layers feed one token a clip.

Blocks see one frame at a time. After each listed block a temporal token reads a copy of all
tokens of the clip, to which a convolution over time, rows and columns has added positions; the
stream through the blocks is not changed by it. At the end the token is mixed with the mean class
token. Source: InternVideo 1, Video-Text-Retrieval (clip_evl), the "only global" tower.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vtr_jax.models.clip import PatchEmbedding, VisionConfig, cut_patches
from vtr_jax.models.features import VisionFeatures
from vtr_jax.models.runtime import Runtime
from vtr_jax.models.transformer import (
    Block,
    BlockInit,
    Mlp,
    Transformer,
    clip_block_init,
    layer_norm,
    linear,
)

TAPS = 3  # of the positional convolution, along each of time, rows and columns


@dataclasses.dataclass(frozen=True)
class VideoTowerConfig:
    """Sizes of the tower: its frames' ViT, and the layers (0-based) that the token reads."""

    vision: VisionConfig
    return_list: tuple[int, ...]


class TowerStages(NamedTuple):
    """What the tower computes on its way, in the compute dtype; P patches, W width.

    embedded [B*F,1+P,W] after ln_pre; blocks [layers,B*F,1+P,W]; positions [listed,B,F,G,G,W],
    what each convolution adds; tokens [listed,B,W], the temporal token after each reader;
    mixed [B,W], what is projected.
    """

    embedded: Array
    blocks: Array
    positions: Array
    tokens: Array
    mixed: Array


def reader_init() -> BlockInit:
    """Initializers with which a fresh reader adds nothing to its token."""
    xavier, zeros = nnx.initializers.xavier_uniform(), nnx.initializers.zeros
    return BlockInit(qkv=xavier, out=zeros, fc=xavier, proj=zeros)


class FramePatchEmbedding(PatchEmbedding):
    """The patch embedding with a time axis of one tap: kernel [1,patch,patch,3,W]."""

    def __init__(self, config: VisionConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        super().__init__(config, runtime, rngs=rngs)
        self.kernel = nnx.Param(self.kernel[...][None])


class PositionConvolution(nnx.Module):
    """Depthwise 3x3x3 convolution over time, rows and columns, zero beyond the edges.

    A sum of shifted copies: one fused pass over memory on every device, where a grouped
    convolution with as many groups as channels is slow on most. The sum is float32.
    """

    def __init__(self, width: int, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        bound = TAPS**-1.5
        shape = (TAPS, TAPS, TAPS, 1, width)
        self.dtype = runtime.dtype
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
        )
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, patches_bfrcw: Array) -> Array:
        """[B,F,G,G,W] to the same shape."""
        _, frames, rows, columns, _ = patches_bfrcw.shape
        kernel = self.kernel[...].astype(self.dtype)
        padded = jnp.pad(patches_bfrcw, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
        total = jnp.broadcast_to(self.bias[...], patches_bfrcw.shape)
        for t, r, c in itertools.product(range(TAPS), repeat=3):
            shifted = padded[:, t : t + frames, r : r + rows, c : c + columns]
            total = total + (shifted * kernel[t, r, c, 0]).astype(jnp.float32)
        return total.astype(self.dtype)


class TokenAttention(nnx.Module):
    """Attention of one query a clip over all its tokens, with one matrix for q, k and v.

    With one query the key and value matrices can be applied to the query and to the mix instead
    of to every token: the same numbers for a fraction of the products. The key's bias shifts all
    scores of a head alike, so it does nothing and is not read.
    """

    def __init__(
        self, width: int, heads: int, init: BlockInit, runtime: Runtime, *, rngs: nnx.Rngs
    ) -> None:
        self.heads = heads
        self.dtype = runtime.dtype
        self.qkv = linear(width, 3 * width, init.qkv, runtime, rngs)
        self.out = linear(width, width, init.out, runtime, rngs)

    def __call__(self, query_bw: Array, tokens_bnw: Array) -> Array:
        """[B,W] and [B,N,W] to [B,W]."""
        b, width = query_bw.shape
        head_width = width // self.heads
        kernel = self.qkv.kernel[...].astype(self.dtype)
        kernel_q, kernel_k, kernel_v = jnp.split(kernel, 3, axis=1)
        assert self.qkv.bias is not None
        bias_q, _, bias_v = jnp.split(self.qkv.bias[...].astype(self.dtype), 3)
        per_head = (width, self.heads, head_width)

        query_bhe = (query_bw @ kernel_q + bias_q).reshape(b, self.heads, head_width)
        folded_bhw = jnp.einsum("bhe,whe->bhw", query_bhe, kernel_k.reshape(per_head))
        scores_bhn = jnp.einsum("bhw,bnw->bhn", folded_bhw, tokens_bnw) * head_width**-0.5
        weights_bhn = jax.nn.softmax(scores_bhn.astype(jnp.float32), axis=-1).astype(self.dtype)
        mixed_bhw = jnp.einsum("bhn,bnw->bhw", weights_bhn, tokens_bnw)
        value_bhe = jnp.einsum("bhw,whe->bhe", mixed_bhw, kernel_v.reshape(per_head))
        return self.out(value_bhe.reshape(b, width) + bias_v)


class TokenReader(nnx.Module):
    """What follows a listed block: positions for its patches, then one step of the token."""

    def __init__(
        self, config: VisionConfig, init: BlockInit, runtime: Runtime, *, rngs: nnx.Rngs
    ) -> None:
        width, eps = config.width, config.layer_norm_eps
        self.positions = PositionConvolution(width, runtime, rngs=rngs)
        self.ln_1 = layer_norm(width, eps, runtime, rngs)
        self.ln_3 = layer_norm(width, eps, runtime, rngs)
        self.attn = TokenAttention(width, config.heads, init, runtime, rngs=rngs)
        self.ln_2 = layer_norm(width, eps, runtime, rngs)
        self.mlp = Mlp(width, config.activation, init, runtime, rngs=rngs)

    def __call__(self, token_bw: Array, x_bfnw: Array) -> tuple[Array, Array]:
        """Read a clip.

        token_bw [B,W]; x_bfnw [B,F,1+P,W], each frame's class token first. Returns the new token
        and what was added to the patches, [B,F,G,G,W].
        """
        b, frames, tokens, width = x_bfnw.shape
        side = round((tokens - 1) ** 0.5)
        grid = (b, frames, side, side, width)
        added_bfrcw = self.positions(x_bfnw[:, :, 1:].reshape(grid))
        added_bfnw = jnp.pad(
            added_bfrcw.reshape(b, frames, -1, width), ((0, 0), (0, 0), (1, 0), (0, 0))
        )
        read_bnw = (x_bfnw + added_bfnw).reshape(b, frames * tokens, width)
        token_bw = token_bw + self.attn(self.ln_1(token_bw), self.ln_3(read_bnw))
        return token_bw + self.mlp(self.ln_2(token_bw)), added_bfrcw


class TemporalToken(nnx.Module):
    """The token of a clip, what reads for it after each listed block, and how it is mixed in."""

    def __init__(self, config: VideoTowerConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        width = config.vision.width
        self.dtype = runtime.dtype
        self.token = nnx.Param(jnp.zeros((1, 1, width)))
        self.balance = nnx.Param(jnp.zeros(width))

        def reader(layer_rngs: nnx.Rngs) -> TokenReader:
            return TokenReader(config.vision, reader_init(), runtime, rngs=layer_rngs)

        self.blocks = nnx.vmap(reader)(rngs.split(len(config.return_list)))

    def first(self, batch: int) -> Array:
        """The token before anything is read, [B,W]."""
        token = self.token[...].astype(self.dtype)
        return jnp.broadcast_to(token.reshape(1, -1), (batch, token.shape[-1]))

    def mix(self, token_bw: Array, frames_bfw: Array) -> Array:
        """(1-g) token + g mean frame with g = sigmoid(balance), [B,W]; padded frames count."""
        gate_w = jax.nn.sigmoid(self.balance[...]).astype(self.dtype)
        return (1 - gate_w) * token_bw + gate_w * frames_bfw.mean(axis=1)


def layer_runs(layers: int, return_list: tuple[int, ...]) -> Iterator[tuple[int, int, int | None]]:
    """Runs of layers that are all listed or all not: (first, end, place of the first in the list).

    The place is None for a run that is not listed. Each run is one scan.
    """
    start = 0
    while start < layers:
        listed = start in return_list
        end = start + 1
        while end < layers and (end in return_list) == listed:
            end += 1
        yield start, end, (return_list.index(start) if listed else None)
        start = end


def _layers(stack: Any, first: int, end: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[first:end], stack)


class VideoTower(nnx.Module):
    """Frames to one vector a clip, and one a frame."""

    def __init__(self, config: VideoTowerConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        vision = config.vision
        width, eps = vision.width, vision.layer_norm_eps
        normal = nnx.initializers.normal(width**-0.5)
        self.config = config
        self.dtype = runtime.dtype
        self.remat = runtime.remat
        self.patch_embedding = FramePatchEmbedding(vision, runtime, rngs=rngs)
        self.class_embedding = nnx.Param(normal(rngs.params(), (width,)))
        self.position_embedding = nnx.Param(normal(rngs.params(), (vision.patches + 1, width)))
        self.ln_pre = layer_norm(width, eps, runtime, rngs)
        self.transformer = Transformer(
            width,
            vision.layers,
            vision.heads,
            activation=vision.activation,
            eps=eps,
            init=clip_block_init(width, vision.layers),
            runtime=runtime,
            rngs=rngs,
        )
        self.temporal = TemporalToken(config, runtime, rngs=rngs)
        self.ln_post = layer_norm(width, eps, runtime, rngs)
        self.projection = nnx.Param(normal(rngs.params(), (width, vision.embed_dim)))

    def patches(self, frames_bfhwc: Array) -> Array:
        """Normalised frames [B,F,R,R,3] to embedded patches [B,F,P,W], row by row."""
        return self.patch_embedding(cut_patches(frames_bfhwc, self.config.vision.patch_size))

    def embed(self, frames_bfhwc: Array) -> Array:
        """Normalised frames [B,F,R,R,3] to what the first block reads, [B*F,1+P,W]."""
        x_bfpw = self.patches(frames_bfhwc)
        b, f, p, w = x_bfpw.shape
        class_token = jnp.broadcast_to(self.class_embedding[...].astype(self.dtype), (b * f, 1, w))
        x = jnp.concatenate([class_token, x_bfpw.reshape(b * f, p, w)], axis=1)
        return self.ln_pre(x + self.position_embedding[...].astype(self.dtype))

    def stages(self, frames_bfhwc: Array) -> TowerStages:
        """Everything the tower computes on its way from normalised frames [B,F,R,R,3]."""
        embedded = self.embed(frames_bfhwc)
        x, token_bw, kept = self._run(embedded, frames_bfhwc.shape[:2], keep=True)
        blocks, readers = zip(*kept, strict=True)
        positions, tokens = zip(*(each for each in readers if each is not None), strict=True)
        return TowerStages(
            embedded=embedded,
            blocks=jnp.concatenate(blocks),
            positions=jnp.concatenate(positions),
            tokens=jnp.concatenate(tokens),
            mixed=self._mix(token_bw, x, frames_bfhwc.shape[:2]),
        )

    def project(self, hidden: Array) -> Array:
        """ln_post and the projection into the joint space, [...,W] to float32 [...,D]."""
        projected = self.ln_post(hidden) @ self.projection[...].astype(self.dtype)
        return projected.astype(jnp.float32)

    def __call__(self, frames_bfhwc: Array, frame_mask_bf: Array) -> VisionFeatures:
        """Encode normalised frames.

        frames_bfhwc: float [B,F,R,R,3]; any number of frames. frame_mask_bf is not used: padded
        frames, which are zero, are read like any other, as in the original. Returns the projected
        class token of each frame, no patches, and the projected token of the clip.
        """
        del frame_mask_bf
        b, f = frames_bfhwc.shape[:2]
        x, token_bw, _ = self._run(self.embed(frames_bfhwc), (b, f), keep=False)
        frames_bfd = self.project(x[:, 0]).reshape(b, f, -1)
        return VisionFeatures(frames_bfd, None, self.project(self._mix(token_bw, x, (b, f))))

    def _mix(self, token_bw: Array, x: Array, clips_frames: tuple[int, ...]) -> Array:
        return self.temporal.mix(token_bw, x[:, 0].reshape(*clips_frames, -1))

    def _run(
        self, x: Array, clips_frames: tuple[int, ...], keep: bool
    ) -> tuple[Array, Array, list[Any]]:
        """Blocks and readers in order: the stream, the token, and what each run kept."""

        def plain(x: Array, block: Block) -> tuple[Array, Any]:
            x = block(x, None, False)
            return x, ((x, None) if keep else None)

        def listed(
            carry: tuple[Array, Array], layer: tuple[Block, TokenReader]
        ) -> tuple[tuple[Array, Array], Any]:
            (x, token_bw), (block, reader) = carry, layer
            x = block(x, None, False)
            token_bw, added = reader(token_bw, x.reshape(*clips_frames, *x.shape[1:]))
            return (x, token_bw), ((x, (added, token_bw)) if keep else None)

        if self.remat:
            plain, listed = (jax.checkpoint(body, prevent_cse=False) for body in (plain, listed))
        token_bw, kept = self.temporal.first(clips_frames[0]), []
        for first, end, place in layer_runs(self.config.vision.layers, self.config.return_list):
            blocks = _layers(self.transformer.blocks, first, end)
            if place is None:
                x, outputs = jax.lax.scan(plain, x, blocks)
            else:
                readers = _layers(self.temporal.blocks, place, place + end - first)
                (x, token_bw), outputs = jax.lax.scan(listed, (x, token_bw), (blocks, readers))
            kept.append(outputs)
        return x, token_bw, kept
