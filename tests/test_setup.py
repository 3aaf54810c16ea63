"""setup.py: upper bounds on every dependency, the same Python versions as in README and scripts."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def setup_arguments():
    caught = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: caught.update(arguments))
        patch.chdir(REPOSITORY)
        runpy.run_path(str(REPOSITORY / "setup.py"))
    return caught


@pytest.fixture(scope="module")
def requirements(setup_arguments):
    extras = setup_arguments["extras_require"].values()
    lines = [*setup_arguments["install_requires"], *(line for extra in extras for line in extra)]
    assert len(lines) > 20
    return [Requirement(line) for line in lines]


def test_every_dependency_has_an_upper_bound(requirements):
    bounded = {"<", "<=", "==", "~="}
    assert not [r for r in requirements if not bounded & {s.operator for s in r.specifier}]


def test_the_supported_pythons_are_the_same_everywhere(setup_arguments):
    supported = SpecifierSet(setup_arguments["python_requires"])
    assert [v for v in (f"3.{minor}" for minor in range(8, 20)) if v in supported] == list(PYTHONS)
    for name in ("README.md", "scripts/environment.sh"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        assert re.search(r"Python 3\.11, 3\.12 or 3\.13", text), name
    matrix = (REPOSITORY / "scripts/test_matrix.sh").read_text(encoding="utf-8")
    assert f"set -- {' '.join(PYTHONS)}" in matrix


def test_the_extras(setup_arguments):
    extras = setup_arguments["extras_require"]
    assert {"data", "test", "cuda12", "cuda13", "tpu", "compile", "beam"} <= set(extras)
    names = {Requirement(line).name for line in setup_arguments["install_requires"]}
    assert not {name for name in names if name.startswith("tensorflow")}
    assert set(extras["data"]) <= set(extras["test"]) and set(extras["data"]) <= set(extras["beam"])
