"""What the demo's report shows: scores of both heads, curves, and clips found for some captions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vtr_jax.checkpoint import load_retriever, read_description
from vtr_jax.data.frame_store.encoding import decode_frame
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.data.split import Split
from vtr_jax.evaluation.charts import Hit
from vtr_jax.evaluation.evaluate import (
    Evaluation,
    EvaluationSettings,
    evaluate_split,
    protocol_card,
    retriever_sha256,
)
from vtr_jax.evaluation.protocol import ProtocolCard, shared_text
from vtr_jax.evaluation.visual_report import write_visual_report
from vtr_jax.sharding import make_mesh
from vtr_jax.training.run_log import read_log

SETTINGS = EvaluationSettings(max_words=24, max_frames=5, batch_size=50)
SHOWN_QUERIES, SHOWN_CLIPS = 12, 4
DIRECTION = "own clip or its reverse (chance 50)"

INTRODUCTION = """\
Two retrievers learned, from nothing, to find videos by what is said about them. Both are \
CLIP4Clip: an image tower for frames, a text tower for captions. meanP averages the frames of a \
clip, which forgets their order; seqTransf lets a small Transformer relate them in time first.

They were trained on {train} short videos of one moving shape each, whose captions tell colour, \
shape, size and how it moves. Below, they search {test} other clips, whose combinations never \
occurred in training.

R@K is the percentage of queries whose own clip (or caption) is among the first K found (guessing \
gives R@1 {chance:.1f}); MdR and MnR are the median and mean rank. The strips below show what \
seqTransf found for {queries} of the captions.

The row “{direction}” asks for what only order tells: of two clips that differ in nothing but \
the direction of time, does a caption prefer its own? {pairs} captions were asked.{remark}"""
SHORT_REMARK = (
    "\n\nThis is the short form: it trains for a few steps only, to show every stage. Its scores "
    "are near guessing; bash scripts/demo.sh trains in full."
)


@dataclasses.dataclass(frozen=True)
class HeadResult:
    """One head's best checkpoint on the held-out clips."""

    evaluation: Evaluation
    card: ProtocolCard
    results: dict[str, dict[str, float]]


def evaluate_head(
    workdir: Path, store: FrameStore, split: Split, pairs: list[tuple[str, str]]
) -> HeadResult:
    """Scores, and the direction score as a row of its own."""
    mesh = make_mesh()
    retriever = load_retriever(workdir, mesh)
    evaluation = evaluate_split(retriever, store, split, SETTINGS, mesh)
    rule = (read_description(workdir).get("selection") or {}).get("rule", "none")
    card = protocol_card(
        retriever,
        store,
        split,
        SETTINGS,
        checkpoint_sha256=retriever_sha256(retriever),
        selection=rule,
    )
    results = evaluation.results | {DIRECTION: direction_score(evaluation, split, pairs)}
    return HeadResult(evaluation, card, results)


def read_pairs(pairs_file: Path) -> list[tuple[str, str]]:
    """Clips that differ only in the direction of their motion."""
    return [tuple(pair["clips"]) for pair in json.loads(pairs_file.read_text())]


def direction_score(
    evaluation: Evaluation, split: Split, pairs: list[tuple[str, str]]
) -> dict[str, float]:
    """How often a caption prefers its own clip to the one played backwards: {"R@1", "queries"}."""
    logits_tv = evaluation.tiles.matrix()
    row_of = {clip.clip_id: i for i, clip in enumerate(split.clips)}
    text_of = {clip: text for text, clip in enumerate(split.caption_clip.tolist())}
    asked = [
        (row_of[own], row_of[other]) for pair in pairs for own, other in (pair, reversed(pair))
    ]
    right = sum(bool(logits_tv[text_of[own], own] > logits_tv[text_of[own], b]) for own, b in asked)
    return {"R@1": 100 * right / len(asked), "queries": len(asked)}


def found_clips(
    evaluation: Evaluation, split: Split, store: FrameStore, text: int
) -> dict[str, Any]:
    """The best clips of a caption and, where they miss it, its own clip with its place."""
    scores = evaluation.tiles.matrix()[text]
    order = np.argsort(-scores, kind="stable")
    own = int(split.caption_clip[text])
    place_of_own = int(np.flatnonzero(order == own)[0]) + 1
    places = list(range(1, SHOWN_CLIPS + 1))
    places[-1] = max(places[-1], place_of_own)

    def hit(place: int) -> Hit:
        clip = int(order[place - 1])
        clip_id = split.clips[clip].clip_id
        encoded = store.read(store.index_of(clip_id))
        frames = np.stack([decode_frame(frame) for frame in encoded])
        return Hit(clip_id, float(scores[clip]), clip == own, frames, place)

    return {"caption": split.captions[text], "top": [hit(place) for place in places]}


def report_run(workdir: Path, head: HeadResult) -> dict[str, Any]:
    """What the visual report shows of one run."""
    records = read_log(workdir)
    return {
        "history": [record for record in records if record["kind"] == "train"],
        "recalls": [
            {"step": record["step"], "R@1": record["t2v R@1"], "R@5": record["t2v R@5"]}
            for record in records
            if record["kind"] == "evaluation"
        ],
        "results": head.results,
        "ranks": head.evaluation.ranks["t2v"],
    }


def write_demo_report(
    directory: Path,
    heads: Mapping[str, HeadResult],
    splits: Mapping[str, Split],
    store: FrameStore,
    *,
    short: bool,
) -> Path:
    """Write the page; heads: by name, in workdirs of that name beside the directory."""
    test, clips = splits["test"], len(splits["val"].clips)
    texts = np.linspace(0, len(test.captions) - 1, SHOWN_QUERIES).astype(int).tolist()
    shown = heads["seqTransf"].evaluation
    return write_visual_report(
        directory,
        title="Searching moving shapes by text",
        runs={name: report_run(directory.parent / name, head) for name, head in heads.items()},
        queries=[found_clips(shown, test, store, text) for text in texts],
        introduction=INTRODUCTION.format(
            train=f"{len(splits['train'].clips):,}",
            test=len(test.clips),
            chance=100 / len(test.clips),
            direction=DIRECTION,
            pairs=heads["seqTransf"].results[DIRECTION]["queries"],
            queries=SHOWN_QUERIES,
            remark=SHORT_REMARK if short else "",
        ),
        protocol=shared_text({name: head.card for name, head in heads.items()}),
        chance={f"R@{k}": min(100.0, 100 * k / clips) for k in (1, 5)},
    )
