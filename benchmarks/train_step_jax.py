"""vtr_jax's side of benchmarks/train_step.py: the step that `vtr train` runs, and encoding."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interleaved import bind_to_cores, serve
from train_step_settings import add_arguments, make_batch, repeated, timed

from vtr_jax.huge_pages import start_again_with_huge_pages

REPOSITORY = Path(__file__).resolve().parents[1]


def run_config(arguments: argparse.Namespace, init: Path) -> Any:
    """CLIP4Clip's mean pooling with AdamW over everything, as the other side has it."""
    from vtr_jax.training.command import read_config

    config = read_config("clip4clip:msrvtt")
    config.update_from_flattened_dict(
        {
            "init": str(init),
            "batch_size": arguments.clips,
            "compute_dtype": arguments.dtype,
            "attention": arguments.attention,
            "data.max_frames": arguments.frames,
            "data.max_words": arguments.words,
            "optimizer.name": "adamw",
            "optimizer.freeze_layer_num": -1,
        }
    )
    return config


def peak_measurement(dtype: str) -> Callable[[], dict[str, Any]]:
    """FLOP/s of a large matrix product."""
    import jax
    import jax.numpy as jnp

    size = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)

    def peak() -> dict[str, Any]:
        product(a, a).block_until_ready()
        start = time.perf_counter()
        repeated(lambda: product(a, a), 10).block_until_ready()
        seconds = (time.perf_counter() - start) / 10
        return {"seconds": seconds, "flops": 2 * size**3 / seconds}

    return peak


def step_measurements(arguments: argparse.Namespace, init: Path) -> dict[str, Any]:
    """Measurements of the train step, of encoding, and what the step is made of."""
    import jax

    from vtr_jax.checkpoint import load_retriever
    from vtr_jax.compile.analysis import abstract_step, model_flops
    from vtr_jax.sharding import batch_sharding, make_mesh
    from vtr_jax.training.step import compile_train_step, initial_train_state

    config = run_config(arguments, init)
    step = abstract_step(config)
    mesh = make_mesh(config.mesh.to_dict(), jax.devices()[:1])
    retriever = load_retriever(init).with_runtime(
        compute_dtype=arguments.dtype, attention=arguments.attention
    )
    resolution = retriever.config.clip.vision.image_resolution
    batch = jax.device_put(make_batch(arguments, resolution), batch_sharding(mesh))
    jitted = compile_train_step(step.settings, step.state, mesh)
    start = time.perf_counter()
    run = jitted.lower(step.state, step.batch, step.key).compile()
    compile_seconds = time.perf_counter() - start
    memory = run.memory_analysis()
    assert memory is not None
    encode = jax.jit(
        lambda retriever, batch: (
            retriever.encode_text(batch["token_ids"], batch["token_mask"]).sentence,
            retriever.encode_video(batch["frames"], batch["frame_mask"]).frames.sum(),
        )
    )
    copy = jax.tree.map(jax.numpy.copy, retriever)
    held = {"state": initial_train_state(copy, step.settings, mesh)}
    key = jax.random.key(0)

    def one_step() -> Any:
        held["state"], metrics = run(held["state"], batch, key)
        return metrics["loss"]

    return {
        "loss": lambda: {"seconds": 0.0, "value": float(one_step())},
        "step": timed(one_step, arguments.steps),
        "encode": timed(lambda: encode(retriever, batch)[1], arguments.steps),
        "peak": peak_measurement(arguments.dtype),
        "about": lambda: {
            "seconds": 0.0,
            "compile_seconds": round(compile_seconds, 1),
            "model_flops": model_flops(config),
            "temporary_gib": round(memory.temp_size_in_bytes / 2**30, 2),
            "device": jax.devices()[0].device_kind,
        },
    }


def main() -> None:
    """Convert the other side's weights, compile, then measure when told."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--weights", required=True, help="folder the other side saved")
    arguments = parser.parse_args()
    start_again_with_huge_pages()  # as `vtr train` does
    bind_to_cores(arguments.threads)

    from vtr_jax.convert.convert_checkpoint import convert_checkpoint

    init = Path(arguments.weights) / "converted"
    convert_checkpoint(arguments.weights, init)
    serve(step_measurements(arguments, init))


if __name__ == "__main__":
    main()
