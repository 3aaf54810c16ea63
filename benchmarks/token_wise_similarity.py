"""Ranking by weighted token-wise interaction (WTI) beside a plain PyTorch einsum.

    pip install torch
    python benchmarks/token_wise_similarity.py [--texts 1000] [--videos 1000]

Compares every caption with every clip, 32 tokens and 12 frames of width 512, once with captions
that fill all tokens and once with captions as long as those of MSR-VTT's 1k-A test list. PyTorch
weighs and normalises once and compares in blocks of 32 x 32 pairs, as the original programs do;
ours is what an evaluation computes for a DRL retriever. Both take turns, each in a process of its
own. Prints one JSON line a setting, then a table with the least time that the products can take at
the speed of a large matrix product in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from interleaved import (
    Side,
    add_whole_numbers,
    bind_to_cores,
    in_turns,
    machine,
    median_seconds,
    ratio,
    serve,
    sides_of,
)

# Captions of MSRVTT_JSFUSION_test.csv by their number of CLIP tokens, both ends counted.
CAPTIONS_OF_TOKENS = dict(
    zip(
        range(5, 30),
        (3, 54, 72, 127, 99, 114, 104, 81, 76, 67, 51, 34, 22, 21, 16, 14, 11, 9, 6, 6, 6, 2, 2)
        + (1, 1),
        strict=True,
    )
) | {33: 1}
SETTINGS = ("full", "msrvtt")
BLOCK = 32


def token_counts(arguments: argparse.Namespace, setting: str) -> np.ndarray:
    """Tokens of each caption."""
    if setting == "full":
        return np.full(arguments.texts, arguments.words)
    counts = np.repeat(list(CAPTIONS_OF_TOKENS), list(CAPTIONS_OF_TOKENS.values()))
    drawn = np.random.default_rng(1).permutation(np.resize(counts, arguments.texts))
    return np.minimum(drawn, arguments.words)


def make_features(arguments: argparse.Namespace, setting: str) -> dict[str, np.ndarray]:
    """Tokens and frames, float32, with their masks; from seed 0."""
    rng = np.random.default_rng(0)
    shape_t = (arguments.texts, arguments.words, arguments.width)
    shape_v = (arguments.videos, arguments.frames, arguments.width)
    counts = token_counts(arguments, setting)
    return {
        "tokens": rng.standard_normal(shape_t, np.float32),
        "frames": rng.standard_normal(shape_v, np.float32),
        "token_mask": (np.arange(arguments.words) < counts[:, None]).astype(np.int32),
        "frame_mask": np.ones(shape_v[:2], np.int32),
    }


def pytorch_side(arguments: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Weights of a layer pair (wti_arch 2) with zero parameters, then blocks of an einsum."""
    import torch

    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    width = arguments.width
    layers = (torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))
    weigh = torch.nn.Sequential(*layers).to(device)
    torch.nn.init.zeros_(weigh[2].weight)

    def prepared(setting: str) -> Any:
        arrays = make_features(arguments, setting)
        return {name: torch.tensor(array).to(device) for name, array in arrays.items()}

    def side(given: Any, name: str) -> Any:
        vectors, mask = given[f"{name}s"], given[f"{name}_mask"].float()
        raw = weigh(vectors)[..., 0].masked_fill(mask == 0, -float("inf"))
        return torch.nn.functional.normalize(vectors, dim=-1), mask, raw.softmax(dim=-1)

    @torch.no_grad()
    def blocks(given: Any) -> Any:
        tokens, token_mask, token_weights = side(given, "token")
        frames, frame_mask, frame_weights = side(given, "frame")
        rows = []
        for t in range(0, len(tokens), BLOCK):
            texts = slice(t, t + BLOCK)
            row = []
            for v in range(0, len(frames), BLOCK):
                videos = slice(v, v + BLOCK)
                logits = torch.einsum("atd,bvd->abtv", tokens[texts], frames[videos])
                logits = torch.einsum("abtv,at->abtv", logits, token_mask[texts])
                logits = torch.einsum("abtv,bv->abtv", logits, frame_mask[videos])
                best_frame, best_token = logits.max(dim=-1)[0], logits.max(dim=-2)[0]
                t2v = torch.einsum("abt,at->ab", best_frame, token_weights[texts])
                v2t = torch.einsum("abv,bv->ab", best_token, frame_weights[videos])
                row.append((t2v + v2t) / 2)
            rows.append(torch.cat(row, dim=1))
        return torch.cat(rows).cpu().numpy()

    given = {name: prepared(name) for name in SETTINGS}
    return {**measurements(given, blocks), "peak": peak_measurement()}


def peak_measurement() -> Callable[[], dict[str, Any]]:
    """Operations a second of a large float32 product in PyTorch."""
    import torch

    a = torch.randn(2048, 2048)

    def peak() -> dict[str, Any]:
        start = time.perf_counter()
        for _ in range(10):
            a @ a
        return {"seconds": (time.perf_counter() - start) / 10}

    return peak


def our_side(arguments: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """A DRL retriever whose weights are even, so that both sides give the same scores."""
    import jax
    import jax.numpy as jnp

    from vtr_jax.evaluation.scoring import RECIPE_SCORING, scored
    from vtr_jax.models.clip import clip_config
    from vtr_jax.models.features import TextFeatures, VideoFeatures
    from vtr_jax.models.recipes import recipe_named
    from vtr_jax.models.retriever import init_retriever

    clip = clip_config(
        embed_dim=arguments.width,
        image_resolution=16,
        patch_size=16,
        vision_width=64,
        vision_layers=1,
        text_width=64,
        text_layers=1,
        vocab_size=64,
    )
    config = recipe_named("drl").config(clip, {"agg_module": "None", "cdcr": 0})
    retriever = init_retriever(config, jax.random.key(0))
    last = {f"{side}_weight": retriever.params[f"{side}_weight"] for side in ("text", "video")}
    retriever.params.update(jax.tree.map(jnp.zeros_like, last))

    def prepared(setting: str) -> Any:
        arrays = jax.tree.map(jnp.asarray, make_features(arguments, setting))
        frames, frame_mask = arrays["frames"], arrays["frame_mask"]
        text = TextFeatures(arrays["tokens"][:, 0], arrays["tokens"], arrays["token_mask"])
        return text, VideoFeatures(frames, frames, None, None, frame_mask)

    return measurements(
        {name: prepared(name) for name in SETTINGS},
        lambda features: np.asarray(scored(RECIPE_SCORING, retriever, *features)),
    )


def measurements(
    inputs: dict[str, Any], compare: Callable[[Any], np.ndarray]
) -> dict[str, Callable[[], dict[str, Any]]]:
    """One timed comparison a setting, with some of its scores."""

    def measurement(features: Any) -> Callable[[], dict[str, Any]]:
        def timed() -> dict[str, Any]:
            start = time.perf_counter()
            scores_tv = compare(features)
            seconds = time.perf_counter() - start
            return {"seconds": seconds, "scores": scores_tv[::97, ::89].tolist()}

        return timed

    return {setting: measurement(features) for setting, features in inputs.items()}


def compared(arguments: argparse.Namespace, sides: Sequence[Side], setting: str) -> Any:
    """One setting both ways, printed as a JSON line."""
    answers = in_turns(sides, setting, arguments.rounds)
    theirs, own = answers["pytorch"], answers["vtr_jax"]
    product = min(sides[0].measure("peak")["seconds"] for _ in range(5)) / (2 * 2048**3)
    words = token_counts(arguments, setting).sum()
    products = 2 * words * arguments.videos * arguments.frames * arguments.width
    difference = float(np.abs(np.subtract(theirs[0]["scores"], own[0]["scores"])).max())
    if difference > 1e-5:
        raise SystemExit(f"{setting}: the scores differ by {difference}")
    row = {
        "captions": setting,
        "machine": machine(),
        "mean_tokens": round(float(token_counts(arguments, setting).mean()), 1),
        **{name: getattr(arguments, name) for name in ("texts", "videos", "words", "frames")},
        "threads": arguments.threads,
        "pytorch_seconds": median_seconds(theirs),
        "vtr_jax_seconds": median_seconds(own),
        "times_faster": ratio(theirs, own),
        "least_seconds": float(products * product),
        "largest_difference": difference,
        "all": {name: [round(each["seconds"], 4) for each in answers[name]] for name in answers},
    }
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Measure both settings and print the table; with --side be one of the two programs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add_whole_numbers(
        parser, texts=1000, videos=1000, words=32, frames=12, width=512, threads=2, rounds=7
    )
    parser.add_argument("--side", choices=("pytorch", "vtr_jax"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        bind_to_cores(arguments.threads)
        make = pytorch_side if arguments.side == "pytorch" else our_side
        serve(make(arguments))
        return
    with sides_of(__file__, arguments, ("pytorch", "vtr_jax")) as sides:
        rows = [compared(arguments, sides, setting) for setting in SETTINGS]
    print(f"\n{'captions':10}{'tokens':>8}{'PyTorch':>11}{'vtr_jax':>11}{'faster':>9}{'least':>11}")
    for row in rows:
        print(
            f"{row['captions']:10}{row['mean_tokens']:>8}{row['pytorch_seconds']:>9.2f} s"
            f"{row['vtr_jax_seconds']:>9.2f} s{row['times_faster']:>8.2f}x"
            f"{row['least_seconds']:>9.2f} s"
        )


if __name__ == "__main__":
    main()
