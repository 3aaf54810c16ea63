"""A run killed twice at random moments ends with the very bits of one that was left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def train_command(tiny_config, monkeypatch):
    """`vtr train` with the settings of `tiny_config`, computed as in this process."""
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    if jax.config.jax_compilation_cache_dir:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    config = tiny_config()
    changed = ("epochs", "batch_size", "eval_every", "data.annotations", "data.store")
    changed += ("clip.vision_layers", "clip.text_layers")
    changed += tuple(f"optimizer.{name}" for name in ("name", "learning_rate", "coef_lr"))
    changed += ("optimizer.freeze_layer_num",)
    settings = []
    for name in changed:
        value = config
        for part in name.split("."):
            value = value[part]
        settings.append(f"--config.{name}={value}")

    def build(workdir):
        recipe = f"--config={REPOSITORY / 'configs' / 'clip4clip.py'}:smoke"
        command = [sys.executable, "-m", "vtr_jax.cli", "train", recipe, *settings]
        return [*command, "--config.log_every=1", f"--workdir={workdir}"]

    return build


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
