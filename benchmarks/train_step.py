"""Training step and encoding of CLIP beside PyTorch: same weights, batch, loss and optimizer.

    pip install torch                          (transformers, the peer's CLIP, is there already)
    python benchmarks/train_step.py            ViT-B/32, 12 frames, 32 tokens, float32
    python benchmarks/train_step.py --models ViT-B/32 ViT-B/16 ViT-L/14 --dtype=bfloat16 \\
        --clips=32 --steps=10 --torch_compile --attention=cudnn     on a GPU

The sides are processes that take turns on the same cores; the first turn, and the first step of
each, is not counted. PyTorch runs as it is installed, and again with the huge pages that
`vtr train` asks for. Prints one JSON line a model and a table: medians, and the median over turns
of PyTorch's seconds by ours. The whole step counts: forward, backward, clipping by the global norm,
AdamW. The first losses are of equal weights and must agree.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from interleaved import Side, in_turns, machine, median_seconds, ratio
from train_step_settings import add_arguments

from vtr_jax.huge_pages import HUGE, TUNABLES

HERE = Path(__file__).parent
SETTINGS = ("clips", "frames", "words", "dtype", "attention", "steps", "threads")


def side_arguments(arguments: argparse.Namespace, model: str, weights: str) -> list[str]:
    """The options that a side is started with."""
    flags = [f"--model={model}", f"--weights={weights}"]
    flags += [f"--{name}={getattr(arguments, name)}" for name in SETTINGS]
    return [*flags, "--torch_compile"] if arguments.torch_compile else flags


def measure(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    """One model on all sides; raises SystemExit where equal weights do not give equal losses."""
    with tempfile.TemporaryDirectory() as weights, contextlib.ExitStack() as stack:
        flags = side_arguments(arguments, model, weights)

        def started(name: str, script: str, environment: dict[str, str]) -> Side:
            return stack.enter_context(Side(name, HERE / script, flags, environment))

        peer = started("pytorch", "train_step_torch.py", {TUNABLES: ""})
        huge = started("pytorch, huge pages", "train_step_torch.py", {TUNABLES: HUGE})
        ours = started("vtr_jax", "train_step_jax.py", {})
        sides = (peer, huge, ours)
        about = ours.measure("about")
        losses = {side.name: side.measure("loss")["value"] for side in sides}
        tolerance = 1e-5 if arguments.dtype == "float32" else 2e-2
        if abs(losses["vtr_jax"] / losses["pytorch"] - 1) > tolerance:
            raise SystemExit(f"{model}: equal weights, but other losses: {losses}")
        answers = {
            what: in_turns(sides, what, arguments.rounds) for what in ("step", "encode", "peak")
        }
    row = {
        "model": model,
        "device": about["device"],
        "machine": machine(),
        **{name: getattr(arguments, name) for name in SETTINGS},
        "torch_compile": arguments.torch_compile,
        "compile_seconds": about["compile_seconds"],
        "temporary_gib": about["temporary_gib"],
        "first_losses": losses,
        **{what: _compared(answers[what], arguments.clips) for what in ("step", "encode")},
    }
    row["measured_peak_flops"] = max(
        each["flops"] for side in answers["peak"].values() for each in side
    )
    rate = about["model_flops"] / row["step"]["seconds"]["vtr_jax"]
    row["share_of_peak"] = rate / row["measured_peak_flops"]
    print(json.dumps(row), flush=True)
    return row


def _compared(answers: dict[str, list[dict[str, Any]]], clips: int) -> dict[str, Any]:
    medians = {name: median_seconds(each) for name, each in answers.items()}
    own = answers["vtr_jax"]
    return {
        "seconds": medians,
        "clips_per_second": clips / medians["vtr_jax"],
        "times_faster_than": {
            name: ratio(each, own) for name, each in answers.items() if name != "vtr_jax"
        },
        "all": {name: [round(one["seconds"], 5) for one in each] for name, each in answers.items()},
    }


def main() -> None:
    """Measure every model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add_arguments(parser)
    parser.add_argument("--models", nargs="+", help="several, instead of --model")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    rows = [measure(arguments, model) for model in arguments.models or [arguments.model]]
    print(
        f"\n{'model':10}{'what':>8}{'PyTorch':>12}{'huge pages':>12}{'vtr_jax':>12}{'faster':>9}"
        f"{'huge pages':>12}{'clips/s':>9}{'of peak':>9}{'compile':>9}"
    )
    for row in rows:
        for what in ("step", "encode"):
            seconds, faster = row[what]["seconds"], row[what]["times_faster_than"]
            is_step = what == "step"
            share = f"{100 * row['share_of_peak']:.0f}%" if is_step else ""
            compiling = f"{row['compile_seconds']} s" if is_step else ""
            times = "".join(f"{1e3 * each:>9.1f} ms" for each in seconds.values())
            print(
                f"{row['model']:10}{what:>8}{times}{faster['pytorch']:>8.2f}x"
                f"{faster['pytorch, huge pages']:>11.2f}x{row[what]['clips_per_second']:>9.1f}"
                f"{share:>9}{compiling:>9}"
            )


if __name__ == "__main__":
    main()
