"""The comparison of runs, and batches for single steps."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def soak_kills() -> ModuleType:
    """scripts/soak_kills.py: kills runs, and compares two of them bit by bit."""
    source = REPOSITORY / "scripts" / "soak_kills.py"
    spec = importlib.util.spec_from_file_location("soak_kills", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak_kills"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def random_batch() -> Callable[[int], dict[str, np.ndarray]]:
    """Makes a batch of the shapes of `tiny_config`, another one for each seed."""

    def build(seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(4, 13, (8, 1))
        token_mask = (np.arange(12) < lengths).astype(np.int32)
        token_ids = rng.integers(1, 2000, (8, 12)) * token_mask
        np.put_along_axis(token_ids, lengths - 1, 49407, axis=1)
        return {
            "frames": rng.integers(0, 256, (8, 4, 32, 32, 3), np.uint8),
            "frame_mask": (np.arange(4) < rng.integers(1, 5, (8, 1))).astype(np.int32),
            "token_ids": token_ids.astype(np.int32),
            "token_mask": token_mask,
        }

    return build


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
        recipe = "--config=clip4clip:smoke"
        command = [sys.executable, "-m", "vtr_jax.cli", "train", recipe, *settings]
        return [*command, "--config.log_every=1", f"--workdir={workdir}"]

    return build
