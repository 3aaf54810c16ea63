"""The installed wheel works without a checkout and without TensorFlow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINT = REPOSITORY / "tests" / "parity" / "golden" / "files" / "tiny-openai-clip.pt"

# What a user's own program does, in an interpreter that sees no TensorFlow.
PROGRAM = """
import sys
from pathlib import Path
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None

import numpy as np
import vtr_jax
from vtr_jax.training.command import find_recipe_file, read_config

home, directory, video = Path(sys.argv[1]).resolve(), *sys.argv[2:]
package = Path(vtr_jax.__file__).resolve().parent
assert package.is_relative_to(home), package
assert find_recipe_file("clip4clip").resolve().is_relative_to(home)
files = ("py.typed", "configs/drl.py", "data/clip_vocabulary/merges.txt.gz")
assert not [name for name in files if not (package / name).is_file()]
assert read_config("clip4clip:msrvtt").data.dataset == "msrvtt"
assert read_config("configs/clip4clip.py:msrvtt").data.dataset == "msrvtt"

retriever = vtr_jax.load_retriever(directory)
resolution = retriever.config.clip.vision.image_resolution
frames, frame_mask = vtr_jax.read_video(video, resolution=resolution)
clip = retriever.encode_video(frames[None], frame_mask[None])
text = retriever.encode_text(*vtr_jax.tokenize(["a dog", "a cat"], max_words=8))
scores = np.asarray(retriever.similarity(text, clip))
assert scores.shape == (2, 1) and np.isfinite(scores).all()
print("scores", scores.shape)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A virtual environment with the wheel, which sees this interpreter's other packages."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    built = ["--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", _copied(folder)]
    subprocess.run([*pip, "wheel", *built], check=True)
    (wheel,) = folder.glob("*.whl")
    home = folder / "venv"
    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    # Folders that a .pth file names come after `site`, and .pth files in them (the checkout's
    # editable install) are not read.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    subprocess.run(
        [*pip, "--python", str(home / "bin" / "python"), "install", "--no-deps", "-q", str(wheel)],
        check=True,
    )
    return home


def _copied(folder: Path) -> str:
    """Copy what a wheel is built from, so that building leaves nothing in the checkout."""
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "vtr_jax", source / "vtr_jax", ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    return str(source)


@pytest.fixture
def run(installed, tmp_path):
    """Run a program of the environment in an empty folder."""

    def call(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
        command = [str(installed / "bin" / program), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
        )

    return call


def test_convert_encode_and_train_outside_a_checkout(run, installed, tiny_dataset):
    converted = run("vtr", "convert", CHECKPOINT, "clip")
    assert converted.returncode == 0, converted.stderr
    video = next(tiny_dataset.videos_dir.iterdir())
    encoded = run("python", "-c", PROGRAM, installed, "clip", video)
    assert encoded.returncode == 0, encoded.stderr
    assert encoded.stdout.strip() == "scores (2, 1)"
    told = run("vtr", "train", "--help")
    assert told.returncode == 0 and "clip4clip" in told.stdout
    assert str(installed) in told.stdout  # the folder of the recipe files
    # Everything up to the first setting that only the user knows.
    started = run("vtr", "train", "--config=clip4clip:msrvtt", "--workdir=run")
    assert started.returncode == 1
    assert started.stderr.splitlines()[-1].startswith("vtr train: data.annotations: ")
