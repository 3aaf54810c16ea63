"""What `import vtr_jax` promises: its names, and that nothing heavy comes with them."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import vtr_jax

HEAVY = ("tensorflow", "tensorflow_datasets", "torch", "matplotlib", "transformers", "av")

WITHOUT_HEAVY_PACKAGES = f"""
import sys

heavy = {HEAVY!r}
for name in heavy:
    sys.modules[name] = None  # as if it were not installed

import vtr_jax
assert "jax" not in sys.modules, "import vtr_jax is to be quick"

import vtr_jax.checkpoint
import vtr_jax.convert.convert_checkpoint
import vtr_jax.models.initialise
import vtr_jax.models.recipes
import vtr_jax.parity.compare
import vtr_jax.training.checkpoints
import vtr_jax.training.optimizer
import vtr_jax.training.step

retriever, source, directory = vtr_jax.load_retriever, *sys.argv[1:]
vtr_jax.convert_checkpoint(source, directory)
loaded = vtr_jax.load_retriever(directory)
ids, mask = vtr_jax.tokenize(["a cat"], max_words=8)
print(loaded.encode_text(ids, mask).sentence.shape)
imported = [name for name in heavy if sys.modules.get(name) is not None]
assert not imported, imported
"""

PUBLIC = {
    "load_retriever": ["directory", "mesh", "compute_dtype", "step", "allow_nonfinite"],
    "retriever_from_state_dict": ["state_dict", "recipe", "allow_nonfinite", "options"],
    "to_state_dict": ["retriever_or_gradients"],
    "convert_checkpoint": ["source", "directory", "recipe", "seed", "options"],
    "tokenize": ["texts", "max_words"],
}
METHODS = {
    "encode_text": ["token_ids", "token_mask"],
    "encode_video": ["frames", "frame_mask"],
    "similarity": ["text", "video"],
    "scores": ["text", "video", "train"],
    "loss": ["text", "video", "rng", "picks"],
    "with_state": ["state"],
}


def parameters(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize(("name", "expected"), PUBLIC.items())
def test_functions(name, expected):
    assert parameters(getattr(vtr_jax, name)) == expected


@pytest.mark.parametrize(("name", "expected"), METHODS.items())
def test_methods_of_a_retriever(name, expected):
    assert parameters(getattr(vtr_jax.Retriever, name)) == expected


def test_read_video_takes_a_stretch_of_a_file():
    assert parameters(vtr_jax.read_video)[:4] == ["path", "max_frames", "start", "end"]


def test_every_listed_name_is_there_and_documented():
    for name in vtr_jax.__all__:
        assert name in dir(vtr_jax)
        assert name == "__version__" or inspect.getdoc(getattr(vtr_jax, name))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="no attribute 'load_model'; it has .*load_retriever"):
        vtr_jax.load_model  # noqa: B018


def test_conversion_and_encoding_need_none_of_the_heavy_packages(checkpoint_file, tmp_path):
    command = [sys.executable, "-c", WITHOUT_HEAVY_PACKAGES, checkpoint_file, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("(1, 32)")
