"""Huge pages: asked for once, and only where the kernel gives them on request."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vtr_jax import huge_pages

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


def test_a_program_starts_again_once_as_the_same_process(setting):
    path = setting("always [madvise] never\n")
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), "a b", "--c"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first.split()[1:] == ["None", "['a", "b',", "'--c']"]
    assert second.split() == [first.split()[0], "glibc.malloc.hugetlb=1", "['a", "b',", "'--c']"]
