"""Every recipe on eight devices: the loss and gradients of one device, and what devices send.

VTR_ALL_MESHES=1 tries every recipe on every mesh. Where what devices send has changed for a reason,
`python tests/training/test_recipes_on_meshes.py` writes collectives.json anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jaxlib
import numpy as np
import pytest

from vtr_jax.models.recipes import RECIPES

HERE = Path(__file__).parent
SCRIPT, RECORD = HERE / "recipes_mesh_script.py", HERE / "collectives.json"
DEVICES = {"data": 8, "fsdp": 8, "all": 4}  # over which rows are split
MESHES = tuple(DEVICES)
CASES = {
    "clip": ("fsdp",),
    "clip4clip-meanP": (),  # ../test_sharding.py has it on all three
    "clip4clip-3d": (),
    "clip4clip-seqLSTM": ("fsdp",),
    "clip4clip-seqTransf": ("all",),
    "clip4clip-tightTransf": ("all",),
    "drl-dp": (),
    "drl-ti": (),
    "drl-wti": ("all",),
    "drl-xti": (),
    "backbone_tvr": (),
    "backbone_tvr-cached": ("data",),  # beside the whole batch on one device
    "emcl": ("fsdp",),
    "emcl-accumulated": ("data",),  # beside the same accumulation on one device
    "eercf": ("all",),
    "internvideo": ("fsdp",),
}
ALL = [f"{case}:{mesh}" for case in CASES for mesh in MESHES]
SOME = [f"{case}:{mesh}" for case, meshes in CASES.items() for mesh in meshes]
TRIED = ALL if os.environ.get("VTR_ALL_MESHES") else SOME
FRAMES, LAYERS = 48, 2


def found_on(pairs):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    if jax.config.jax_compilation_cache_dir:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *pairs], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found():
    """What recipes_mesh_script.py found, by case and mesh."""
    return found_on(TRIED)


@pytest.fixture(scope="module")
def record():
    return json.loads(RECORD.read_text())


def test_every_recipe_is_covered():
    """By a mesh that is tried without being asked for."""
    assert {pair.split(":")[0].split("-")[0] for pair in SOME} == set(RECIPES)


@pytest.mark.parametrize("pair", TRIED)
def test_loss_and_gradients_equal_those_of_one_device(found, pair):
    ours, theirs = found[pair]["metrics"]
    assert ours.keys() == theirs.keys()
    # Sums in another order; attention of fresh stacks enlarges that in the gradients.
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=2e-6)
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=3e-5, atol=1e-6)
    assert theirs["gradient_norm"] > 0
    assert found[pair]["gradient_gap"] < 3e-5


@pytest.mark.parametrize("pair", TRIED)
def test_everything_large_is_split(found, pair):
    report, mesh = found[pair], pair.split(":")[1]
    assert report["misplaced"] == []
    # No device has all the frames of the batch; the backward pass keeps those of every layer.
    assert 0 < max(report["activations"]) <= LAYERS * FRAMES // DEVICES[mesh] < FRAMES
    own, whole = report["bytes"]
    if mesh == "data":
        assert own == whole
        return
    tables = ("position_embedding",)
    assert [name for name in report["whole"] if not name.endswith(tables)] == []
    assert own < 0.4 * whole


@pytest.mark.parametrize("pair", TRIED)
def test_devices_send_no_more_than_they_did(found, record, pair):
    assert found[pair]["pictures"] == []
    assert found[pair]["unknown_loops"] == []
    # Another compiler may choose otherwise.
    slack = 1.0 if record["jaxlib"] == jaxlib.__version__ else 1.5
    before, now = record["sent"][pair], found[pair]["collectives"]
    for what in ("number", "bytes"):
        sent = sum(kind[what] for kind in now.values())
        assert 0 < sent <= slack * sum(kind[what] for kind in before.values()), (what, now, before)


if __name__ == "__main__":
    sent = {pair: report["collectives"] for pair, report in found_on(ALL).items()}
    RECORD.write_text(json.dumps({"jaxlib": jaxlib.__version__, "sent": sent}, indent=1) + "\n")
