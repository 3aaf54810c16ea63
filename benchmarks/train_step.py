"""Training step and encoding of CLIP beside PyTorch: same weights, batch, loss and optimizer.

    pip install torch                          (transformers, the peer's CLIP, is there already)
    python benchmarks/train_step.py            ViT-B/32, 12 frames, 32 tokens, float32
    python benchmarks/train_step.py --models ViT-B/32 ViT-B/16 ViT-L/14 --dtype=bfloat16 \\
        --clips=32 --steps=10 --torch_compile  on a GPU

Both sides are processes that take turns on the same cores; the first turn, and the first step of
each, is not counted. Prints one JSON line a model and a table: medians, and the median over turns
of PyTorch's seconds by ours. The whole step counts on both sides: forward, backward, clipping by
the global norm, AdamW. The first losses are of equal weights and must agree.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

from interleaved import Side, in_turns, median_seconds, ratio
from train_step_settings import add_arguments

HERE = Path(__file__).parent


def side_arguments(arguments: argparse.Namespace, model: str, weights: str) -> list[str]:
    """The options that a side is started with."""
    flags = [f"--model={model}", f"--weights={weights}", f"--dtype={arguments.dtype}"]
    for name in ("clips", "frames", "words", "steps", "threads"):
        flags.append(f"--{name}={getattr(arguments, name)}")
    return [*flags, "--torch_compile"] if arguments.torch_compile else flags


def measure(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    """One model both ways."""
    with tempfile.TemporaryDirectory() as weights:
        flags = side_arguments(arguments, model, weights)
        peer = Side("pytorch", HERE / "train_step_torch.py", flags)
        ours = Side("vtr_jax", HERE / "train_step_jax.py", flags)
        about = ours.measure("about")
        losses = {side.name: side.measure("loss")["value"] for side in (peer, ours)}
        answers = {
            what: in_turns((peer, ours), what, arguments.rounds)
            for what in ("step", "encode", "peak")
        }
        for side in (peer, ours):
            side.close()
    row: dict[str, Any] = {
        "model": model,
        "device": about["device"],
        "processor": platform.processor() or platform.machine(),
        "threads": arguments.threads,
        **{name: getattr(arguments, name) for name in ("clips", "frames", "words", "dtype")},
        "torch_compile": arguments.torch_compile,
        "compile_seconds": about["compile_seconds"],
        "first_losses": losses,
    }
    peak = max(each["flops"] for each in [*answers["peak"]["vtr_jax"], *answers["peak"]["pytorch"]])
    for what in ("step", "encode"):
        theirs, own = answers[what]["pytorch"], answers[what]["vtr_jax"]
        row[what] = {
            "pytorch_seconds": median_seconds(theirs),
            "vtr_jax_seconds": median_seconds(own),
            "vtr_jax_clips_per_second": arguments.clips / median_seconds(own),
            "times_faster": ratio(theirs, own),
            "all": {
                name: [round(each["seconds"], 5) for each in answers[what][name]]
                for name in answers[what]
            },
        }
    row["measured_peak_flops"] = peak
    row["share_of_peak"] = about["model_flops"] / median_seconds(answers["step"]["vtr_jax"]) / peak
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Measure every model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add_arguments(parser)
    parser.add_argument("--models", nargs="+", help="several, instead of --model")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    rows = [measure(arguments, model) for model in arguments.models or [arguments.model]]
    print(
        f"\n{'model':10}{'what':>8}{'PyTorch':>12}{'vtr_jax':>12}{'faster':>9}"
        f"{'clips/s':>10}{'of peak':>9}{'compile':>9}"
    )
    for row in rows:
        for what in ("step", "encode"):
            each, is_step = row[what], what == "step"
            share = f"{100 * row['share_of_peak']:.0f}%" if is_step else ""
            compiling = f"{row['compile_seconds']} s" if is_step else ""
            print(
                f"{row['model']:10}{what:>8}{1e3 * each['pytorch_seconds']:>9.1f} ms"
                f"{1e3 * each['vtr_jax_seconds']:>9.1f} ms{each['times_faster']:>8.2f}x"
                f"{each['vtr_jax_clips_per_second']:>10.1f}{share:>9}{compiling:>9}"
            )


if __name__ == "__main__":
    main()
