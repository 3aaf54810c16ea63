"""Every recorded case of a system: features, logits, losses and gradients of the original.

VTR_GOLDEN_DIR names another folder of cases; systems that are not built yet skip by name.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vtr_jax.checkpoint import load_retriever
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.parity.cases import find_cases, kind_of, load_case
from vtr_jax.parity.compare import compare_case

DEFAULT = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("VTR_GOLDEN_DIR", DEFAULT))
ALL_CASES = {path: kind_of(path) for path in find_cases(FOLDER)}
HANDLED_ELSEWHERE = (
    "optimizer",
    "freeze",
    "initialisation",
    "evaluation",
    "data",
    "tensor-file",
    "information",
)
CASES = [path for path, kind in ALL_CASES.items() if kind not in HANDLED_ELSEWHERE]


def name_of(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


def fail_if_any(deviations) -> None:
    failed = [d for d in deviations if not d.holds]
    lines = [f"{d.name}: {d.deviation:.3g}, allowed {d.tolerance:.3g} ({d.kind})" for d in failed]
    assert not failed, f"{len(failed)} of {len(deviations)} differ:\n" + "\n".join(lines[:20])


def test_there_are_cases():
    assert ALL_CASES, f"no recorded case below {FOLDER}"


@pytest.mark.parametrize("path", CASES, ids=name_of)
def test_case(path, tmp_path):
    kind = ALL_CASES[path]
    if kind.startswith("not built"):
        pytest.skip(kind)
    if kind == "file":
        compare_file(path, tmp_path)
    else:
        fail_if_any(compare_case(load_case(path)))


def compare_file(path: Path, tmp_path: Path) -> None:
    """The case's checkpoint file, converted, loaded again and run."""
    case = load_case(path)
    file = path.parent / case.record["file"].split(" ")[0]
    source = file.parent if file.name == "model.safetensors" else file
    if not source.exists():
        pytest.skip(f"{source.name} is not in this folder")
    convert_checkpoint(source, tmp_path / "retriever", case.system)
    retriever = load_retriever(tmp_path / "retriever")
    arrays = case.arrays()
    if "token_ids" not in arrays:
        pytest.skip("its tensors are compared where files are read; it recorded no outputs")
    fail_if_any(compare_case(case, retriever))
