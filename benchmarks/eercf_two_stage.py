"""EERCF's two stages against computing every score of every pair, as the original program does.

    pip install torch
    python benchmarks/eercf_two_stage.py [--texts 1000] [--videos 1000] [--rerantopk 50]

Makes features of that many captions and clips (each clip's frames and patches lie around a vector
of its own, each caption near its clip's) and ranks them in three ways, each in a process of its own
and in turns: plain PyTorch computes all matrices for all pairs in blocks and reranks, as the
original does; ours does so too; and ours in two stages, all scores for a caption's rerantopk best
clips alone. Medians count, and the ranks are compared. Prints one JSON line a setting, then a
table. Encoding is not part of it: it is the same for all.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
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
    timed,
)

from vtr_jax.evaluation.metrics import text_to_video_ranks, video_to_text_ranks

# The published setting gates patches weakly alone; the second also gates them strongly.
SETTINGS = {"four matrices": 0.0, "five matrices": 0.3}
WAYS = ("PyTorch, all pairs", "all pairs", "two stages")
LOGIT_SCALE = math.exp(2.6592)
BLOCK = 50


def make_arrays(arguments: argparse.Namespace) -> dict[str, np.ndarray]:
    """Sentences [T,D], frames [V,F,D] and patches [V,F,P,D], float32, from seed 0."""
    rng = np.random.default_rng(0)
    texts, videos, frames = arguments.texts, arguments.videos, arguments.frames
    width = arguments.width

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    centre_vd = normal(videos, width)
    return {
        "frames": centre_vd[:, None] + 0.5 * normal(videos, frames, width),
        "patches": normal(videos, frames, arguments.patches, width) + centre_vd[:, None, None],
        "sentences": centre_vd[np.arange(texts) % videos] + 4 * normal(texts, width),
    }


def pytorch_way(arguments: argparse.Namespace) -> Callable[[float], np.ndarray]:
    """All matrices of all pairs, then the original's reranking; its two learned matrices are 1."""
    import torch

    torch.set_num_threads(arguments.threads)
    unit = torch.nn.functional.normalize
    arrays = {name: unit(torch.tensor(a), dim=-1) for name, a in make_arrays(arguments).items()}
    text_td, frames_vfd = arrays["sentences"], arrays["frames"]
    patches_vpd = arrays["patches"].flatten(1, 2)
    video_vd = unit(frames_vfd.mean(1), dim=-1)

    def pooled(weights_tvn: Any, vectors_vnd: Any, t_td: Any) -> Any:
        pooled_tvd = unit(torch.einsum("tvn,vnd->tvd", weights_tvn, vectors_vnd), dim=-1)
        return torch.einsum("td,tvd->tv", t_td, pooled_tvd)

    def block(t_td: Any, f_vfd: Any, p_vpd: Any, strong_patches: bool) -> Any:
        by_frame = torch.einsum("td,vfd->tvf", t_td, f_vfd)
        by_patch = torch.einsum("td,vpd->tvp", t_td, p_vpd)
        of_patches = (by_patch / 0.01).softmax(-1)
        strong_frame = pooled((by_frame / 0.1).softmax(-1), f_vfd, t_td)
        strong_patch = pooled(of_patches, p_vpd, t_td) if strong_patches else strong_frame
        weak_frame = (by_frame * (by_frame / 0.01).softmax(-1)).sum(-1)
        return torch.stack(
            [weak_frame, (by_patch * of_patches).sum(-1), strong_frame, strong_patch]
        )

    @torch.no_grad()
    def ranked(strongpatch_weight: float) -> np.ndarray:
        video = LOGIT_SCALE * text_td @ video_vd.T
        rows = [
            torch.cat(
                [
                    block(t_td, f_vfd, p_vpd, strongpatch_weight > 0)
                    for f_vfd, p_vpd in zip(
                        frames_vfd.split(BLOCK), patches_vpd.split(BLOCK), strict=True
                    )
                ],
                dim=2,
            )
            for t_td in text_td.split(BLOCK)
        ]
        weak_frame, weak_patch, strong_frame, strong_patch = LOGIT_SCALE * torch.cat(rows, dim=1)
        weak = 0.5 * video + 0.5 * weak_frame + 0.05 * weak_patch
        rerank = 0.8 * weak + 0.2 * (strong_frame + strongpatch_weight * strong_patch)
        recalled = video.topk(min(arguments.rerantopk, video.shape[1])).indices
        lifted = video.scatter(1, recalled, 100 + rerank.gather(1, recalled))
        recalled = lifted.topk(recalled.shape[1]).indices
        final = 100 + 0.8 * weak_frame + 0.2 * strong_frame + 0.2 * weak_patch + 0.5 * video
        return lifted.scatter(1, recalled, final.gather(1, recalled)).numpy()

    return ranked


def our_way(arguments: argparse.Namespace, way: str) -> Callable[[float], np.ndarray]:
    """`scores` (all pairs) or `similarity` (two stages) of a new EERCF retriever."""
    import jax
    import jax.numpy as jnp

    from vtr_jax.models.clip import clip_config
    from vtr_jax.models.features import TextFeatures, VideoFeatures
    from vtr_jax.models.recipes import recipe_named
    from vtr_jax.models.retriever import init_retriever

    jax.config.update("jax_default_matmul_precision", "highest")
    # The smallest towers of that joint width: scores read nothing else of them.
    clip = clip_config(
        embed_dim=arguments.width,
        image_resolution=16,
        patch_size=16,
        vision_width=64,
        vision_layers=1,
        text_width=arguments.width,
        text_layers=1,
        vocab_size=64,
    )
    sizes = {"temporal_layers": 1, "max_frames": arguments.frames}
    config = recipe_named("eercf").config(clip, {"rerantopk": arguments.rerantopk}, sizes)
    retriever = init_retriever(config, jax.random.key(0))
    arrays = jax.tree.map(jnp.asarray, make_arrays(arguments))
    frames_vfd, sentence_td = arrays["frames"], arrays["sentences"]
    texts = len(sentence_td)
    no_words = jnp.zeros((texts, 0, arguments.width))
    text = TextFeatures(sentence_td, no_words, jnp.ones((texts, 1), jnp.int32))
    mask = jnp.ones(frames_vfd.shape[:2], jnp.int32)
    video = VideoFeatures(frames_vfd, frames_vfd, None, arrays["patches"], mask)

    def ranked(strongpatch_weight: float) -> np.ndarray:
        set_up = retriever.with_options(strongpatch_weight=strongpatch_weight)
        if way == "two stages":
            return np.asarray(set_up.similarity(text, video))
        return np.asarray(set_up.scores(text, video)["logits_tv"])

    return ranked


def measurements(ranked: Callable[[float], np.ndarray]) -> dict[str, Callable[[], dict[str, Any]]]:
    """One timed ranking a setting, with its ranks and some of its scores."""

    def measurement(weight: float) -> Callable[[], dict[str, Any]]:
        def measure() -> dict[str, Any]:
            run = timed(lambda: ranked(weight))
            caption_clip = np.arange(len(run.result)) % run.result.shape[1]
            return {
                "seconds": run.seconds,
                "processor": run.processor,
                "t2v": text_to_video_ranks(run.result, caption_clip, "once").tolist(),
                "v2t": video_to_text_ranks(run.result, caption_clip, "once").tolist(),
                "scores": run.result[::97, ::89].tolist(),
            }

        return measure

    return {name: measurement(weight) for name, weight in SETTINGS.items()}


def compared(arguments: argparse.Namespace, sides: Sequence[Side], setting: str) -> dict[str, Any]:
    """One setting in all ways, printed as a JSON line."""
    answers = in_turns(sides, setting, arguments.rounds)
    two = answers["two stages"]

    def beside(way: str) -> Mapping[str, Any]:
        other = answers[way]
        return {
            "times_faster": round(ratio(other, two), 1),
            "times_less_processor": round(
                median(a["processor"] / b["processor"] for a, b in zip(other, two, strict=True)), 1
            ),
            "ranks_that_differ": {
                name: sum(a != b for a, b in zip(other[0][name], two[0][name], strict=True))
                for name in ("t2v", "v2t")
            },
            "largest_difference": float(
                np.abs(np.subtract(other[0]["scores"], two[0]["scores"])).max()
            ),
        }

    row = {
        "setting": setting,
        "machine": machine(),
        **{name: getattr(arguments, name) for name in ("texts", "videos", "rerantopk", "threads")},
        "seconds": {way: round(median_seconds(answers[way]), 3) for way in WAYS},
        "two_stages_beside": {way: beside(way) for way in WAYS[:2]},
        "all": {way: [round(each["seconds"], 3) for each in answers[way]] for way in WAYS},
    }
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Measure every setting and print the table; with --side be one of the programs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add_whole_numbers(
        parser,
        texts=1000,
        videos=1000,
        frames=12,
        patches=49,
        width=512,
        rerantopk=50,
        threads=2,
        rounds=3,
    )
    parser.add_argument("--side", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        bind_to_cores(arguments.threads)
        ours = arguments.side in WAYS[1:]
        ranked = our_way(arguments, arguments.side) if ours else pytorch_way(arguments)
        serve(measurements(ranked))
        return
    with sides_of(__file__, arguments, WAYS) as sides:
        rows = [compared(arguments, sides, setting) for setting in SETTINGS]
    print(f"\n{'setting':15}" + "".join(f"{way:>20}" for way in WAYS) + "   faster  ranks differ")
    for row in rows:
        beside = row["two_stages_beside"][WAYS[0]]
        times = "".join(f"{row['seconds'][way]:>18.2f} s" for way in WAYS)
        print(
            f"{row['setting']:15}{times}{beside['times_faster']:>8}x  {beside['ranks_that_differ']}"
        )


if __name__ == "__main__":
    main()
