"""README: its commands are ones the programs take, its files exist, its Python runs."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from vtr_jax.cli import COMMANDS, main, parse_options
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.data.annotations import READERS
from vtr_jax.models.recipes import RECIPES
from vtr_jax.training.command import read_config

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def shell_lines() -> list[str]:
    """Every command of the shell blocks, continued lines joined, comments left out."""
    text = "".join(blocks("bash")).replace("\\\n", " ")
    lines = [part for line in text.splitlines() for part in line.split(" && ")]
    return [command for line in lines if (command := shlex.join(shlex.split(line, comments=True)))]


def vtr_commands() -> list[str]:
    """The vtr commands of the blocks and those within sentences."""
    inline = re.findall(r"`(vtr [a-z-]+ [^`]*=[^`]*)`", README)
    return [line for line in [*shell_lines(), *inline] if line.startswith("vtr ")]


class Parsed(Exception):
    """What a command's parser made of its arguments, before anything runs."""


@pytest.fixture
def parsed(monkeypatch):
    """Parses a command with its real parser; returns (known, rest)."""
    parse = argparse.ArgumentParser.parse_known_args

    def stop(self, args=None, namespace=None):
        known, rest = parse(self, args, namespace)
        raise Parsed(known, rest)

    def run(command: str):
        name, *arguments = shlex.split(command)[1:]
        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
            with pytest.raises(Parsed) as caught:
                COMMANDS[name](arguments)
        return name, *caught.value.args

    return run


def test_there_are_commands_to_check():
    names = {shlex.split(command)[1] for command in vtr_commands()}
    assert {"prepare", "train", "evaluate"} <= names <= set(COMMANDS)
    assert any(line.startswith("bash scripts/") for line in shell_lines())


@pytest.mark.parametrize("command", vtr_commands())
def test_every_command_is_one_that_vtr_takes(command, parsed, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    name, known, rest = parsed(command)
    if name == "train":
        read_config(known.config, rest)
    elif hasattr(known, "dataset"):
        reader = inspect.signature(READERS[known.dataset]).parameters
        assert parse_options(rest).keys() <= reader.keys()


@pytest.mark.parametrize("command", [c for c in shell_lines() if not c.startswith("vtr ")])
def test_other_commands_name_files_that_exist(command):
    program, *arguments = shlex.split(command)
    if program in ("bash", "python"):
        assert (REPOSITORY / arguments[0]).is_file()
    elif program == "pip":
        extras = [
            name for names in re.findall(r"\[([\w,]+)\]", command) for name in names.split(",")
        ]
        setup = (REPOSITORY / "setup.py").read_text()
        assert arguments[:2] == ["install", "-e"] and all(f'"{each}": ' in setup for each in extras)
    else:
        assert command in (". .venv/bin/activate", "python3 -m venv .venv")


def test_the_environment_is_active_before_vtr_is_used():
    lines = shell_lines()
    first = next(i for i, line in enumerate(lines) if line.startswith("vtr "))
    assert ". .venv/bin/activate" in lines[:first]


def test_files_and_scripts_that_sentences_name_exist():
    named = re.findall(r"`(?:bash|python) ([\w/.]+\.(?:sh|py))", README)
    linked = re.findall(r"\]\(((?!https?:)[^)]+)\)", README)
    assert named and linked
    assert not [name for name in [*named, *linked] if not (REPOSITORY / name).exists()]


def test_the_layout_names_every_room():
    layout = (REPOSITORY / "docs" / "layout.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (REPOSITORY / "vtr_jax").rglob("__init__.py")}
    rooms = packages - {"recipes", "interactions"}  # models/ says these
    tops = {"scripts", "benchmarks", "docs", "tests"}
    assert not [name for name in sorted(rooms | tops) if f"{name}/" not in layout]
    named = set(re.findall(r"(\w+\.py)", layout))
    modules = {path.name for path in (REPOSITORY / "vtr_jax").glob("*.py")} - {"__init__.py"}
    assert named == modules | {"convert_clip_weights.py"}


def test_the_table_of_recipes_says_what_there_is():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.* \| .*) \|$", README, re.MULTILINE))
    assert set(RECIPES) <= set(rows)
    for name, cells in rows.items():
        if "both ways" in cells:
            assert name in RECIPES and name in NAME_TABLES


def test_its_five_lines_run(shared_dir, tmp_path, monkeypatch, capsys):
    source = REPOSITORY / "tests/parity/golden/files/tiny-openai-clip.pt"
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(source), "clip-b32"]) == 0
    shutil.copy(shared_dir / "videos" / "video7500.mp4", "holiday.mp4")
    capsys.readouterr()
    (snippet,) = blocks("python")
    exec(compile(snippet, "README.md", "exec"), {})
    scores = np.array(re.findall(r"-?\d+\.\d+", capsys.readouterr().out), float)
    assert scores.shape == (2,) and np.isfinite(scores).all()


def test_the_parity_column_is_filled_from_measurements():
    source = REPOSITORY / "benchmarks" / "parity_table.py"
    spec = importlib.util.spec_from_file_location("parity_table", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.filled(README, {"clip": {"feature": 0.5, "logits": 0.25}, "unheard": {}})
    before, after = README.splitlines(), text.splitlines()
    (changed,) = (i for i, line in enumerate(after) if line != before[i])
    assert after[changed].startswith("| `clip` |")
    assert after[changed].endswith("| features 0.50, logits 0.25 |")
    with pytest.raises(ValueError, match="one table of recipes"):
        module.filled("no table", {})
