"""EERCF's two stages against computing every score of every pair, as the original program does.

    python benchmarks/eercf_two_stage.py [--texts 1000] [--videos 1000] [--rerantopk 50]

Makes features of that many captions and clips (each clip's frames and patches lie around a vector
of its own, each caption near its clip's), ranks by `scores` (all pairs) and by `similarity` (all
scores for a caption's rerantopk best clips alone), and compares the ranks. Both are compiled and
take turns on the same device with the same features; medians count. Prints one JSON line a setting,
then a table. Encoding is not part of it: it is the same for both.
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from interleaved import add_whole_numbers, functions_in_turns, machine

from vtr_jax.evaluation.metrics import text_to_video_ranks, video_to_text_ranks
from vtr_jax.models.clip import clip_config
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import Retriever, init_retriever

# The published setting gates patches weakly alone; the second also gates them strongly.
SETTINGS = {"four matrices": 0.0, "five matrices": 0.3}


def make_retriever(width: int, frames: int, rerantopk: int) -> Retriever:
    """The smallest towers of that joint width; scores read nothing else of them."""
    clip = clip_config(
        embed_dim=width,
        image_resolution=16,
        patch_size=16,
        vision_width=64,
        vision_layers=1,
        text_width=width,
        text_layers=1,
        vocab_size=64,
    )
    sizes = {"temporal_layers": 1, "max_frames": frames}
    config = recipe_named("eercf").config(clip, {"rerantopk": rerantopk}, sizes)
    return init_retriever(config, jax.random.key(0))


def make_features(arguments: argparse.Namespace) -> tuple[TextFeatures, VideoFeatures]:
    """Captions and clips on the device, float32, from seed 0."""
    rng = np.random.default_rng(0)
    texts, videos, frames = arguments.texts, arguments.videos, arguments.frames
    width = arguments.width

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, np.float32))

    centre_vd = normal(videos, width)
    frames_vfd = centre_vd[:, None] + 0.5 * normal(videos, frames, width)
    patches_vfpd = normal(videos, frames, arguments.patches, width) + centre_vd[:, None, None]
    sentence_td = centre_vd[np.arange(texts) % videos] + 4 * normal(texts, width)
    text = TextFeatures(sentence_td, normal(texts, 0, width), jnp.ones((texts, 1), jnp.int32))
    mask = jnp.ones((videos, frames), jnp.int32)
    return text, VideoFeatures(frames_vfd, frames_vfd, None, patches_vfpd, mask)


def measure(name: str, retriever: Retriever, features: Any, runs: int) -> dict[str, Any]:
    """One setting both ways, printed as a JSON line."""
    text, video = features
    two, every = functions_in_turns(
        (
            lambda: np.asarray(retriever.similarity(text, video)),
            lambda: np.asarray(retriever.scores(text, video)["logits_tv"]),
        ),
        runs,
    )
    turns = list(zip(every, two, strict=True))
    two_tv, all_tv = two[0].result, every[0].result
    caption_clip = np.arange(len(two_tv)) % two_tv.shape[1]
    differing = {
        way: int(np.sum(ranks(two_tv, caption_clip, "once") != ranks(all_tv, caption_clip, "once")))
        for way, ranks in (("t2v", text_to_video_ranks), ("v2t", video_to_text_ranks))
    }
    row = {
        "setting": name,
        "device": jax.devices()[0].device_kind,
        "machine": machine(),
        "texts": two_tv.shape[0],
        "videos": two_tv.shape[1],
        "rerantopk": retriever.config.option("rerantopk"),
        "all_pairs_s": round(median(each.seconds for each in every), 3),
        "two_stages_s": round(median(each.seconds for each in two), 3),
        "times_faster": round(median(slow.seconds / quick.seconds for slow, quick in turns), 1),
        "times_less_processor": round(
            median(slow.processor / quick.processor for slow, quick in turns), 1
        ),
        "ranks_that_differ": differing,
        "largest_difference": float(np.abs(two_tv - all_tv).max()),
        "all": {
            name: [(round(each.seconds, 3), round(each.processor, 3)) for each in runs_of]
            for name, runs_of in (("all_pairs", every), ("two_stages", two))
        },
    }
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Measure every setting and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add_whole_numbers(
        parser, texts=1000, videos=1000, frames=12, patches=49, width=512, rerantopk=50, runs=3
    )
    arguments = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", "highest")
    retriever = make_retriever(arguments.width, arguments.frames, arguments.rerantopk)
    features = make_features(arguments)
    rows = [
        measure(name, retriever.with_options(strongpatch_weight=weight), features, arguments.runs)
        for name, weight in SETTINGS.items()
    ]
    print(
        f"\n{'setting':16}{'all pairs':>12}{'two stages':>12}{'faster':>9}{'processor':>11}"
        "  ranks that differ"
    )
    for row in rows:
        print(
            f"{row['setting']:16}{row['all_pairs_s']:>10} s{row['two_stages_s']:>10} s"
            f"{row['times_faster']:>8}x{row['times_less_processor']:>10}x"
            f"  {row['ranks_that_differ']}"
        )


if __name__ == "__main__":
    main()
