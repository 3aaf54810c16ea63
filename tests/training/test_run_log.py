"""metrics.jsonl: appended to, cut where a resumed run goes on, whole after a kill."""

from __future__ import annotations

import sys
import types

import pytest

from vtr_jax.training.run_log import LOG_FILE, RunLog, read_log, step_line


def write(workdir, steps, resumed_step=0):
    log = RunLog(workdir, resumed_step, tensorboard=False)
    for step in steps:
        log.write("train", step, {"loss": 1.0 / step})
    log.close()


def test_records_come_back_in_order(tmp_path):
    assert read_log(tmp_path) == []
    write(tmp_path, [1, 2])
    assert read_log(tmp_path) == [
        {"kind": "train", "step": 1, "loss": 1.0},
        {"kind": "train", "step": 2, "loss": 0.5},
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == [LOG_FILE]


def test_every_record_is_on_disk_at_once(tmp_path):
    log = RunLog(tmp_path, 0, tensorboard=False)
    log.write("evaluation", 3, {"t2v R@1": 50.0})
    assert read_log(tmp_path)[0]["t2v R@1"] == 50.0
    log.close()


def test_a_resumed_run_reads_as_if_nothing_had_happened(tmp_path):
    write(tmp_path, [1, 2, 3, 4, 5])
    write(tmp_path, [4, 5, 6], resumed_step=3)
    assert [record["step"] for record in read_log(tmp_path)] == [1, 2, 3, 4, 5, 6]
    write(tmp_path, [1], resumed_step=0)
    assert [record["step"] for record in read_log(tmp_path)] == [1]


def test_a_torn_last_line_is_left_out(tmp_path):
    write(tmp_path, [1, 2])
    path = tmp_path / LOG_FILE
    path.write_text(path.read_text()[:-9])
    assert [record["step"] for record in read_log(tmp_path)] == [1]
    write(tmp_path, [2], resumed_step=1)
    assert [record["step"] for record in read_log(tmp_path)] == [1, 2]


def test_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(
        ValueError, match=r"needs tensorboardX: pip install 'vtr_jax\[tensorboard\]'"
    ):
        RunLog(tmp_path, 0, tensorboard=True)


def test_tensorboard_gets_every_number(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    module = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    log = RunLog(tmp_path, 6, tensorboard=True)
    log.write("train", 7, {"loss": 0.5, "note": "no number"})
    log.write("evaluation", 7, {"t2v R@1": 25.0})
    log.close()
    assert written == [
        # What a killed run had written after its last checkpoint disappears there, too.
        (str(tmp_path / "tensorboard"), 7),
        ("train/loss", 0.5, 7),
        ("evaluation/t2v R@1", 25.0, 7),
        "closed",
    ]


def test_the_step_line_tells_everything_a_person_asks():
    values = {
        "loss": 1.23456,
        "learning_rate": 1e-4,
        "clip_learning_rate": 1e-7,
        "logit_scale": 14.28,
        "clips_per_second": 321.04,
        "waiting_share": 0.256,
    }
    assert step_line(30, 200, 3, values) == (
        "step 30/200  epoch 3  loss 1.2346  lr 1.00e-04 (clip 1.00e-07)  scale 14.3  "
        "321.0 clips/s  waiting 26%"
    )
