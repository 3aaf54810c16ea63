"""Two processes are one run: stopped together, resumed by one, evaluated by both."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from vtr_jax.evaluation.command import EvaluationRequest, run_evaluation
from vtr_jax.evaluation.report import read_report
from vtr_jax.training.loop import train
from vtr_jax.training.run_log import read_log

SOURCE = Path(__file__).resolve().parents[2] / "scripts" / "soak_processes.py"


@pytest.fixture(scope="module")
def soak():
    """scripts/soak_processes.py, which starts processes and compares runs."""
    spec = importlib.util.spec_from_file_location("soak_processes", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak_processes"] = module
    spec.loader.exec_module(module)
    return module


def test_two_processes_train_stop_and_evaluate_as_one(
    soak, train_command, tiny_config, tiny_run, tiny_dataset, tiny_store, tmp_path
):
    workdir = tmp_path / "run"
    # SIGTERM to one of two saves both; one process goes on from there.
    soak.stop_at(train_command(workdir), 2, tmp_path / "logs", workdir, 3)
    stopped = max(record["step"] for record in read_log(workdir))
    assert 3 <= stopped < 32
    assert [path.name for path in (workdir / "checkpoints").iterdir()][-1:] == [str(stopped)]
    only_first = [path.read_text() for path in soak_logs(tmp_path)]
    assert ["mesh {'data': 2" in text for text in only_first] == [True, False]
    train(tiny_config(), workdir)
    assert soak.log_differences(workdir, tiny_run) == []

    data = {"annotations": str(tiny_dataset.captions_file), "store": str(tiny_store)}
    by_two = soak.evaluated(workdir, 2, data, tmp_path / "two")
    one = tmp_path / "one"
    run_evaluation(EvaluationRequest(str(workdir), "table", **data, output=str(one), batch_size=5))
    card, results = read_report(one)
    assert by_two == (card.checkpoint_sha256, results)


def soak_logs(folder):
    return sorted((folder / "logs").glob("*.txt"))


def test_a_difference_between_logs_is_noticed(soak, tiny_run, tmp_path):
    assert soak.log_differences(tiny_run, tiny_run) == []
    log = (tiny_run / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(log.replace('"loss": 2.', '"loss": 2.1', 1))
    (different,) = soak.log_differences(tmp_path, tiny_run)
    assert different.startswith("train of step 1")
