"""What `vtr check-data` does: annotations and videos to a report and an exit code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vtr_jax.data.annotations import READERS, reader_options
from vtr_jax.data.frame_store.command import add_settings, chosen_settings

EPILOG = (
    "--name=value options of the annotation reader: "
    + "; ".join(f"{name}: {', '.join(reader_options(name)) or 'none'}" for name in sorted(READERS))
    + ". Exit code 0 where nothing is wrong. docs/datasets.md: where each data set comes from."
)


class DataProblems(ValueError):
    """Something is wrong with the data; the report above says what."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `vtr check-data`."""
    names = ", ".join(sorted(READERS))
    parser.add_argument(
        "--dataset", default="table", help=f"{names} (default table: a CSV or JSONL of one's own)"
    )
    parser.add_argument("--annotations", required=True, help="annotation file or folder")
    parser.add_argument(
        "--videos",
        help="folder with the video files: also look for missing, empty, unreadable and doubled "
        "ones; without it, annotations alone are checked",
    )
    parser.add_argument(
        "--splits", help="names with commas, all of which must be there; default: those that are"
    )
    parser.add_argument(
        "--max_words",
        type=int,
        help="token limit, for counting captions that it cuts; default: 64 for activitynet and "
        "didemo, else 32",
    )
    parser.add_argument(
        "--workers", type=int, help="processes that open videos; default: one a core"
    )
    add_settings(parser.add_argument_group("the frame store that is to be made, as of vtr prepare"))
    parser.add_argument("--output", metavar="FILE.json", help="also write the report as JSON")


def run_check(known: argparse.Namespace, options: dict[str, Any]) -> None:
    """Checks, prints the report and writes it; DataProblems where something is wrong."""
    from vtr_jax.data.check_data import check_data, report_text
    from vtr_jax.files import write_atomically

    output = None if known.output is None else Path(known.output)
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise ValueError(f"--output={output}: expected a file in a folder that exists")
    report = check_data(
        known.dataset,
        known.annotations,
        videos_dir=known.videos,
        splits=known.splits.split(",") if known.splits is not None else None,
        max_words=known.max_words,
        workers=known.workers,
        **chosen_settings(known),
        **options,
    )
    print(report_text(report))
    if output is not None:
        write_atomically(output, report.to_json().encode())
    if report.problems:
        plural = "problem" if len(report.problems) == 1 else "problems"
        raise DataProblems(f"{len(report.problems)} {plural}, listed above")
