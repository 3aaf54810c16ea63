"""What both sides of benchmarks/train_step.py are told, and the batch that both compute."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

START_OF_TEXT, END_OF_TEXT = 49406, 49407


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sizes of the step; the defaults are those of a comparison on two cores."""
    parser.add_argument("--model", default="ViT-B/32", help="ViT-B/32, ViT-B/16 or ViT-L/14")
    parser.add_argument("--clips", type=int, default=4, help="pairs a batch")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--words", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=1, help="steps a turn, waited for at its end")
    parser.add_argument("--threads", type=int, default=2, help="cores that either side may use")
    parser.add_argument("--attention", choices=("xla", "cudnn"), default="xla", help="of vtr_jax")
    parser.add_argument("--torch_compile", action="store_true")


def make_batch(arguments: argparse.Namespace, resolution: int) -> dict[str, np.ndarray]:
    """Frames uint8 [B,F,R,R,3] all valid, captions of 5 words up to all of them; from seed 0."""
    rng = np.random.default_rng(0)
    clips, words = arguments.clips, arguments.words
    token_ids = np.zeros((clips, words), np.int32)
    for row in range(clips):
        length = int(rng.integers(min(7, words), words + 1))
        middle = rng.integers(1, START_OF_TEXT, length - 2)
        token_ids[row, :length] = [START_OF_TEXT, *middle, END_OF_TEXT]
    shape = (clips, arguments.frames, resolution, resolution, 3)
    return {
        "frames": rng.integers(0, 256, shape, np.uint8),
        "frame_mask": np.ones(shape[:2], np.int32),
        "token_ids": token_ids,
        "token_mask": (token_ids != 0).astype(np.int32),
    }


def timed(run: Callable[[], Any], steps: int) -> Callable[[], dict[str, Any]]:
    """A measurement of so many runs, the last of which is waited for.

    One more before them is not counted: memory of a process that had to wait for its turn may
    have been taken from it meanwhile.
    """

    def measurement() -> dict[str, Any]:
        float(run())
        start = time.perf_counter()
        value = float(repeated(run, steps))
        return {"seconds": (time.perf_counter() - start) / steps, "value": value}

    return measurement


def repeated(run: Callable[[], Any], times: int) -> Any:
    """The last of some results."""
    for _ in range(times - 1):
        run()
    return run()
