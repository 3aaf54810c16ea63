"""A run killed twice at random moments ends with the very bits of one that was left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest


def test_killed_twice_and_run_again(soak_kills, train_command, tiny_run, tmp_path):
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    workdir = tmp_path / "run"
    command = train_command(workdir)
    first = soak_kills.kill_once(command, workdir, "saving", rng, ahead=6)
    second = soak_kills.kill_once(command, workdir, "training", rng, ahead=6)
    assert first is not None and second is not None
    assert 0 < second.last_step < 32
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert soak_kills.differences(workdir, tiny_run) == []


def test_a_difference_is_noticed(soak_kills, tiny_run, tmp_path, monkeypatch):
    changed = tmp_path / "run"
    shutil.copytree(tiny_run, changed)
    log = changed / "metrics.jsonl"
    log.write_text(log.read_text().replace("loss", "lost", 1))
    assert soak_kills.differences(changed, tiny_run) == ["metrics.jsonl"]
    read = soak_kills.saved_arrays

    def last_bit(workdir, step):
        arrays = read(workdir, step)
        if workdir == changed:
            scale = arrays["retriever/params/logit_scale"]
            arrays["retriever/params/logit_scale"] = np.nextafter(scale, np.float32(9))
        return arrays

    monkeypatch.setattr(soak_kills, "saved_arrays", last_bit)
    assert soak_kills.differences(changed, tiny_run)[0] == "retriever/params/logit_scale"
    shutil.rmtree(changed / "checkpoints" / "32")
    (different,) = soak_kills.differences(changed, tiny_run)
    assert different.startswith("checkpoints: ")


def test_a_command_that_fails_by_itself_is_no_kill(soak_kills, tmp_path):
    command = [sys.executable, "-m", "vtr_jax.cli", "train", "--config=missing.py"]
    rng = np.random.default_rng(0)
    with pytest.raises(RuntimeError, match="exit code 2\n.*--workdir"):
        soak_kills.kill_once(command, tmp_path, "training", rng)
