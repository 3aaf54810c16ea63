"""How a model is computed, as opposed to what it computes."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp

AttentionKind = Literal["xla", "cudnn"]
ATTENTIONS: tuple[str, ...] = get_args(AttentionKind)


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Settings that change speed and memory but not the parameters.

    compute_dtype: dtype of matrix products and activations in towers and heads, by name
        ("float32", "bfloat16"). Parameters, norms, softmax, losses and similarity scores
        stay float32 whatever it is.
    remat: recompute each Transformer block in the backward pass instead of keeping its
        activations.
    tile: texts and videos a side of the tiles in which token-wise and gated heads compare them.
    cross_tile: the same for cross-encoders, which run a Transformer over every pair.
    Results do not depend on either; memory does.
    attention: "xla", or "cudnn" for cuDNN's fused attention, which writes no scores to memory:
        NVIDIA GPUs alone, bfloat16 or float16. Attention with a bias, which is that with masked
        keys, stays with XLA.
    """

    compute_dtype: str = "float32"
    remat: bool = False
    tile: int = 64
    cross_tile: int = 16
    attention: AttentionKind = "xla"

    def __post_init__(self) -> None:
        if self.compute_dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(
                f"compute_dtype: expected float32, bfloat16 or float16, got {self.compute_dtype!r}"
            )
        for name in ("tile", "cross_tile"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)!r}")
        if self.attention not in ATTENTIONS:
            raise ValueError(
                f"attention: expected one of {', '.join(ATTENTIONS)}; got {self.attention!r}"
            )
        if self.attention == "cudnn" and self.compute_dtype == "float32":
            raise ValueError(
                "attention: cudnn computes in bfloat16 or float16, and compute_dtype is float32; "
                "change one of them"
            )

    @property
    def dtype(self) -> jnp.dtype:
        """The compute dtype as JAX knows it."""
        return jnp.dtype(self.compute_dtype)


def check_attention_device(attention: str, device: jax.Device) -> None:
    """Raise ValueError where a device cannot compute attention that way."""
    if attention != "cudnn":
        return
    # AMD's GPUs are of platform "gpu" too.
    if device.platform == "gpu" and "cuda" in device.client.platform_version:
        return
    raise ValueError(
        f"attention: cudnn needs NVIDIA GPUs, and the devices are {device.device_kind}; "
        "set attention=xla"
    )


def check_compute_device(compute_dtype: str, device: jax.Device) -> None:
    """Raise ValueError where a device cannot multiply matrices of that dtype."""
    if compute_dtype == "float16" and device.platform == "cpu":
        raise ValueError("compute_dtype: float16 does not run on a CPU; float32 or bfloat16 do")
