"""What `vtr parity` prints: how far a retriever is from recorded numbers, array by array."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax

from vtr_jax.checkpoint import load_retriever
from vtr_jax.files import write_atomically
from vtr_jax.parity.cases import Case, load_case
from vtr_jax.parity.compare import Deviation, compare_case
from vtr_jax.parity.kinds import kind_of

COMPARED_KINDS = ("model", "file")
GRADIENTS_SHOWN = 5


def read_case(path: str) -> Case:
    """The recorded case in a JSON file with its npz beside it.

    Raises FileNotFoundError if one of them is missing, ValueError for a file that records no
    features of a retriever.
    """
    file = Path(path)
    for needed in (file, file.with_suffix(".npz")):
        if not needed.is_file():
            raise FileNotFoundError(
                f"{needed}: no such file; a recorded case is CASE.json (configuration) and "
                "CASE.npz (arrays) in one folder"
            )
    kind = kind_of(file)
    if kind not in COMPARED_KINDS:
        raise ValueError(f"{path}: records no features of a retriever (kind {kind!r})")
    return load_case(file)


def compare_checkpoint(checkpoint: str, case: Case) -> list[Deviation]:
    """How far the retriever in a directory is from a case, in float32 at full precision.

    Raises ValueError if it follows another recipe than the case was recorded with.
    """
    with jax.default_matmul_precision("highest"):
        retriever = load_retriever(checkpoint, compute_dtype="float32")
        if retriever.config.recipe != case.system:
            raise ValueError(
                f"{checkpoint}: a retriever of recipe {retriever.config.recipe}, but {case.name} "
                f"was recorded with {case.system}"
            )
        return compare_case(case, retriever)


def format_deviations(deviations: Sequence[Deviation]) -> str:
    """A table of every array, gradients summed up to the worst few, and the verdict."""
    gradients = [d for d in deviations if d.name.startswith(("gradnorm/", "gradhead/"))]
    outputs = [d for d in deviations if d not in gradients]
    worst = sorted(gradients, key=lambda d: -_share(d))
    shown = [*outputs, *worst[:GRADIENTS_SHOWN]]
    width = max(len(d.name) for d in shown)
    head = f"{'array':{width}}  {'kind':14}{'deviation':>11}{'allowed':>11}"
    lines = [head, "-" * len(head)]
    for each in shown:
        mark = "" if each.holds else "  DIFFERS"
        lines.append(
            f"{each.name:{width}}  {each.kind:14}{each.deviation:11.2e}{each.tolerance:11.0e}{mark}"
        )
    if len(gradients) > GRADIENTS_SHOWN:
        lines.append(f"... and {len(gradients) - GRADIENTS_SHOWN} more of gradients, all nearer")
    failed = sum(not d.holds for d in deviations)
    verdict = "all hold" if not failed else f"{failed} DIFFER"
    return "\n".join([*lines, f"{len(deviations)} comparisons: {verdict}"])


def _share(each: Deviation) -> float:
    return each.deviation / each.tolerance


def run_parity(checkpoint: str, case: str, output: str | None = None) -> tuple[str, bool]:
    """(table, whether everything holds) of a retriever directory against a recorded case.

    output: a JSON file to write the deviations to. Raises as read_case and compare_checkpoint.
    """
    deviations = compare_checkpoint(checkpoint, read_case(case))
    if output:
        rows = [{**dataclasses.asdict(d), "holds": d.holds} for d in deviations]
        write_atomically(Path(output), json.dumps(rows, indent=1).encode())
    return format_deviations(deviations), all(d.holds for d in deviations)
