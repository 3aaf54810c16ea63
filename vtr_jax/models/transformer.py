"""The residual attention block that every tower and head is built of, stacked and scanned.

Parameters of a stack have a leading layer axis: `blocks/attn/qkv/kernel` is [layers, W, 3W].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vtr_jax.models.runtime import AttentionKind, Runtime
from vtr_jax.sharding import gathered, rows_split

Initializer = Callable[..., Array]

# The key mask of heads that follow BERT: added to scores, finite, so that a clip
# without any frame attends evenly instead of giving NaN.
BERT_MASK_VALUE = -1e6


def quick_gelu(x: Array) -> Array:
    """CLIP's activation, x * sigmoid(1.702 x); any shape."""
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x: Array) -> Array:
    """x * Phi(x) with the Gaussian distribution function Phi; any shape."""
    return jax.nn.gelu(x, approximate=False)


def tanh_gelu(x: Array) -> Array:
    """GELU with Phi approximated by a hyperbolic tangent; any shape."""
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": exact_gelu,
    "gelu_tanh": tanh_gelu,
}


def check_activation(name: str) -> None:
    """Refuse an activation that no original has; raises ValueError listing the known ones."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")


@dataclasses.dataclass(frozen=True)
class BlockInit:
    """Initializers of the four weight matrices of a block; biases start at 0, norms at 1/0."""

    qkv: Initializer
    out: Initializer
    fc: Initializer
    proj: Initializer


def clip_block_init(width: int, layers: int) -> BlockInit:
    """CLIP's own scheme: normal, residual branches scaled down by sqrt(2 * layers)."""
    normal = nnx.initializers.normal
    residual = width**-0.5 * (2 * layers) ** -0.5
    return BlockInit(
        qkv=normal(width**-0.5),
        out=normal(residual),
        fc=normal((2 * width) ** -0.5),
        proj=normal(residual),
    )


def bert_block_init() -> BlockInit:
    """The scheme of the retrieval heads: normal(0.02), query/key/value Xavier-uniform."""
    normal = nnx.initializers.normal(0.02)
    return BlockInit(qkv=nnx.initializers.xavier_uniform(), out=normal, fc=normal, proj=normal)


def key_mask_bias(mask_bl: Array) -> Array:
    """Additive attention bias [B,1,1,L] from a 0/1 key mask [B,L]: (1 - mask) * -1e6."""
    return ((1.0 - mask_bl.astype(jnp.float32)) * BERT_MASK_VALUE)[:, None, None, :]


def layer_norm(width: int, eps: float, runtime: Runtime, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm over the last axis, statistics in float32, biased variance, eps in the root."""
    return nnx.LayerNorm(
        width, epsilon=eps, dtype=runtime.dtype, use_fast_variance=False, rngs=rngs
    )


def linear(
    inputs: int, outputs: int, init: Initializer, runtime: Runtime, rngs: nnx.Rngs
) -> nnx.Linear:
    """Dense layer with a zero bias, computed in the runtime's dtype."""
    return nnx.Linear(inputs, outputs, dtype=runtime.dtype, kernel_init=init, rngs=rngs)


def product(layer: nnx.Linear, name: str, x: Array) -> Array:
    """layer(x) with its matrix gathered where it is split, and again for the backward pass.

    name: of the layer, as in sharding.PLACEMENT.
    """

    def of_part(part: nnx.Linear, x: Array) -> Array:
        return gathered(part, name, jnp.dtype(part.dtype))(x)

    return jax.checkpoint(of_part, prevent_cse=False)(layer, x)


def recomputed(function: Callable[[Array], Array], x: Array) -> Array:
    """function(x), of which the backward pass keeps x alone and computes the rest again.

    For what costs less to compute than to write and read: activations and norms. The output of a
    matrix product at the end is not computed again, because no gradient needs it.
    """
    return jax.checkpoint(function, prevent_cse=False)(x)


def fused_attention(
    q_blhe: Array, k_blhe: Array, v_blhe: Array, is_causal: bool, implementation: AttentionKind
) -> Array:
    """Attention within each row of [B,L,H,E] without a bias, for cuDNN; returns [B,L,H,E].

    JAX refuses an odd L in training, with a bias or without one: it then gets one position more,
    which no other sees.
    """
    b, length = q_blhe.shape[:2]
    if length % 2 == 0:
        return jax.nn.dot_product_attention(
            q_blhe, k_blhe, v_blhe, is_causal=is_causal, implementation=implementation
        )
    more = ((0, 0), (0, 1), (0, 0), (0, 0))
    mixed = jax.nn.dot_product_attention(
        *(jnp.pad(each, more) for each in (q_blhe, k_blhe, v_blhe)),
        is_causal=is_causal,
        # Split as the rows are: each device's kernel reads a length for each of its own.
        key_value_seq_lengths=rows_split(jnp.full(b, length, jnp.int32)),
        implementation=implementation,
    )
    return mixed[:, :length]


class Attention(nnx.Module):
    """Multi-head self-attention with one matrix for query, key and value."""

    def __init__(
        self, width: int, heads: int, init: BlockInit, runtime: Runtime, *, rngs: nnx.Rngs
    ) -> None:
        if width % heads:
            raise ValueError(f"attention width {width} is not divisible by {heads} heads")
        if runtime.attention == "cudnn" and (width // heads % 8 or width // heads > 128):
            raise ValueError(
                f"attention: cudnn takes heads whose width is a multiple of 8 up to 128, got "
                f"{width // heads} ({width} over {heads} heads); set attention=xla"
            )
        self.heads = heads
        self.implementation = runtime.attention
        self.qkv = linear(width, 3 * width, init.qkv, runtime, rngs)
        self.out = linear(width, width, init.out, runtime, rngs)

    def __call__(self, x_blw: Array, bias: Array | None, is_causal: bool) -> Array:
        """Attend within each row of [B,L,W]; bias is added to the [B,H,L,L] scores."""
        b, length, width = x_blw.shape
        # Gradients of parts of a split are put side by side; those of slices padded and added.
        parts = jnp.split(product(self.qkv, "blocks/attn/qkv", x_blw), 3, axis=-1)
        q, k, v = (part.reshape(b, length, self.heads, width // self.heads) for part in parts)
        # cuDNN takes a bias only as [.., L, L] and differentiates it.
        if bias is None and self.implementation == "cudnn":
            mixed = fused_attention(q, k, v, is_causal, self.implementation)
        else:
            mixed = jax.nn.dot_product_attention(
                q, k, v, bias=bias, is_causal=is_causal, implementation="xla"
            )
        return product(self.out, "blocks/attn/out", mixed.reshape(b, length, width))


class Mlp(nnx.Module):
    """Two dense layers, four times the width between them."""

    def __init__(
        self, width: int, activation: str, init: BlockInit, runtime: Runtime, *, rngs: nnx.Rngs
    ) -> None:
        self.activation = activation
        self.fc = linear(width, 4 * width, init.fc, runtime, rngs)
        self.proj = linear(4 * width, width, init.proj, runtime, rngs)

    def __call__(self, x_blw: Array) -> Array:
        def contracted(hidden_blw: Array) -> Array:
            return product(self.proj, "blocks/mlp/proj", ACTIVATIONS[self.activation](hidden_blw))

        return recomputed(contracted, product(self.fc, "blocks/mlp/fc", x_blw))


class Block(nnx.Module):
    """x + Attn(LN1 x), then x + MLP(LN2 x)."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        activation: str,
        eps: float,
        init: BlockInit,
        runtime: Runtime,
        rngs: nnx.Rngs,
    ) -> None:
        self.ln_1 = layer_norm(width, eps, runtime, rngs)
        self.attn = Attention(width, heads, init, runtime, rngs=rngs)
        self.ln_2 = layer_norm(width, eps, runtime, rngs)
        self.mlp = Mlp(width, activation, init, runtime, rngs=rngs)

    def __call__(self, x_blw: Array, bias: Array | None, is_causal: bool) -> Array:
        x_blw = rows_split(x_blw)
        x_blw = rows_split(x_blw + self.attn(recomputed(self.ln_1, x_blw), bias, is_causal))
        return rows_split(x_blw + self.mlp(recomputed(self.ln_2, x_blw)))


class Transformer(nnx.Module):
    """A stack of blocks, scanned over their leading layer axis."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        activation: str = "quick_gelu",
        eps: float = 1e-5,
        init: BlockInit,
        runtime: Runtime,
        rngs: nnx.Rngs,
    ) -> None:
        check_activation(activation)
        if layers < 1:
            raise ValueError(f"a Transformer needs at least one layer, got {layers}")
        self.layers = layers
        self.remat = runtime.remat

        def make(layer_rngs: nnx.Rngs) -> Block:
            return Block(
                width,
                heads,
                activation=activation,
                eps=eps,
                init=init,
                runtime=runtime,
                rngs=layer_rngs,
            )

        self.blocks = nnx.vmap(make)(rngs.split(layers))

    def _scan(
        self, x_blw: Array, bias: Array | None, is_causal: bool, keep_layers: bool
    ) -> tuple[Array, Array | None]:
        def body(x: Array, block: Block) -> tuple[Array, Array | None]:
            x = block(x, bias, is_causal)
            return x, (x if keep_layers else None)

        if self.remat:
            body = jax.checkpoint(body, prevent_cse=False)
        return jax.lax.scan(body, x_blw, self.blocks)

    def __call__(self, x_blw: Array, bias: Array | None = None, is_causal: bool = False) -> Array:
        """All blocks in order.

        x_blw: [B,L,W] in the compute dtype. bias: added to attention scores, broadcastable to
        [B,heads,L,L]. is_causal: position i sees positions up to i. Returns [B,L,W].
        """
        return self._scan(x_blw, bias, is_causal, keep_layers=False)[0]

    def layer_outputs(
        self, x_blw: Array, bias: Array | None = None, is_causal: bool = False
    ) -> Array:
        """The output of every block, [layers,B,L,W]; arguments as for a call."""
        outputs = self._scan(x_blw, bias, is_causal, keep_layers=True)[1]
        assert outputs is not None
        return outputs
