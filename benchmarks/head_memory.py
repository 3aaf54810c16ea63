"""Temporary memory of the heads that compare every text with every video, tile by tile.

    python benchmarks/head_memory.py [--batch 1024] [--tokens 32] [--frames 12] [--width 512]

Compiles the gradient of each head for one CPU device and asks XLA how much it needs besides
arguments and results; nothing is run. Prints one JSON line a head, then a table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vtr_jax.models.interactions.token_wise import (
    DRL_MASKED,
    TokenWeight,
    TokenWeightConfig,
    mean_weights,
    softmax_weights,
    token_wise_scores,
    weighted,
)
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.runtime import Runtime

GIB = 2**30


def shape(*axes: int) -> jax.ShapeDtypeStruct:
    """A float32 argument that is never made."""
    return jax.ShapeDtypeStruct(axes, jnp.float32)


def temporary_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """What forward and backward of a scalar function need besides arguments and results."""
    wanted = tuple(range(len(arguments)))
    compiled = jax.jit(jax.grad(function, argnums=wanted)).lower(*arguments).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def wti(batch: int, tokens: int, frames: int, width: int, tile: int) -> int:
    """Weighted token-wise interaction with two-layer weights."""
    spec = ModuleSpec(TokenWeight, TokenWeightConfig(width, 2), Runtime())

    def total(params: Any, tokens_bld: Any, frames_bfd: Any, masks: Any) -> Any:
        sides = [
            weighted(x, mask, softmax_weights(spec.bind(head)(x), mask, DRL_MASKED))
            for head, x, mask in zip(params, (tokens_bld, frames_bfd), masks, strict=True)
        ]
        return token_wise_scores(*sides, tile)["logits_tv"].sum()

    return temporary_bytes(
        total,
        (spec.abstract(), spec.abstract()),
        shape(batch, tokens, width),
        shape(batch, frames, width),
        (shape(batch, tokens), shape(batch, frames)),
    )


def ti(batch: int, tokens: int, frames: int, width: int, tile: int) -> int:
    """Token-wise interaction: every word and frame counts the same."""

    def total(tokens_bld: Any, frames_bfd: Any, masks: Any) -> Any:
        sides = [
            weighted(x, mask, mean_weights(mask))
            for x, mask in zip((tokens_bld, frames_bfd), masks, strict=True)
        ]
        return token_wise_scores(*sides, tile)["logits_tv"].sum()

    return temporary_bytes(
        total,
        shape(batch, tokens, width),
        shape(batch, frames, width),
        (shape(batch, tokens), shape(batch, frames)),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"batch": 1024, "tokens": 32, "frames": 12, "width": 512}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--tile", type=int, default=Runtime().tile)
    given = parser.parse_args()
    sizes = (given.batch, given.tokens, given.frames, given.width)
    rows = []
    for head in (ti, wti):
        row = {"head": head.__name__, "batch": given.batch, "tile": given.tile}
        row["temporary_gib"] = round(head(*sizes, given.tile) / GIB, 3)
        row["all_pairs_gib"] = round(4 * given.batch**2 * given.tokens * given.frames / GIB, 3)
        rows.append(row)
        print(json.dumps(row), flush=True)
    print("\n| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    main()
