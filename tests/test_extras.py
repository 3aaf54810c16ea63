"""Missing extras and missing devices: one line that names what to install, before work starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vtr_jax.data.tensorflow_host import import_tensorflow
from vtr_jax.extras import MissingExtra, require_extra

WITHOUT_TENSORFLOW = (
    "import sys; sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None; "
    "from vtr_jax.cli import main; sys.exit(main(sys.argv[1:]))"
)
TRAIN = ["train", "--config=clip4clip:smoke", "--workdir=run", "--config.data.annotations=a.csv"]
EVALUATE = ["evaluate", "--checkpoint=c", "--annotations=a.csv", "--store=s"]
PREPARE = ["prepare", "--annotations=a.csv", "--videos=v", "--store=s"]


def vtr(arguments, folder, program=None, **variables):
    start = ["-c", program] if program else ["-m", "vtr_jax.cli"]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | variables,
    )


@pytest.mark.parametrize("arguments", [PREPARE, TRAIN, EVALUATE], ids=lambda args: args[0])
def test_a_missing_tensorflow_is_one_line_with_the_extra(arguments, tmp_path):
    done = vtr(arguments, tmp_path, WITHOUT_TENSORFLOW)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"vtr {arguments[0]}: tensorflow: ")
    assert line.endswith("pip install 'vtr_jax[data]'")
    assert not list(tmp_path.iterdir())


def test_the_extra_is_named_from_python_too(monkeypatch):
    import_tensorflow.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(MissingExtra, match=r"^tensorflow_datasets: .*'vtr_jax\[data\]'"):
        import_tensorflow()


def test_an_installed_extra_passes():
    require_extra("data")


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "FILE", "OUT"],
        TRAIN,
        EVALUATE,
        ["compile", "--config=clip4clip:smoke"],
        ["parity", "--checkpoint=c", "--case=c.json"],
    ],
    ids=lambda args: args[0],
)
def test_a_platform_that_is_not_installed_is_one_line(arguments, tmp_path):
    done = vtr(arguments, tmp_path, JAX_PLATFORMS="cuda")
    assert done.returncode == 1 and done.stdout == ""
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"vtr {arguments[0]}: JAX_PLATFORMS=cuda: ")
    assert "vtr_jax[cuda12]" in line and "Traceback" not in done.stderr


def test_jax_names_an_unknown_platform(tmp_path):
    done = vtr(["convert", "FILE", "OUT"], tmp_path, JAX_PLATFORMS="abacus")
    assert done.returncode == 1 and "JAX_PLATFORMS=abacus" in done.stderr
    assert "Traceback" not in done.stderr
