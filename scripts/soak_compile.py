"""Compiles the train step of every recipe, and of every head, for eight TPU v5e chips.

    python scripts/soak_compile.py [VARIANT ...]

VARIANT: such as emcl.py:smoke; default: all. Needs vtr_jax[compile] and no TPU. The sizes are
small, the programs are those of the real ones. Exit code 1 if one fails to compile, does not fit,
or has a loop whose turns cannot be counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TOPOLOGY = "v5e:2x4"
VARIANTS = (
    *(f"clip4clip:smoke-{head}" for head in ("meanP", "seqLSTM", "seqTransf", "tightTransf")),
    *(f"drl:smoke-{head}" for head in ("dp+cdcr", "ti+cdcr", "wti+cdcr", "xti")),
    "backbone_tvr:smoke",
    "emcl:smoke",
    "eercf:smoke",
    "internvideo:smoke",
)


def compile_variant(variant: str) -> str:
    """A line about one variant; it ends in FAILED and why, if so."""
    command = [sys.executable, "-m", "vtr_jax.cli", "compile", f"--config={variant}"]
    more = [f"--topology={TOPOLOGY}", "--config.batch_size=16", "--json"]
    ran = subprocess.run(command + more, cwd=REPOSITORY, capture_output=True, text=True)
    if ran.returncode:
        return f"{variant}: FAILED: {ran.stderr.strip().splitlines()[-1]}"
    report = json.loads(ran.stdout)["report"]
    if not report["fits"] or report["unknown_loops"]:
        return f"{variant}: FAILED: fits {report['fits']}, loops {report['unknown_loops']}"
    exchanges = sum(total["number"] for total in report["collectives"].values())
    return (
        f"{variant}: {report['flops'] / 1e9:.2f} GFLOP, {report['memory']['peak'] / 1e6:.0f} MB a "
        f"chip, {exchanges} exchanges, compiled in {report['compile_seconds']:.0f} s"
    )


def main() -> int:
    """Compile every variant; returns the exit code."""
    parser = argparse.ArgumentParser(description="Compile every recipe's step for TPU chips.")
    parser.add_argument("variants", nargs="*", default=VARIANTS, metavar="VARIANT")
    failed = 0
    for variant in parser.parse_args().variants:
        said = compile_variant(variant)
        failed += "FAILED" in said
        print(said, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
