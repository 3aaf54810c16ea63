"""Compiling for a TPU slice that is not there; needs libtpu, which the extra [compile] brings."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'vtr_jax[compile]' (684 MB)",
)


def vtr(*arguments, cwd):
    # A process of its own: libtpu stays out of the one that runs the other tests.
    return subprocess.run(
        [sys.executable, "-m", "vtr_jax.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def test_a_step_compiles_for_eight_chips(request):
    ran = vtr(
        "compile",
        "--config=clip4clip:smoke",
        "--topology=v5e:2x4",
        "--config.batch_size=16",
        "--config.mesh.fsdp=2",
        "--config.remat=True",
        "--json",
        cwd=request.config.rootpath,
    )
    assert ran.returncode == 0, ran.stderr
    values = json.loads(ran.stdout)
    report = values["report"]
    assert (report["kind"], report["devices"]) == ("TPU v5 lite", 8)
    assert report["mesh"] == {"data": 4, "fsdp": 2, "tensor": 1}
    assert values["config"]["compute_dtype"] == "bfloat16"
    assert report["fits"] and report["unknown_loops"] == []
    assert report["model_flops"] < report["flops"]
    # Parameters are gathered over fsdp, gradients summed over all.
    assert report["collectives"]["all-gather"]["number"] > 0
    assert report["collectives"]["all-reduce"]["bytes"] > 0
    assert 0 < report["roofline"]["mfu"] < 1


def test_an_unknown_slice_is_refused_in_libtpus_words(request):
    ran = vtr(
        "compile",
        "--config=clip4clip:smoke",
        "--topology=v5e:3x5x7",
        cwd=request.config.rootpath,
    )
    assert ran.returncode == 1
    assert "v5e:3x5x7: libtpu does not describe this slice" in ran.stderr.splitlines()[-1]
