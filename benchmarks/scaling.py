"""Compiles train steps for TPU slices and makes the tables of docs/scaling.md.

    python benchmarks/scaling.py            what benchmarks/scaling.json lacks, then the table
    python benchmarks/scaling.py --again    every row anew, then the table
    python benchmarks/scaling.py --table    the table alone

Needs vtr_jax[compile] and no TPU. Each row is one `vtr compile --json` in a process of its own: a
minute or two on two quiet cores. A row is written as soon as it is there, with the commit that made
it, so that the command can be stopped and started again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "scaling.json"

L14 = {"embed_dim": 768, "patch_size": 14, "vision_width": 1024, "vision_layers": 24}
MODELS: dict[str, tuple[str, dict[str, int]]] = {
    "ViT-B/32": ("clip4clip", {}),
    "ViT-B/16": ("clip4clip", {"patch_size": 16}),
    "ViT-L/14": ("clip4clip", {**L14, "text_width": 768}),
    "InternVideo L/14": ("internvideo", {}),
}
COMMON = ("compute_dtype=bfloat16", "remat=True", "data.max_words=32")


@dataclasses.dataclass(frozen=True)
class Row:
    """One step: a model of MODELS, its frames, a slice, clips a chip, and other settings."""

    model: str
    frames: int
    topology: str
    clips: int = 8
    settings: tuple[str, ...] = ()

    @property
    def chips(self) -> int:
        """Chips of the slice."""
        return math.prod(int(side) for side in self.topology.partition(":")[2].split("x"))

    @property
    def name(self) -> str:
        """What the results keep it under."""
        parts = (self.model, f"{self.frames} frames", self.topology, f"{self.clips} clips a chip")
        return ", ".join((*parts, *self.settings))

    def arguments(self) -> list[str]:
        """Those of `vtr compile`."""
        recipe, sizes = MODELS[self.model]
        settings = (
            *COMMON,
            *(f"clip.{name}={value}" for name, value in sizes.items()),
            f"batch_size={self.clips * self.chips}",
            f"data.max_frames={self.frames}",
            *self.settings,
        )
        return [
            f"--config={recipe}:msrvtt",
            f"--topology={self.topology}",
            *(f"--config.{setting}" for setting in settings),
        ]


# The most telling first. 64 frames with 2 clips are a third more than 12 frames with 8.
ROWS = (
    Row("ViT-L/14", 12, "v5e:16x16"),
    Row("ViT-B/32", 12, "v5e:16x16"),
    Row("ViT-L/14", 12, "v5e:16x16", 16),
    Row("InternVideo L/14", 12, "v5e:16x16"),
    Row("ViT-B/16", 12, "v5e:16x16"),
    Row("ViT-L/14", 12, "v5p:8x8x8"),
    Row("ViT-L/14", 64, "v5e:16x16", 2),
    Row("ViT-L/14", 12, "v5e:2x4"),
    Row("ViT-B/32", 64, "v5e:16x16"),
    Row("InternVideo L/14", 12, "v5p:8x8x8"),
    Row("InternVideo L/14", 64, "v5e:16x16", 2),
    Row("ViT-B/16", 64, "v5e:16x16", 2),
    Row("ViT-B/32", 12, "v5p:8x8x8"),
    Row("ViT-L/14", 12, "v5e:16x16", 8, ("mesh.fsdp=16",)),
    Row("ViT-B/16", 12, "v5p:8x8x8"),
    Row("ViT-B/32", 12, "v5e:2x4"),
    Row("ViT-B/16", 12, "v5e:2x4"),
    Row("InternVideo L/14", 12, "v5e:2x4"),
    *(Row(model, 12, "v5p:2x2x2") for model in MODELS),
    *(Row(model, 12, "v5e:8x8") for model in MODELS),
    *(Row(model, 12, "v5p:4x4x4") for model in MODELS),
    Row("ViT-L/14", 64, "v5e:8x8", 2),
    *(Row(model, 64, "v5p:8x8x8", 2) for model in MODELS),
    Row("ViT-B/32", 64, "v5e:2x4"),
    *(Row(model, 64, "v5e:2x4", 2) for model in MODELS if model != "ViT-B/32"),
    *(Row(model, 64, "v5p:2x2x2", 2) for model in MODELS),
)


def commit() -> str:
    """The checkout's commit, abbreviated; "+" where what is compiled differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", "vtr_jax")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def compiled(row: Row) -> dict[str, Any]:
    """What the command says about a row: its JSON, or {"failed": its last line}; and the commit."""
    made_by = {"commit": commit()}
    command = [sys.executable, "-m", "vtr_jax.cli", "compile", "--json", *row.arguments()]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if ran.returncode:
        return {**made_by, "failed": ran.stderr.strip().splitlines()[-1]}
    return {**made_by, **json.loads(ran.stdout)}


COLUMNS = (
    "model",
    "frames",
    "slice",
    "chips",
    "clips a chip",
    "peak GB, at most",
    "compiler's estimate",
    "memory",
    "compute ms",
    "HBM ms",
    "links ms",
    "step ms, at least",
    "MFU, at most",
    "links longest below",
)


def line(row: Row, result: dict[str, Any]) -> str:
    """A row of the Markdown table."""
    model = row.model + "".join(f", {setting}" for setting in row.settings)
    cells = [model, str(row.frames), row.topology, str(row.chips), str(row.clips)]
    if "failed" in result:
        return _cells([*cells, result["failed"], *[""] * (len(COLUMNS) - len(cells) - 1)])
    report = result["report"]
    roofline, memory = report["roofline"], report["memory"]
    busy = max(roofline["compute"], roofline["memory"])
    cells += [
        f"{memory['peak'] / 1e9:.1f} ({100 * memory['peak'] / memory['limit']:.0f}%)",
        f"{memory['stated_peak'] / 1e9:.1f}",
        report["verdict"],
        *(f"{1e3 * roofline[name]:.1f}" for name in ("compute", "memory", "interconnect", "step")),
        f"{100 * roofline['mfu']:.0f}%",
        # What links carry does not depend on the clips a chip has, all else is in proportion.
        f"{row.clips * roofline['interconnect'] / busy:.2g} clips",
    ]
    return _cells(cells)


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(results: dict[str, Any]) -> str:
    """The Markdown table of all rows that there are, model by model."""
    rows = sorted(
        (row for row in ROWS if row.name in results),
        key=lambda row: (list(MODELS).index(row.model), row.frames, row.topology[:3], row.chips),
    )
    rule = "| --- |" + " ---: |" * (len(COLUMNS) - 1)
    return "\n".join([_cells(COLUMNS), rule, *(line(row, results[row.name]) for row in rows)])


def main() -> None:
    """Compile what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--table", action="store_true", help="compile nothing")
    which.add_argument("--again", action="store_true", help="compile every row anew")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for row in ROWS:
        if given.table or (row.name in results and not given.again):
            continue
        results[row.name] = compiled(row)
        print(row.name, results[row.name].get("failed", ""), file=sys.stderr, flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
