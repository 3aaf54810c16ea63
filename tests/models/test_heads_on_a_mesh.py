"""Heads that compare all pairs give the same on eight devices, whatever tiles cut across them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

SCRIPT = Path(__file__).parent / "heads_mesh_script.py"


@pytest.fixture(scope="module")
def found():
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    cache = jax.config.jax_compilation_cache_dir
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("head", ["wti", "ti", "xti"])
def test_loss_and_gradients_equal_those_of_one_device(found, head):
    result = found[head]
    # Sums in another order.
    assert result["loss on 8"] == pytest.approx(result["loss"], rel=1e-6)
    assert result["gradients apart"] < 1e-5
