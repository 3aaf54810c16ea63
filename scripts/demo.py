"""The demo: moving shapes rendered to video files, two retrievers trained, compared and shown.

bash scripts/demo.sh runs it; every stage is a command or function that serves real data too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vtr_jax import cli
from vtr_jax.checkpoint import load_retriever
from vtr_jax.data.annotations import read_split
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.data.split import Split
from vtr_jax.data.synthetic import SyntheticDataset, render_dataset
from vtr_jax.evaluation.evaluate import Evaluation, EvaluationSettings, evaluate_split
from vtr_jax.sharding import make_mesh
from vtr_jax.training.run_log import read_log

REPOSITORY = Path(__file__).resolve().parents[1]
HEADS = ("meanP", "seqTransf")
FRAMERATE, RESOLUTION = 2, 64
SETTINGS = EvaluationSettings(max_words=24, max_frames=5, batch_size=50)
SHOWN_QUERIES = 12


@dataclasses.dataclass(frozen=True)
class DemoSize:
    """How much of everything: clips rendered, held out, and the config variant's suffix."""

    train: int
    val: int
    test: int
    pairs: int
    suffix: str


FULL = DemoSize(1000, 40, 100, 30, "")
SHORT = DemoSize(120, 20, 40, 12, "-short")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Say what begins and how long it took."""
    print(f"\n== {name}", flush=True)
    began = time.perf_counter()
    yield
    print(f"   {time.perf_counter() - began:.0f} s", flush=True)


def run_vtr(*arguments: str) -> None:
    """Run a vtr command, in this process to compile and import once; stop where it fails."""
    print(f"   vtr {' '.join(arguments)}", flush=True)
    code = cli.main(arguments)
    if code:
        sys.exit(code)


def keep_compilations(folder: Path) -> None:
    """Let the next run reuse what this one compiled."""
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def direction_accuracy(evaluation: Evaluation, split: Split, pairs_file: Path) -> float:
    """Percent of captions that prefer their own clip to the one played backwards (chance 50)."""
    logits_tv = evaluation.tiles.matrix()
    row_of = {clip.clip_id: i for i, clip in enumerate(split.clips)}
    text_of = {clip: text for text, clip in enumerate(split.caption_clip.tolist())}
    right = []
    for pair in json.loads(pairs_file.read_text()):
        first, second = (row_of[clip_id] for clip_id in pair["clips"])
        for own, other in ((first, second), (second, first)):
            row = logits_tv[text_of[own]]
            right.append(row[own] > row[other])
    return 100.0 * float(np.mean(right))


def top_clips(
    evaluation: Evaluation, split: Split, store: FrameStore, texts: list[int]
) -> list[dict[str, Any]]:
    """The five best clips of some captions, with the frames that were read."""
    from vtr_jax.data.frame_store.encoding import decode_frame

    logits_tv = evaluation.tiles.matrix()
    queries = []
    for text in texts:
        top = np.argsort(-logits_tv[text], kind="stable")[:5]
        shown = []
        for clip in top:
            encoded = store.read(store.index_of(split.clips[clip].clip_id))
            frames = np.stack([decode_frame(frame) for frame in encoded])
            own = bool(clip == split.caption_clip[text])
            shown.append((split.clips[clip].clip_id, float(logits_tv[text, clip]), own, frames))
        queries.append({"caption": split.captions[text], "top": shown})
    return queries


def evaluate_head(workdir: Path, store: FrameStore, split: Split) -> Evaluation:
    """The best checkpoint of a run on the held-out clips."""
    mesh = make_mesh()
    return evaluate_split(load_retriever(workdir, mesh), store, split, SETTINGS, mesh)


def report_run(workdir: Path, evaluation: Evaluation) -> dict[str, Any]:
    """What the visual report shows of one run."""
    records = read_log(workdir)
    return {
        "history": [record for record in records if record["kind"] == "train"],
        "recalls": [
            {"step": record["step"], "R@1": record["t2v R@1"], "R@5": record["t2v R@5"]}
            for record in records
            if record["kind"] == "evaluation"
        ],
        "results": evaluation.results,
        "ranks": evaluation.ranks["t2v"],
    }


def prepare_data(out: Path, size: DemoSize) -> SyntheticDataset:
    """Render the videos and decode them once into a frame store."""
    with stage(f"rendering {size.train + size.val + size.test} videos"):
        dataset = render_dataset(
            out / "data",
            size.train,
            seed=0,
            num_val=size.val,
            num_test=size.test,
            direction_pairs=size.pairs,
        )
    with stage("preparing: decode every video once"):
        run_vtr(
            "prepare",
            f"--annotations={dataset.captions_file}",
            f"--videos={dataset.videos_dir}",
            f"--store={out / 'store'}",
            f"--framerate={FRAMERATE}",
            f"--resolution={RESOLUTION}",
        )
    return dataset


def run_head(head: str, out: Path, dataset: SyntheticDataset, size: DemoSize) -> None:
    """Train one retriever and evaluate it on the held-out combinations."""
    data = (f"--annotations={dataset.captions_file}", f"--store={out / 'store'}")
    with stage(f"training {head}"):
        run_vtr(
            "train",
            f"--config={REPOSITORY / 'configs/demo.py'}:{head}{size.suffix}",
            f"--workdir={out / head}",
            f"--config.data.annotations={dataset.captions_file}",
            f"--config.data.store={out / 'store'}",
        )
    with stage(f"evaluating {head} on {size.test} held-out clips"):
        run_vtr("evaluate", f"--checkpoint={out / head}", *data, f"--output={out / head / 'test'}")


def show_results(out: Path, dataset: SyntheticDataset) -> None:
    """Write the report and print the comparison of both heads."""
    from vtr_jax.evaluation.visual_report import write_visual_report

    split = read_split("table", dataset.captions_file, "test")
    store = FrameStore.open(out / "store")
    evaluations = {head: evaluate_head(out / head, store, split) for head in HEADS}
    runs = {head: report_run(out / head, evaluation) for head, evaluation in evaluations.items()}
    texts = np.linspace(0, len(split.captions) - 1, SHOWN_QUERIES).astype(int).tolist()
    page = write_visual_report(
        out / "report",
        title="Searching moving shapes by text",
        runs=runs,
        queries=top_clips(evaluations["seqTransf"], split, store, texts),
    )
    rows: list[tuple[str, Callable[[str], float]]] = [
        ("text to video R@1", lambda head: evaluations[head].results["t2v"]["R@1"]),
        ("video to text R@1", lambda head: evaluations[head].results["v2t"]["R@1"]),
        (
            "right direction of two",
            lambda head: direction_accuracy(evaluations[head], split, dataset.pairs_file),
        ),
    ]
    print(f"\n{'':26}{HEADS[0]:>10}{HEADS[1]:>11}")
    for name, value in rows:
        print(f"{name:26}{value('meanP'):9.1f}%{value('seqTransf'):10.1f}%")
    print(f"\n{len(split.clips)} clips, none of their combinations seen in training")
    print(f"report: {page}")


def main() -> None:
    """Run the demo in the size asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="every stage in little, for tests")
    parser.add_argument("--out", type=Path, help="default: demo/, or demo-short/")
    arguments = parser.parse_args()
    size = SHORT if arguments.short else FULL
    out = arguments.out or REPOSITORY / ("demo-short" if arguments.short else "demo")
    keep_compilations(out / "compilations")
    began = time.perf_counter()
    dataset = prepare_data(out, size)
    for head in HEADS:
        run_head(head, out, dataset, size)
    with stage("report"):
        show_results(out, dataset)
    print(f"all stages: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
