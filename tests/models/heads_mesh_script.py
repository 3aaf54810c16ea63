"""Losses and gradients of heads that compare all pairs, on one device and on eight; JSON.

Run by test_heads_on_a_mesh.py in a process of its own: the number of devices is fixed at the start.
"""

from __future__ import annotations

import json
import os
from importlib import metadata

# Simpler code compiles in a quarter of the time; what is computed where stays the same.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    # Else devices may start collectives in different orders and wait for each other.
    "--xla_cpu_enable_concurrency_optimized_scheduler=false"
)
# jaxlib 0.12 has no fusion emitters to switch off, and rejects a flag it does not know.
if metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import jax
import jax.numpy as jnp
import numpy as np

from vtr_jax.models.clip import clip_config
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import init_retriever
from vtr_jax.models.runtime import Runtime
from vtr_jax.sharding import batch_sharding, make_mesh

BATCH, WORDS, FRAMES, WIDTH = 16, 6, 4, 32
HEADS = {
    "wti": {"interaction": "wti", "cdcr": 3},
    "ti": {"interaction": "ti", "cdcr": 2},
    "xti": {"interaction": "xti"},
}
CLIP = clip_config(
    embed_dim=WIDTH,
    image_resolution=16,
    patch_size=16,
    vision_width=32,
    vision_layers=1,
    vision_heads=1,
    text_width=WIDTH,
    text_layers=1,
    text_heads=1,
    vocab_size=64,
)


def features():
    """A batch of random features whose captions and clips differ in length."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    def mask(positions):
        count = rng.integers(1, positions + 1, BATCH)
        return jnp.asarray(np.arange(positions) < count[:, None], jnp.float32)

    frames = normal(BATCH, FRAMES, WIDTH)
    return (
        TextFeatures(normal(BATCH, WIDTH), normal(BATCH, WORDS, WIDTH), mask(WORDS)),
        VideoFeatures(frames, frames, None, None, mask(FRAMES)),
    )


def main() -> None:
    """Print the loss and how far the gradients are apart, by head."""
    text, video = features()
    mesh = make_mesh({"data": 4, "fsdp": 2})
    spread = jax.device_put((text, video), batch_sharding(mesh))
    found = {}
    for head, options in HEADS.items():
        config = recipe_named("drl").config(CLIP, {**options, "agg_module": "None"})
        retriever = init_retriever(config, jax.random.key(0), Runtime(tile=8, cross_tile=8))
        step = jax.jit(
            jax.value_and_grad(lambda r, text, video: r.loss(text, video)[0], argnums=(0, 1, 2))
        )
        loss, gradients = step(retriever, text, video)
        loss_8, gradients_8 = step(retriever, *spread)
        apart = jax.tree.map(
            lambda a, b: float(np.abs(np.asarray(a) - b).max()), gradients, gradients_8
        )
        largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
        found[head] = {
            "loss": float(loss),
            "loss on 8": float(loss_8),
            "gradients apart": max(jax.tree.leaves(apart)) / largest,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
