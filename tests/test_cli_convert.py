"""`vtr convert` and convert_clip_weights.py: exit codes, the report, one clear last line."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import vtr_jax
from vtr_jax.cli import main, parse_options
from vtr_jax.convert.loading import LoadingOptions
from vtr_jax.convert.sizes import TOWER_OPTIONS
from vtr_jax.models.recipes import RECIPES

SCRIPT = Path(__file__).resolve().parents[1] / "convert_clip_weights.py"
HEADS = ["--vision_heads=2", "--text_heads=2"]


def test_convert_writes_a_retriever_and_reports(checkpoint_file, tmp_path, capsys, tiny_retriever):
    out = tmp_path / "out"
    assert main(["convert", str(checkpoint_file), str(out), *HEADS]) == 0
    report = capsys.readouterr().out
    assert "tiny-clip.safetensors: safetensors" in report
    assert "assumed  activation quick_gelu" in report
    assert report.splitlines()[-1] == f"wrote    {out}"
    loaded = vtr_jax.load_retriever(out)
    assert loaded.config == tiny_retriever("clip").config


def test_options_are_spelt_as_the_originals_flags(checkpoint_file, tmp_path, capsys):
    arguments = ["--recipe=clip4clip", "--sim_header=seqTransf", "--linear_patch=3d", "--seed=3"]
    assert main(["convert", str(checkpoint_file), str(tmp_path / "out"), *arguments, *HEADS]) == 0
    config = vtr_jax.load_retriever(tmp_path / "out").config
    assert config.option("sim_header") == "seqTransf"
    assert config.clip.vision.linear_patch == "3d"
    assert "drawn from seed 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.pt", "OUT"], "nowhere.pt: no such file"),
        (["FILE", "FULL"], "exists already; choose another directory"),
        (["FILE", "OUT", "--sim_header=meanP"], "recipe clip has no option 'sim_header'"),
        (["FILE", "OUT", "--text_head=2"], "did you mean text_heads?"),
        (["FILE", "OUT", "--text_heads=two"], "text_heads: 'two' heads do not divide"),
        (["FILE", "OUT", "--verbose"], "argument '--verbose': expected --name=value"),
        (["FILE", "OUT", "more"], "argument 'more': expected --name=value"),
        (["FULL", "OUT"], "expected one of model.safetensors"),
        (["FILE", "OUT", "--step=3"], "--step says which checkpoint to write back"),
        (["FULL", "OUT.safetensors", "--to=clip"], "not a retriever directory"),
        (["FULL", "OUT.safetensors", "--to=clip", "--seed=1", "--a=2"], "--seed, --a: not with"),
        (["FULL", "OUT", "--to=clip"], "expected a file name that ends in .safetensors"),
    ],
)
def test_errors_are_one_clear_last_line(arguments, words, checkpoint_file, tmp_path, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    places = {"FILE": str(checkpoint_file), "OUT": str(tmp_path / "out"), "FULL": str(full)}
    places["OUT.safetensors"] = str(tmp_path / "out.safetensors")
    assert main(["convert", *(places.get(word, word) for word in arguments)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("vtr convert: ")
    assert words in captured.err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: source, directory"),
        (["a.pt", "out", "--recipe=clap"], "invalid choice: 'clap'"),
        (["a.pt", "out", "--seed=x"], "invalid int value: 'x'"),
    ],
)
def test_usage_errors_exit_with_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["convert", *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_help_names_every_recipe(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["convert", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for name, recipe in RECIPES.items():
        assert f"  {name}: " in shown if recipe.options else name in shown
        assert all(option in shown for option in recipe.options)
    assert all(f"--{option}=" in shown for option in TOWER_OPTIONS)
    assert all(f"--{field.name}=" in shown for field in dataclasses.fields(LoadingOptions))
    for layout in ("TorchScript", "torch.save", "safetensors", "Hugging Face", "open_clip"):
        assert layout in shown


def test_there_and_back_again(checkpoint_file, tmp_path, capsys):
    out, back = tmp_path / "out", tmp_path / "back.safetensors"
    assert main(["convert", str(checkpoint_file), str(out), *HEADS]) == 0
    assert "note     recognised as clip: CLIP's own names" in capsys.readouterr().out
    assert main(["convert", "--to=clip", str(out), str(back)]) == 0
    lines = capsys.readouterr().out.splitlines()
    original, written = load_file(checkpoint_file), load_file(back)
    *warnings, last = lines
    assert last == f"wrote    {back}: {len(original)} tensors under the names of clip"
    # openai/CLIP has heads of width 64 in its code.
    assert [line.partition("_heads=2")[1] for line in warnings] == ["_heads=2"] * 2
    assert original.keys() == written.keys()
    for name, array in original.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)


def test_options_are_read_as_what_they_look_like():
    arguments = ["--a=3", "--b=2d", "--c=True", "--d=None", "--e=1e-6", "--f=x=y", "--g="]
    expected = {"a": 3, "b": "2d", "c": True, "d": None, "e": 1e-6, "f": "x=y", "g": ""}
    assert parse_options(arguments) == expected


def test_the_script_without_jax_says_what_to_install(checkpoint_file, tmp_path):
    """As with the system's Python: -S hides every installed package."""
    command = [sys.executable, "-S", SCRIPT, checkpoint_file, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{sys.executable} has no numpy, jax, flax, orbax, safetensors; install")
    assert f"{sys.executable} -m pip install {SCRIPT.parent}" in line


def test_the_script_is_the_same_command(checkpoint_file, tmp_path, tiny_retriever):
    command = [sys.executable, SCRIPT, checkpoint_file, tmp_path / "out", *HEADS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == f"wrote    {tmp_path / 'out'}"
    assert done.stderr == ""
    loaded = vtr_jax.load_retriever(tmp_path / "out")
    projection = tiny_retriever("clip").params["text"]["projection"]
    np.testing.assert_array_equal(loaded.params["text"]["projection"], projection)
