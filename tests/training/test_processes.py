"""Two processes are one run: stopped together, resumed by one, evaluated by both."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import time
from pathlib import Path

import pytest

from vtr_jax.cluster import HEARTBEAT_SECONDS
from vtr_jax.data.frame_store import FrameStore
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
    soak.stop_behind(train_command(workdir), 2, tmp_path / "logs", workdir, 3)
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


def damage_a_clip(folder):
    """Overwrite the beginning of the record of a clip to train on; its id."""
    store = FrameStore.open(folder)
    index = store.index
    clip_id = next(name for name in store.clip_ids if name.startswith("train"))
    row = store.index_of(clip_id)
    with (folder / str(index.shard_names[index.shards[row]])).open("r+b") as shard:
        shard.seek(int(index.offsets[row]))
        shard.write(bytes(8))
    store.close()
    return clip_id


def test_an_error_of_one_process_ends_both_and_each_says_what_it_met(
    soak, train_command, tiny_store, tmp_path
):
    store = tmp_path / "store"
    shutil.copytree(tiny_store, store)
    clip_id = damage_a_clip(store)
    own = {1: [f"--config.data.store={store}"]}
    with soak.together(train_command(tmp_path / "run"), 2, tmp_path / "logs", own) as processes:
        other, failing = processes.processes
        assert failing.wait(120) == 1
        failed = time.monotonic()
        assert other.wait(120) == 1
        assert time.monotonic() - failed < HEARTBEAT_SECONDS
    last_of_other, last = (path.read_text().splitlines()[-1] for path in soak_logs(tmp_path))
    assert last.startswith("vtr train: ") and f"record of clip '{clip_id}' is damaged; run" in last
    assert last_of_other.startswith("error: vtr train: ")
    assert last_of_other.endswith(
        "another process of this run has ended before: its own output says why)"
    )


def soak_logs(folder):
    return sorted((folder / "logs").glob("*.txt"))


def test_a_difference_between_logs_is_noticed(soak, tiny_run, tmp_path):
    assert soak.log_differences(tiny_run, tiny_run) == []
    log = (tiny_run / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(log.replace('"loss": 2.', '"loss": 2.1', 1))
    (different,) = soak.log_differences(tmp_path, tiny_run)
    assert different.startswith("train of step 1")
