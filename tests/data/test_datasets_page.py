"""docs/datasets.md: its commands are ones that exist, its counts those that check-data knows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from vtr_jax.cli import COMMANDS
from vtr_jax.data.annotations import READERS, reader_options
from vtr_jax.data.check_data.known import known_counts
from vtr_jax.training.command import read_config

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "datasets.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
REAL = [line for line in LINES if not re.search(r"[=:]D\b", line)]


@pytest.mark.parametrize("line", REAL)
def test_commands_exist(line):
    program, command, *arguments = shlex.split(line, comments=True)
    assert program == "vtr" and command in COMMANDS
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    dataset = options.get("dataset", "table")
    assert dataset in READERS
    if command == "check-data":
        known = {"dataset", "annotations", "videos", *reader_options(dataset)}
        assert set(options) <= known
    if command == "train":
        variant = options["config"].rpartition(":")[2]
        config = read_config(options["config"])
        assert config.data.dataset == variant


@pytest.mark.parametrize("dataset", sorted(set(READERS) - {"table"}))
def test_commands_for_any_data_set_are_those_of_each(dataset):
    """The first block says D for any of them."""
    (line,) = [line for line in LINES if line.startswith("vtr train") and ":D " in line]
    config = re.search(r"--config=(\S+):D ", line)[1]
    assert read_config(f"{config}:{dataset}").data.dataset == dataset


def test_every_data_set_has_its_commands():
    for dataset in set(READERS) - {"table"}:
        for command in ("check-data", "prepare", "evaluate"):
            assert any(f"vtr {command} " in x and f"--dataset={dataset} " in x for x in REAL)


@pytest.mark.parametrize(
    "row, dataset, options",
    [
        ("MSR-VTT 9k / 1k-A", "msrvtt", {}),
        ("MSR-VTT 7k / 1k-A", "msrvtt", {"train_list": "7k"}),
        ("MSR-VTT full", "msrvtt", {"train_list": "full", "test_list": "full"}),
        ("MSVD", "msvd", {}),
        ("LSMDC", "lsmdc", {}),
        ("ActivityNet Captions", "activitynet", {}),
        ("DiDeMo", "didemo", {}),
        ("VATEX", "vatex", {}),
    ],
)
def test_counts_are_those_that_are_checked(row, dataset, options):
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {row} |")]
    cells = [cell.strip() for cell in line.split("|")[2:5]]
    for split, cell in zip(("train", "val", "test"), cells, strict=True):
        stated = {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", cell)}
        known = known_counts(dataset, split, options)
        if stated:
            assert stated == {known.clips, known.captions} - {None}


def test_links_lead_to_the_owners():
    hosts = {
        re.sub(r"https?://([^/]*).*", r"\1", link) for link in re.findall(r"\]\(([^)]*)\)", PAGE)
    }
    assert hosts == {
        *("www.microsoft.com", "www.cs.utexas.edu", "sites.google.com", "cs.stanford.edu"),
        *("activity-net.org", "github.com", "eric-xw.github.io"),
    }
