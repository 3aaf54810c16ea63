"""The demo: moving shapes rendered to video files, two retrievers trained, compared and shown.

bash scripts/demo.sh runs it; every stage is a command or function that serves real data too.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from demo_report import DIRECTION, evaluate_head, read_pairs, write_demo_report

from vtr_jax import cli
from vtr_jax.data.annotations import read_split
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.data.synthetic import SyntheticDataset, render_dataset

REPOSITORY = Path(__file__).resolve().parents[1]
HEADS = ("meanP", "seqTransf")
FRAMERATE, RESOLUTION = 2, 64


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
            f"--config=demo:{head}{size.suffix}",
            f"--workdir={out / head}",
            f"--config.data.annotations={dataset.captions_file}",
            f"--config.data.store={out / 'store'}",
        )
    with stage(f"evaluating {head} on {size.test} held-out clips"):
        run_vtr("evaluate", f"--checkpoint={out / head}", *data, f"--output={out / head / 'test'}")


def show_results(out: Path, dataset: SyntheticDataset, short: bool) -> None:
    """Write the report and print the comparison of both heads."""
    splits = {
        name: read_split("table", dataset.captions_file, name) for name in ("train", "val", "test")
    }
    store = FrameStore.open(out / "store")
    pairs = read_pairs(dataset.pairs_file)
    heads = {head: evaluate_head(out / head, store, splits["test"], pairs) for head in HEADS}
    page = write_demo_report(out / "report", heads, splits, store, short=short)
    rows = {"text to video": "t2v", "video to text": "v2t", DIRECTION: DIRECTION}
    print(f"\n{'R@1, %':36}{HEADS[0]:>10}{HEADS[1]:>11}")
    for name, row in rows.items():
        values = [heads[head].results[row]["R@1"] for head in HEADS]
        print(f"{name:36}{values[0]:10.1f}{values[1]:11.1f}")
    print(f"\n{len(splits['test'].clips)} clips, none of their combinations seen in training")
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
        show_results(out, dataset, arguments.short)
    print(f"all stages: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
