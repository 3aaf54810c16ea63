"""What `vtr parity` does: a retriever directory against numbers recorded from an original."""

from __future__ import annotations

import argparse
import sys

from vtr_jax.parity.report import run_parity

EPILOG = (
    "CASE.json lies beside CASE.npz; docs/parity.md tells how to record them from a PyTorch run. "
    "Exit code 1 if anything differs by more than float32 rounding explains."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `vtr parity`."""
    parser.add_argument("--checkpoint", required=True, help="retriever directory")
    parser.add_argument("--case", required=True, help="recorded case, CASE.json")
    parser.add_argument("--output", help="write every deviation to this JSON file")


def run(known: argparse.Namespace) -> None:
    """Print the table; exit code 1 if an array differs."""
    table, holds = run_parity(known.checkpoint, known.case, known.output)
    print(table)
    if not holds:
        sys.exit(1)
