"""How a model is computed, as opposed to what it computes."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Settings that change speed and memory but not the parameters.

    compute_dtype: dtype of matrix products and activations in towers and heads, by name
        ("float32", "bfloat16"). Parameters, norms, softmax, losses and similarity scores
        stay float32 whatever it is.
    remat: recompute each Transformer block in the backward pass instead of keeping its
        activations.
    """

    compute_dtype: str = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        if self.compute_dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(
                f"compute_dtype: expected float32, bfloat16 or float16, got {self.compute_dtype!r}"
            )

    @property
    def dtype(self) -> jnp.dtype:
        """The compute dtype as JAX knows it."""
        return jnp.dtype(self.compute_dtype)
