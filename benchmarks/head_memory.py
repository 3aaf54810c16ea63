"""Temporary memory of the heads that compare every text with every video, tile by tile.

    python benchmarks/head_memory.py [--batch 1024] [--cross_batch 64] [--tokens 32] [--frames 12]

Compiles the training loss of each head with its gradient by features and parameters, for one
device, and asks XLA how much it needs besides arguments and results; nothing is run. Prints one
JSON line a head, then a table. all_pairs_gib is the one array that tiling avoids: the cosines of
every word and frame, or a cross-encoder's embedded sequences, of all pairs.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import jax
import jax.numpy as jnp

from vtr_jax.models.clip import ClipConfig, clip_config
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import Retriever, abstract_retriever
from vtr_jax.models.runtime import Runtime

GIB = 2**30
BARE = {"agg_module": "None"}
# Head by name: recipe and options.
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "ti": ("drl", {"interaction": "ti", "cdcr": 0, **BARE}),
    "wti": ("drl", {"interaction": "wti", "cdcr": 0, **BARE}),
    "wti, cdcr 3": ("drl", {"interaction": "wti", "cdcr": 3, **BARE}),
    "emcl": ("emcl", BARE),
    "xti": ("drl", {"interaction": "xti", "cdcr": 0, **BARE}),
    "tightTransf": ("clip4clip", {"sim_header": "tightTransf"}),
}
CROSS_ENCODERS = ("xti", "tightTransf")


def towers(width: int) -> ClipConfig:
    """The smallest towers of that joint width; the heads know nothing else of them."""
    return clip_config(
        embed_dim=width,
        image_resolution=16,
        patch_size=16,
        vision_width=64,
        vision_layers=1,
        text_width=width,
        text_layers=1,
        vocab_size=64,
    )


def abstract_features(
    batch: int, tokens: int, frames: int, width: int
) -> tuple[TextFeatures, VideoFeatures]:
    """Encoded captions and clips that are never made."""

    def float32(*axes: int) -> Any:
        return jax.ShapeDtypeStruct(axes, jnp.float32)

    text = TextFeatures(
        float32(batch, width), float32(batch, tokens, width), float32(batch, tokens)
    )
    vectors = float32(batch, frames, width)
    return text, VideoFeatures(vectors, vectors, None, None, float32(batch, frames))


def temporary_bytes(retriever: Retriever, text: TextFeatures, video: VideoFeatures) -> int:
    """What loss and gradient of abstract features need besides arguments and results."""

    def loss(r: Retriever, text: TextFeatures, video: VideoFeatures, key: Any) -> Any:
        return r.loss(text, video, rng=key)[0]

    key = jax.eval_shape(lambda: jax.random.key(0))
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    analysis = gradient.lower(retriever, text, video, key).compile().memory_analysis()
    assert analysis is not None
    return int(analysis.temp_size_in_bytes)


def measure(head: str, given: argparse.Namespace) -> dict[str, Any]:
    """One row: the head, its batch, tile, and memory in GiB."""
    recipe, options = HEADS[head]
    config = recipe_named(recipe).config(towers(given.width), options)
    retriever = abstract_retriever(config, Runtime(tile=given.tile, cross_tile=given.cross_tile))
    crosses = head in CROSS_ENCODERS
    batch, tile = (given.cross_batch, given.cross_tile) if crosses else (given.batch, given.tile)
    features = abstract_features(batch, given.tokens, given.frames, given.width)
    of_pair = (1 + given.frames) * given.width if crosses else given.tokens * given.frames
    return {
        "head": head,
        "batch": batch,
        "tile": tile,
        "temporary_gib": round(temporary_bytes(retriever, *features) / GIB, 3),
        "all_pairs_gib": round(4 * batch**2 * of_pair / GIB, 3),
    }


def arguments_parser() -> argparse.ArgumentParser:
    """Sizes, by default those of a batch of 1024 MSR-VTT captions and clips."""
    parser = argparse.ArgumentParser(description="Temporary memory of the heads over all pairs.")
    sizes = {"batch": 1024, "cross_batch": 64, "tokens": 32, "frames": 12, "width": 512}
    tiles = {"tile": Runtime().tile, "cross_tile": Runtime().cross_tile}
    for name, value in {**sizes, **tiles}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser


def main() -> None:
    """Measure and print."""
    given = arguments_parser().parse_args()
    rows = []
    for head in HEADS:
        rows.append(measure(head, given))
        print(json.dumps(rows[-1]), flush=True)
    print("\n| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    main()
