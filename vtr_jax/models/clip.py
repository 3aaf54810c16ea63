"""CLIP's two towers: a vision Transformer over frames and a causal text Transformer.

Both give more than the pooled vector, because heads read per-token and per-patch features.
Nothing here is L2-normalised. Source: openai/CLIP; the 3d patch embedding is CLIP4Clip's.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vtr_jax.models.features import VisionFeatures
from vtr_jax.models.runtime import Runtime
from vtr_jax.models.transformer import (
    Transformer,
    check_activation,
    clip_block_init,
    layer_norm,
)
from vtr_jax.vocabulary import TOKENISER_VOCABULARY

HEAD_WIDTH = 64
INITIAL_LOGIT_SCALE = 2.6592  # ln(1 / 0.07)


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Sizes of the vision tower."""

    image_resolution: int
    patch_size: int
    width: int
    layers: int
    heads: int
    embed_dim: int
    activation: str = "quick_gelu"
    linear_patch: str = "2d"
    layer_norm_eps: float = 1e-5

    @property
    def patches(self) -> int:
        """Patches a frame."""
        return (self.image_resolution // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Sizes of the text tower. end_of_text_id None: pool at the largest id of the row."""

    context_length: int
    vocab_size: int
    width: int
    layers: int
    heads: int
    embed_dim: int
    activation: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    end_of_text_id: int | None = None


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Both towers; they share the width of the joint space."""

    vision: VisionConfig
    text: TextConfig

    @property
    def embed_dim(self) -> int:
        """Width of the joint space."""
        return self.text.embed_dim


def _heads(option: str, heads: int | None, width: int) -> int:
    heads = max(1, width // HEAD_WIDTH) if heads is None else heads
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise ValueError(f"{option}: {heads!r} heads do not divide the tower's width {width}")
    return heads


def clip_config(
    *,
    embed_dim: int,
    image_resolution: int,
    patch_size: int,
    vision_width: int,
    vision_layers: int,
    text_width: int,
    text_layers: int,
    context_length: int = 77,
    vocab_size: int = TOKENISER_VOCABULARY,
    vision_heads: int | None = None,
    text_heads: int | None = None,
    activation: str = "quick_gelu",
    linear_patch: str = "2d",
) -> ClipConfig:
    """Sizes of a CLIP; head counts default to width / 64 as in every released model.

    Raises ValueError for sizes that do not fit together.
    """
    if image_resolution % patch_size:
        raise ValueError(
            f"image resolution {image_resolution} is not a multiple of the patch size {patch_size}"
        )
    if linear_patch not in ("2d", "3d"):
        raise ValueError(f"linear_patch: expected 2d or 3d, got {linear_patch!r}")
    if min(vision_layers, text_layers) < 1:
        raise ValueError(
            f"both towers need layers, got {vision_layers} (vision) and {text_layers} (text)"
        )
    check_activation(activation)
    vision = VisionConfig(
        image_resolution=image_resolution,
        patch_size=patch_size,
        width=vision_width,
        layers=vision_layers,
        heads=_heads("vision_heads", vision_heads, vision_width),
        embed_dim=embed_dim,
        activation=activation,
        linear_patch=linear_patch,
    )
    text = TextConfig(
        context_length=context_length,
        vocab_size=vocab_size,
        width=text_width,
        layers=text_layers,
        heads=_heads("text_heads", text_heads, text_width),
        embed_dim=embed_dim,
        activation=activation,
    )
    return ClipConfig(vision, text)


CLIP_PRESETS: dict[str, ClipConfig] = {
    "ViT-B/32": clip_config(
        embed_dim=512,
        image_resolution=224,
        patch_size=32,
        vision_width=768,
        vision_layers=12,
        text_width=512,
        text_layers=12,
    ),
    "ViT-B/16": clip_config(
        embed_dim=512,
        image_resolution=224,
        patch_size=16,
        vision_width=768,
        vision_layers=12,
        text_width=512,
        text_layers=12,
    ),
    "ViT-L/14": clip_config(
        embed_dim=768,
        image_resolution=224,
        patch_size=14,
        vision_width=1024,
        vision_layers=24,
        text_width=768,
        text_layers=12,
    ),
    "ViT-L/14@336px": clip_config(
        embed_dim=768,
        image_resolution=336,
        patch_size=14,
        vision_width=1024,
        vision_layers=24,
        text_width=768,
        text_layers=12,
    ),
}


class PatchEmbedding(nnx.Module):
    """Patches of one frame to vectors: a bias-free convolution with stride = kernel."""

    def __init__(self, config: VisionConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        patch, width = config.patch_size, config.width
        init = nnx.initializers.lecun_normal(in_axis=(0, 1, 2), out_axis=3)
        self.kernel = nnx.Param(init(rngs.params(), (patch, patch, 3, width)))
        self.dtype = runtime.dtype

    def __call__(self, patches_bfpk: Array) -> Array:
        """[B,F,P,patch*patch*3] to [B,F,P,W]."""
        kernel = self.kernel[...].astype(self.dtype)
        return patches_bfpk.astype(self.dtype) @ kernel.reshape(-1, kernel.shape[-1])


class PatchEmbedding3d(nnx.Module):
    """Patches of three neighbouring frames to vectors (CLIP4Clip's linear_patch 3d).

    Frames beyond either end of the clip count as zero pictures. A fresh one ignores the
    neighbours, so that it starts as the 2d embedding.
    """

    def __init__(self, config: VisionConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        patch, width = config.patch_size, config.width
        init = nnx.initializers.lecun_normal(in_axis=(0, 1, 2), out_axis=3)
        middle = init(rngs.params(), (patch, patch, 3, width))
        self.kernel = nnx.Param(jnp.stack([jnp.zeros_like(middle), middle, jnp.zeros_like(middle)]))
        self.dtype = runtime.dtype

    def __call__(self, patches_bfpk: Array) -> Array:
        """[B,F,P,patch*patch*3] to [B,F,P,W]."""
        kernel = self.kernel[...].astype(self.dtype)
        kernel = kernel.reshape(3, -1, kernel.shape[-1])
        frames = patches_bfpk.shape[1]
        padded = jnp.pad(patches_bfpk.astype(self.dtype), ((0, 0), (1, 1), (0, 0), (0, 0)))
        before, same, after = (padded[:, tap : tap + frames] @ kernel[tap] for tap in range(3))
        return before + same + after


def cut_patches(frames_bfhwc: Array, patch: int) -> Array:
    """Cut [B,F,R,R,3] into [B,F,P,patch*patch*3], patches row by row."""
    b, f, height, width, channels = frames_bfhwc.shape
    rows, columns = height // patch, width // patch
    cut = frames_bfhwc.reshape(b, f, rows, patch, columns, patch, channels)
    return cut.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, f, rows * columns, -1)


class VisionTower(nnx.Module):
    """Frames to one vector a frame, and one a patch."""

    def __init__(self, config: VisionConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        width = config.width
        normal = nnx.initializers.normal(width**-0.5)
        self.config = config
        self.dtype = runtime.dtype
        self.patch_embedding = PatchEmbedding(config, runtime, rngs=rngs)
        if config.linear_patch == "3d":
            self.patch_embedding_3d = PatchEmbedding3d(config, runtime, rngs=rngs)
        self.class_embedding = nnx.Param(normal(rngs.params(), (width,)))
        self.position_embedding = nnx.Param(normal(rngs.params(), (config.patches + 1, width)))
        self.ln_pre = layer_norm(width, config.layer_norm_eps, runtime, rngs)
        self.transformer = Transformer(
            width,
            config.layers,
            config.heads,
            activation=config.activation,
            eps=config.layer_norm_eps,
            init=clip_block_init(width, config.layers),
            runtime=runtime,
            rngs=rngs,
        )
        self.ln_post = layer_norm(width, config.layer_norm_eps, runtime, rngs)
        self.projection = nnx.Param(normal(rngs.params(), (width, config.embed_dim)))

    def embed(self, frames_bfhwc: Array) -> Array:
        """Normalised frames [B,F,R,R,3] to what the first block reads, [B*F,1+P,W]."""
        patches_bfpk = cut_patches(frames_bfhwc, self.config.patch_size)
        three_d = self.config.linear_patch == "3d"
        embedding = self.patch_embedding_3d if three_d else self.patch_embedding
        x_bfpw = embedding(patches_bfpk)
        b, f, p, w = x_bfpw.shape
        x = x_bfpw.reshape(b * f, p, w)
        class_token = jnp.broadcast_to(self.class_embedding[...].astype(x.dtype), (b * f, 1, w))
        x = jnp.concatenate([class_token, x], axis=1)
        return self.ln_pre(x + self.position_embedding[...].astype(x.dtype))

    def project(self, hidden: Array) -> Array:
        """ln_post and the projection into the joint space, [...,W] to float32 [...,D]."""
        projected = self.ln_post(hidden) @ self.projection[...].astype(self.dtype)
        return projected.astype(jnp.float32)

    def __call__(self, frames_bfhwc: Array, frame_mask_bf: Array) -> VisionFeatures:
        """Encode normalised frames.

        frames_bfhwc: float [B,F,R,R,3]. frame_mask_bf is not used: a frame sees itself alone (and
        with a 3d patch embedding its neighbours, which are zero outside the mask). Returns the
        projected class token of each frame, and every projected patch.
        """
        del frame_mask_bf
        b, f = frames_bfhwc.shape[:2]
        hidden = self.transformer(self.embed(frames_bfhwc))
        frames_bfd = self.project(hidden[:, 0]).reshape(b, f, -1)
        patches_bfpd = self.project(hidden[:, 1:]).reshape(b, f, self.config.patches, -1)
        return VisionFeatures(frames_bfd, patches_bfpd)


def fold_token_ids(token_ids: Array, vocab_size: int) -> Array:
    """Token ids that a small vocabulary can hold, any int shape.

    Ids below vocab_size stay. Beyond it, start and end of text take the last two places and words
    wrap around, so that towers with few entries can be trained on the usual tokens. A vocabulary
    of the tokeniser's 49,408 or more is never touched.
    """
    if vocab_size >= TOKENISER_VOCABULARY:
        return token_ids
    special = token_ids - (TOKENISER_VOCABULARY - vocab_size)
    words = token_ids % (vocab_size - 2)
    folded = jnp.where(token_ids >= TOKENISER_VOCABULARY - 2, special, words)
    return jnp.where(token_ids < vocab_size, token_ids, folded)


class TextTower(nnx.Module):
    """Token ids to one vector a sentence, and one a token."""

    def __init__(self, config: TextConfig, runtime: Runtime, *, rngs: nnx.Rngs) -> None:
        width = config.width
        self.config = config
        self.dtype = runtime.dtype
        self.token_embedding = nnx.Embed(
            config.vocab_size,
            width,
            dtype=runtime.dtype,
            embedding_init=nnx.initializers.normal(0.02),
            rngs=rngs,
        )
        self.position_embedding = nnx.Param(
            nnx.initializers.normal(0.01)(rngs.params(), (config.context_length, width))
        )
        self.transformer = Transformer(
            width,
            config.layers,
            config.heads,
            activation=config.activation,
            eps=config.layer_norm_eps,
            init=clip_block_init(width, config.layers),
            runtime=runtime,
            rngs=rngs,
        )
        self.ln_final = layer_norm(width, config.layer_norm_eps, runtime, rngs)
        self.projection = nnx.Param(
            nnx.initializers.normal(width**-0.5)(rngs.params(), (width, config.embed_dim))
        )

    def embed(self, token_ids_bl: Array) -> Array:
        """Token and position embeddings, [B,L] to [B,L,W]."""
        positions = self.position_embedding[...][: token_ids_bl.shape[1]]
        folded = fold_token_ids(token_ids_bl, self.config.vocab_size)
        return self.token_embedding(folded) + positions.astype(self.dtype)

    def hidden(self, token_ids_bl: Array, token_mask_bl: Array | None = None) -> Array:
        """Normalised hidden states before the projection, [B,L] to [B,L,W].

        token_mask_bl: None for CLIP's causal attention, where padding stands after the end of
        the text and is kept out by causality alone; a 0/1 mask also hides its zeros as keys, as
        EMCL-Net does, which changes the tokens after the end.
        """
        bias = None
        if token_mask_bl is not None:
            hidden_key = jnp.finfo(jnp.float32).min
            bias = jnp.where(token_mask_bl > 0, 0.0, hidden_key)[:, None, None, :]
        x = self.transformer(self.embed(token_ids_bl), bias=bias, is_causal=True)
        return self.ln_final(x)

    def end_positions(self, token_ids_bl: Array) -> Array:
        """Where each row is pooled, [B] int: its first largest id, or the first end-of-text id."""
        if self.config.end_of_text_id is None:
            return jnp.argmax(token_ids_bl, axis=1)
        folded = fold_token_ids(token_ids_bl, self.config.vocab_size)
        return jnp.argmax(folded == self.config.end_of_text_id, axis=1)

    def project(self, hidden: Array) -> Array:
        """The projection into the joint space, [...,W] to float32 [...,D]."""
        return (hidden @ self.projection[...].astype(self.dtype)).astype(jnp.float32)

    def __call__(
        self, token_ids_bl: Array, token_mask_bl: Array | None = None, projects: bool = True
    ) -> tuple[Array, Array]:
        """Encode captions.

        token_ids_bl: int32 [B,L], L up to the context length. token_mask_bl: as for hidden.
        Returns (sentence_bd, tokens), float32: the projected end-of-text token, and every token,
        [B,L,D] projected or [B,L,W] as it leaves the last norm (projects False).
        """
        hidden_blw = self.hidden(token_ids_bl, token_mask_bl)
        rows = jnp.arange(token_ids_bl.shape[0])
        sentence_bd = self.project(hidden_blw[rows, self.end_positions(token_ids_bl)])
        tokens = self.project(hidden_blw) if projects else hidden_blw.astype(jnp.float32)
        return sentence_bd, tokens


def initial_logit_scale() -> Array:
    """The learned log of the inverse temperature as CLIP starts it; float32 scalar."""
    return jax.numpy.asarray(INITIAL_LOGIT_SCALE, jnp.float32)
