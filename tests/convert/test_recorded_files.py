"""Trained files that the original programs wrote: all that is in them arrives, and goes back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vtr_jax.convert.checkpoint_file import open_checkpoint
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.huggingface_names import openai_names
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.write_back import write_back
from vtr_jax.models.recipes import RECIPES
from vtr_jax.parity.cases import system_cases

# File, its system, and the options that its names do not tell.
TRAINED = [
    ("tiny-openai-clip.pt", "clip", {}),
    ("tiny-clip-zip.bin", "clip", {}),
    ("tiny-clip-legacy.bin", "clip", {}),
    ("tiny-clip-wrapped.bin", "clip", {}),
    ("tiny-hf-clip", "clip", {}),
    ("internvideo-openai-clip.pth", "clip", {}),
    ("clip4clip-meanP-pytorch_model.bin.0", "clip4clip", {}),
    ("clip4clip-seqTransf-pytorch_model.bin.0", "clip4clip", {}),
    ("drl-wti.bin", "drl", {}),
    ("drl-wti-fp16.bin", "drl", {}),
    ("backbone_tvr.bin", "backbone_tvr", {}),
    ("backbone_tvr-fp16.bin", "backbone_tvr", {}),
    ("emcl.bin", "emcl", {}),
    ("eercf-pytorch_model.bin.0", "eercf", {}),
]
SCALARS = ("input_resolution", "context_length", "vocab_size")


@pytest.fixture(params=TRAINED, ids=[name for name, _, _ in TRAINED])
def trained(request, checkpoint_files):
    """(path, recipe, options), skipped where the file or the system is not there."""
    name, recipe, options = request.param
    if not (checkpoint_files / name).exists():
        pytest.skip(f"no recorded file {name}")
    if recipe not in RECIPES or recipe not in NAME_TABLES:
        pytest.skip(f"recipe {recipe} is not built yet")
    return checkpoint_files / name, recipe, options


def test_every_number_comes_back(trained, tmp_path):
    """Under the original's names and shapes, as the float32 nearest to (equal to) what it was."""
    path, recipe, options = trained
    convert_checkpoint(path, tmp_path / "r", recipe, **options)
    write_back(tmp_path / "r", tmp_path / "o.safetensors", recipe)
    written = open_checkpoint(tmp_path / "o.safetensors").tensors
    original = openai_names(open_checkpoint(path)).tensors
    wanted = {name: t for name, t in original.items() if name.split(".")[-1] not in SCALARS}
    assert written.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert written[name].shape == tensor.shape, name
        expected = tensor.read().astype(np.float32)
        np.testing.assert_array_equal(written[name].read(), expected, err_msg=name)


def test_it_is_recognised_or_asked_about(trained, tmp_path):
    path, recipe, options = trained
    try:
        report = convert_checkpoint(path, tmp_path / "r", None, **options)
    except ValueError as error:
        assert f"--recipe={recipe}" in str(error)
        assert not (tmp_path / "r").exists()
        return
    # Files of BackBone_tvr are DRL's too, and score alike.
    assert report.config.recipe in ({recipe, "drl"} if recipe == "backbone_tvr" else {recipe})


CASES = [
    ("drl", "file_wti", "drl-wti.bin", ("interaction", "wti_arch", "agg_module")),
    ("backbone_tvr", "file_wti", "backbone_tvr.bin", ("agg_module",)),
    ("emcl", "file_emcl", "emcl.bin", ("agg_module",)),
    ("eercf", "file_eercf", "eercf-pytorch_model.bin.0", ("sim_header",)),
]


@pytest.mark.parametrize(("system", "case", "file", "told"), CASES)
def test_options_are_told_as_they_were(
    system, case, file, told, golden_dir, checkpoint_files, tmp_path
):
    recorded = [path for path in system_cases(golden_dir, system) if path.stem == case]
    if not recorded or not (checkpoint_files / file).is_file():
        pytest.skip(f"not both recorded: {system}/{case}, {checkpoint_files / file}")
    if system not in NAME_TABLES or system not in RECIPES:
        pytest.skip(f"recipe {system} is not built yet")
    config = json.loads(recorded[0].read_text())["config"]
    report = convert_checkpoint(checkpoint_files / file, tmp_path / "r", system)
    assert {name: report.config.option(name) for name in told} == {
        name: config[name] for name in told
    }
