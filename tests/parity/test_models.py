"""Every recorded case of a system: features, logits, losses and gradients of the original.

VTR_GOLDEN_DIR names another folder of cases; systems that are not built yet skip by name.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vtr_jax.checkpoint import load_retriever
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.parity.cases import case_file, find_cases, load_case
from vtr_jax.parity.compare import compare_case
from vtr_jax.parity.kinds import kind_of
from vtr_jax.parity.systems import SYSTEMS

DEFAULT = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("VTR_GOLDEN_DIR", DEFAULT))
ALL_CASES = {path: kind_of(path) for path in find_cases(FOLDER)}
# Every other kind is compared by the file of tests that is about it.
CASES = [path for path, kind in ALL_CASES.items() if kind in ("model", "file")]
NOT_BUILT = [path for path, kind in ALL_CASES.items() if kind.startswith("not built")]


def name_of(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


def fail_if_any(deviations) -> None:
    failed = [d for d in deviations if not d.holds]
    lines = [f"{d.name}: {d.deviation:.3g}, allowed {d.tolerance:.3g} ({d.kind})" for d in failed]
    assert not failed, f"{len(failed)} of {len(deviations)} differ:\n" + "\n".join(lines[:20])


def test_something_is_compared():
    assert CASES, f"no recorded case of a system below {FOLDER}"


@pytest.mark.parametrize("path", NOT_BUILT, ids=name_of)
def test_systems_to_come(path):
    pytest.skip(ALL_CASES[path])


@pytest.mark.parametrize("path", CASES, ids=name_of)
def test_case(path, tmp_path):
    if ALL_CASES[path] == "file":
        compare_file(path, tmp_path)
    else:
        fail_if_any(compare_case(load_case(path)))


def compare_file(path: Path, tmp_path: Path) -> None:
    """The case's checkpoint file, converted, loaded again and run."""
    case = load_case(path)
    source = case_file(path, json.loads(path.read_text()))
    if not source.exists():
        pytest.skip(f"{source.name} is not in this folder")
    options = SYSTEMS[case.system].options(case.config)
    convert_checkpoint(source, tmp_path / "retriever", case.system, **options)
    retriever = load_retriever(tmp_path / "retriever")
    if not case.path.with_suffix(".npz").is_file() or "token_ids" not in case.arrays():
        pytest.skip("its tensors are compared where files are read; it recorded no outputs")
    fail_if_any(compare_case(case, retriever))
