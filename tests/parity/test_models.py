"""Every recorded case of a system: features, logits, losses and gradients of the original.

VTR_GOLDEN_DIR names another folder of cases.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from vtr_jax.checkpoint import load_retriever
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.from_state_dict import to_state_dict
from vtr_jax.parity.cases import case_file, find_cases, load_case
from vtr_jax.parity.compare import compare_case
from vtr_jax.parity.kinds import kind_of
from vtr_jax.parity.systems import SYSTEMS

DEFAULT = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("VTR_GOLDEN_DIR", DEFAULT))
ALL_CASES = {path: kind_of(path) for path in find_cases(FOLDER)}
# Every other kind is compared by the file of tests that is about it.
CASES = [path for path, kind in ALL_CASES.items() if kind in ("model", "file")]
# What OpenAI's files hold beside weights.
SCALARS = ("input_resolution", "context_length", "vocab_size")


def name_of(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


def fail_if_any(deviations) -> None:
    failed = [d for d in deviations if not d.holds]
    lines = [f"{d.name}: {d.deviation:.3g}, allowed {d.tolerance:.3g} ({d.kind})" for d in failed]
    assert not failed, f"{len(failed)} of {len(deviations)} differ:\n" + "\n".join(lines[:20])


def test_something_is_compared():
    assert CASES, f"no recorded case of a system below {FOLDER}"


def test_every_system_is_built():
    missing = {path: kind for path, kind in ALL_CASES.items() if kind.startswith("not built")}
    assert not missing


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
    retriever, arrays = load_retriever(tmp_path / "retriever"), recorded_arrays(case)
    tensors = {} if source.is_dir() else tensors_of(arrays)  # another layout has other names
    assert tensors or "token_ids" in arrays, f"{path}: recorded neither tensors nor outputs"
    compare_tensors(to_state_dict(retriever), tensors)
    if "token_ids" in arrays:
        fail_if_any(compare_case(case, retriever))


def recorded_arrays(case) -> dict:
    return case.arrays() if case.path.with_suffix(".npz").is_file() else {}


def tensors_of(arrays) -> dict:
    """(first values, sum) of every tensor that the file holds, by its name in the model."""
    stored = {
        name.removeprefix("head/"): (head, float(arrays[name.replace("head/", "sum/", 1)]))
        for name, head in arrays.items()
        if name.startswith("head/")
    }
    named = {name.removeprefix("module."): values for name, values in stored.items()}
    return {name: values for name, values in named.items() if name.split(".")[-1] not in SCALARS}


def compare_tensors(ours, tensors) -> None:
    """Every recorded tensor is there, and equal as far as it was recorded."""
    assert not tensors or ours.keys() == tensors.keys()
    for name, (head, total) in tensors.items():
        array = ours[name].astype(np.float64)
        np.testing.assert_array_equal(array.ravel()[: len(head)], head, err_msg=name)
        # Sums of float64 in any order.
        scale = np.abs(array).sum()
        np.testing.assert_allclose(array.sum(), total, rtol=0, atol=1e-12 * scale, err_msg=name)


def test_a_tensor_that_differs_is_found():
    tensors = tensors_of({"head/module.a": np.arange(2.0), "sum/module.a": np.array(6.0)})
    compare_tensors({"a": np.float32([0, 1, 2, 3])}, tensors)
    for wrong in ({"a": np.float32([0, 1, 2, 4])}, {"a": np.float32([0, 2, 2, 2])}, {}):
        with pytest.raises(AssertionError):
            compare_tensors(wrong, tensors)
