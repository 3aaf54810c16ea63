"""Reports: what is written is what is read, and a broken report is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vtr_jax.evaluation.metrics import retrieval_metrics
from vtr_jax.evaluation.protocol import ProtocolCard
from vtr_jax.evaluation.report import format_table, read_report, write_report

CARD = ProtocolCard(
    dataset="table",
    split="test",
    split_sha256="a" * 64,
    captions=4,
    clips=4,
    captions_per_clip=(1, 1.0, 1),
    clips_skipped=0,
    frames=9,
    frame_rate=4.0,
    frame_choice="uniform, normal order",
    resolution=64,
    max_words=32,
    captions_cut=0,
    checkpoint_sha256="b" * 64,
    recipe="clip4clip",
)


def test_round_trip(tmp_path):
    results = retrieval_metrics(np.random.default_rng(0).random((4, 4)), np.arange(4))
    path = write_report(tmp_path / "run" / "report", CARD, results)
    assert path.name == "report.json"
    assert read_report(path.parent) == (CARD, results)
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.json", "report.txt"]


def test_text_holds_scores_and_protocol(tmp_path):
    results = {"t2v": {"R@1": 45.56, "MdR": 2.0, "queries": 1000}}
    write_report(tmp_path, CARD, results)
    text = (tmp_path / "report.txt").read_text()
    assert text.startswith(format_table(results))
    assert "split sha256" in text and "a" * 64 in text


def test_table_by_hand():
    results = {"t2v": {"R@1": 45.56, "queries": 1000}, "pairs": {"R@1": 100.0}}
    assert format_table(results).splitlines() == [
        "                 R@1  queries",
        "text to video   45.6     1000",
        "pairs          100.0        -",
    ]


def test_a_new_report_replaces_the_old_one(tmp_path):
    write_report(tmp_path, CARD, {"t2v": {"R@1": 1.0}})
    write_report(tmp_path, CARD, {"t2v": {"R@1": 2.0}})
    assert read_report(tmp_path)[1] == {"t2v": {"R@1": 2.0}}


@pytest.mark.parametrize("results", [{}, {"t2v": {"R@1": float("nan")}}])
def test_scores_that_are_none_leave_no_file(tmp_path, results):
    with pytest.raises(ValueError, match="results"):
        write_report(tmp_path / "report", CARD, results)
    assert not (tmp_path / "report").exists()


def test_missing_and_broken_reports_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="report.json: no such report"):
        read_report(tmp_path)
    path = tmp_path / "report.json"
    path.write_text('{"format_version": 1, "res')
    with pytest.raises(ValueError, match="report.json: not JSON"):
        read_report(tmp_path)
    path.write_text(json.dumps({"format_version": 7}))
    with pytest.raises(ValueError, match="expected a report of format 1, found 7"):
        read_report(tmp_path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="found None"):
        read_report(tmp_path)


def test_skipped_clips_are_all_listed_and_five_are_named(tmp_path):
    names = [f"clip{n}" for n in range(8)]
    path = write_report(tmp_path, CARD, {"t2v": {"R@1": 1.0}}, names)
    assert json.loads(path.read_text())["skipped_clips"] == names
    last = (tmp_path / "report.txt").read_text().splitlines()[-1]
    assert last == "Clips that were skipped: clip0, clip1, clip2, clip3, clip4, and 3 more"
    assert read_report(tmp_path) == (CARD, {"t2v": {"R@1": 1.0}})
