"""Huge pages: asked for once, and only where the kernel gives them on request."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vtr_jax import cli, huge_pages

# A program that says which process it is and how often it has begun.
PROGRAM = """
import os, sys
from vtr_jax import huge_pages
from pathlib import Path
huge_pages.SETTING = Path(sys.argv[1])
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[2:], flush=True)
huge_pages.start_again_with_huge_pages()
"""


@pytest.fixture
def setting(tmp_path, monkeypatch):
    """Makes the kernel's setting what a test wants it to be."""

    def make(text):
        path = tmp_path / "enabled"
        path.write_text(text)
        monkeypatch.setattr(huge_pages, "SETTING", path)
        return path

    return make


def test_asked_for_where_the_kernel_gives_them_on_request(setting):
    setting("always [madvise] never\n")
    assert huge_pages.with_huge_pages(None) == "glibc.malloc.hugetlb=1"
    assert huge_pages.with_huge_pages("glibc.malloc.check=0") == (
        "glibc.malloc.check=0:glibc.malloc.hugetlb=1"
    )


@pytest.mark.parametrize("text", ["[always] madvise never\n", "always madvise [never]\n"])
def test_left_alone_where_asking_changes_nothing(setting, text):
    setting(text)
    assert huge_pages.with_huge_pages(None) is None


def test_left_alone_where_the_user_has_decided(setting):
    setting("always [madvise] never\n")
    assert huge_pages.with_huge_pages("glibc.malloc.hugetlb=0") is None


def test_left_alone_where_the_kernel_has_no_such_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(huge_pages, "SETTING", tmp_path / "absent")
    assert huge_pages.with_huge_pages(None) is None


@pytest.fixture
def lives(setting):
    """Runs PROGRAM, with some code before it; what it said in each of its lives."""
    path = setting("always [madvise] never\n")

    def run(code=""):
        done = subprocess.run(
            [sys.executable, "-c", code + PROGRAM, str(path), "a b", "--c"],
            capture_output=True,
            text=True,
            env={k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"},
            check=True,
            timeout=60,
        )
        return [line.split() for line in done.stdout.splitlines()]

    return run


def test_a_program_starts_again_once_as_the_same_process(lives):
    first, second = lives()
    assert first[1:] == ["None", "['a", "b',", "'--c']"]
    assert second == [first[0], "glibc.malloc.hugetlb=1", "['a", "b',", "'--c']"]


def test_a_program_that_is_not_told_its_tunables_starts_again_once(lives):
    """As where a wrapper around Python cleans the environment."""
    first, second = lives("import os; os.environ.pop('GLIBC_TUNABLES', None)")
    assert first == second and first[1] == "None"


def test_a_program_that_cannot_be_started_again_goes_on_as_it_is(setting, monkeypatch):
    def fails(*_):
        raise OSError("Argument list too long")

    setting("always [madvise] never\n")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    monkeypatch.setattr(os, "execve", fails)
    before = dict(os.environ)
    huge_pages.start_again_with_huge_pages()
    assert dict(os.environ) == before


@pytest.mark.parametrize("name", [*cli.COMMANDS, "--version"])
def test_the_command_line_starts_again_to_train_alone(name, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(cli, "start_again_with_huge_pages", lambda: started.append(name))
    for command in cli.COMMANDS:
        monkeypatch.setitem(cli.COMMANDS, command, lambda arguments: None)
    monkeypatch.setattr(sys, "argv", ["vtr", name])
    assert cli.main() == 0
    assert started == (["train"] if name == "train" else [])
    # Who calls it as a function is not replaced by another program.
    assert cli.main([name]) == 0
    assert started == (["train"] if name == "train" else [])
