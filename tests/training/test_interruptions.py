"""Runs that are asked to stop, shut out, or lose their data: what they did is kept."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time

import pytest

import vtr_jax.data.frame_store.store as store_module
import vtr_jax.training.loop as loop
from vtr_jax.checkpoint import checkpoint_scores, checkpoint_steps
from vtr_jax.data.frame_store.store import DamagedStore
from vtr_jax.lock import only_process
from vtr_jax.training.loop import train
from vtr_jax.training.run import Run
from vtr_jax.training.run_log import RunLog, read_log
from vtr_jax.training.stop_request import Interrupted, stop_requests


def test_sigterm_saves_and_exits_with_75(
    soak_kills, train_command, tiny_config, tiny_run, tmp_path
):
    workdir = tmp_path / "run"
    with subprocess.Popen(
        train_command(workdir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and soak_kills.last_step(workdir) < 2:
            time.sleep(0.002)
        process.terminate()
        out, errors = process.communicate()
    assert process.returncode == 75, errors[-3000:]
    assert "SIGTERM: saving behind the step that runs" in errors
    step = checkpoint_steps(workdir)[-1]
    assert 2 <= step < 32 and f"SIGTERM: saved after step {step}; the same" in out
    train(tiny_config(), workdir)
    assert soak_kills.differences(workdir, tiny_run) == []


def test_a_second_signal_ends_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        assert not stop.reached(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.reached(1) and stop.signal == signal.SIGINT
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert stop.interruption(1).code == 130
    assert signal.getsignal(signal.SIGTERM) == before


class StopsBehind:
    """A stop request that comes while a step is computed."""

    def __init__(self, step):
        self.step, self.seen = step, 0

    @property
    def signal(self):
        return signal.SIGTERM if self.seen >= self.step - 1 else None

    def reached(self, step):
        self.seen = step
        return step >= self.step

    def interruption(self, step):
        return Interrupted(75)


def test_an_evaluation_that_was_due_is_made_up_for(
    tiny_config, tiny_run, tmp_path, monkeypatch, soak_kills
):
    workdir = tmp_path / "run"
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        stops = contextlib.nullcontext(StopsBehind(8))
        patched.setattr(loop, "stop_requests", lambda: stops)
        train(tiny_config(), workdir)
    assert checkpoint_steps(workdir) == [8] and checkpoint_scores(workdir, 8) == {}
    assert not any(record["kind"] == "evaluation" for record in read_log(workdir))
    # On the way on: stopped again before anything is done, which costs nothing.
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        stops = contextlib.nullcontext(StopsBehind(8))
        patched.setattr(loop, "stop_requests", lambda: stops)
        train(tiny_config(), workdir)
    assert checkpoint_scores(workdir, 8)["t2v queries"] == 5
    train(tiny_config(), workdir)
    assert soak_kills.differences(workdir, tiny_run) == []


def test_one_process_a_workdir(tiny_config, tmp_path):
    with (
        only_process(tmp_path / "run", "training"),
        pytest.raises(BlockingIOError, match=f"process {os.getpid()} on .* is training; wait"),
    ):
        train(tiny_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # nothing but the lock came into it


def test_a_store_that_cannot_be_read_any_more(
    tiny_config, tiny_run, tmp_path, monkeypatch, soak_kills
):
    workdir, reads = tmp_path / "run", iter(range(10**6))
    pread = os.pread

    def fails(descriptor, length, offset):
        if next(reads) >= 120:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, length, offset)

    with monkeypatch.context() as patched:
        patched.setattr(store_module.os, "pread", fails)
        message = "tfrecord-.*: record of clip 'train_.*' cannot be read: .*Input/output error"
        with pytest.raises(DamagedStore, match=message):
            train(tiny_config(), workdir)
    # What was trained until then is there, not only what was due.
    assert checkpoint_steps(workdir)[0] == 8
    assert checkpoint_steps(workdir)[-1] not in (0, 8)
    train(tiny_config(), workdir)
    assert soak_kills.differences(workdir, tiny_run) == []


def test_an_evaluation_that_fails_costs_no_training(tiny_config, tmp_path, monkeypatch):
    def fails(run):
        raise DamagedStore("a shard is gone")

    monkeypatch.setattr(Run, "evaluate", fails)
    with pytest.raises(DamagedStore, match="a shard is gone"):
        train(tiny_config({"log_every": 100}), tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run") == [8]
    assert checkpoint_scores(tmp_path / "run", 8) == {}


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    log = RunLog(tmp_path, 0, tensorboard=False)

    class Full:
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    log.write("train", 1, {"loss": float("nan"), "found": "loss nan"})
    log._file.close()
    log._file = Full()
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        log.write("train", 2, {"loss": 1.0})
    assert read_log(tmp_path) == [{"kind": "train", "step": 1, "loss": None, "found": "loss nan"}]
