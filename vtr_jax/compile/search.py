"""Trying meshes, rematerialisation and micro-batches: which way of training a config is best."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict

from vtr_jax.compile.analysis import DoesNotFit, StepReport, compile_step
from vtr_jax.compile.text import gigabytes
from vtr_jax.sharding import AXES, check_batch_divides

# Shares of the batch whose activations are in memory at once; the last one only on a mesh where
# nothing else fits, and rematerialised, because each compilation takes a minute or more.
MICRO_BATCHES = (1, 4)
LAST_MICRO_BATCHES = 16

VERDICTS = ("fits", "may fit", "does not fit")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One way to train a config: the mesh's fsdp and tensor axes, and what is recomputed.

    micro_batch_size: 0 for the whole batch at once.
    """

    fsdp: int
    tensor: int
    remat: bool
    micro_batch_size: int

    @property
    def mesh(self) -> tuple[int, int]:
        """The sizes of the axes fsdp and tensor."""
        return self.fsdp, self.tensor

    def applied(self, config: ConfigDict) -> ConfigDict:
        """A copy of a config that trains this way."""
        changed = config.copy_and_resolve_references()
        changed.mesh.update({"data": -1, "fsdp": self.fsdp, "tensor": self.tensor})
        changed.remat = self.remat
        if "micro_batch_size" in changed:
            changed.micro_batch_size = self.micro_batch_size
        return changed


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a trial: a report, or why there is none."""

    trial: Trial
    report: StepReport | None
    reason: str = ""

    @property
    def fits(self) -> bool:
        """Whether the step was compiled and has the memory."""
        return self.report is not None and self.report.fits

    @property
    def order(self) -> tuple[int, float, float]:
        """Sorts by verdict, what the compiler refused last, then by step, then by memory."""
        if self.report is None:
            return (len(VERDICTS), 0.0, 0.0)
        line = self.report.roofline
        verdict = VERDICTS.index(self.report.verdict)
        return (verdict, line.step if line else 0.0, float(self.report.memory.peak))


def trials(config: ConfigDict, devices: int) -> Iterator[Trial]:
    """The ways worth trying: parameters whole, split over a few devices, or over all.

    Mesh by mesh, the smallest micro-batches of each last.
    """
    at_once = config.batch_size // config.gradient_accumulation_steps
    for fsdp, tensor in _meshes(devices):
        for share in _shares(config):
            size = at_once // share
            if at_once % share or size % (devices // tensor):
                continue
            for remat in (True,) if share == LAST_MICRO_BATCHES else (False, True):
                yield Trial(fsdp, tensor, remat, 0 if share == 1 else size)


def _meshes(devices: int) -> list[tuple[int, int]]:
    few = next((size for size in (8, 4, 2) if devices % size == 0 and size < devices), None)
    return list(dict.fromkeys([(1, 1), (devices, 1), *([(few, 1), (1, 2)] if few else [])]))


def _check_batch(config: ConfigDict, devices: int) -> None:
    # The mesh with the most for tensor cuts the batch into the fewest parts.
    tensor = max(tensor for _, tensor in _meshes(devices))
    mesh = AbstractMesh((devices // tensor, 1, tensor), AXES)
    try:
        check_batch_divides(config.batch_size, mesh, config.gradient_accumulation_steps)
    except ValueError as error:
        raise ValueError(
            f"--search: no mesh that it tries of {devices} devices divides the batch; even with "
            f"tensor={tensor} {error}"
        ) from error


def _shares(config: ConfigDict) -> tuple[int, ...]:
    # Accumulated gradients and cached ones exclude each other.
    alone = "micro_batch_size" not in config or config.gradient_accumulation_steps > 1
    return (1,) if alone else (*MICRO_BATCHES, LAST_MICRO_BATCHES)


def _needless(trial: Trial, config: ConfigDict, outcomes: Sequence[Outcome]) -> bool:
    """Whether a trial is the last resort of a mesh on which something fits already."""
    return trial.micro_batch_size * LAST_MICRO_BATCHES == config.batch_size and any(
        outcome.fits and outcome.trial.mesh == trial.mesh for outcome in outcomes
    )


def search(
    config: ConfigDict,
    devices: Sequence[jax.Device],
    report_of: Callable[[ConfigDict, Sequence[jax.Device]], StepReport] = compile_step,
    tell: Callable[[str], None] = print,
) -> list[Outcome]:
    """Every trial's outcome, best first; tell is given a line as each is compiled.

    Raises ValueError where no mesh of these devices divides the batch.
    """
    if not any(trials(config, len(devices))):
        _check_batch(config, len(devices))
    outcomes: list[Outcome] = []
    for trial in trials(config, len(devices)):
        if _needless(trial, config, outcomes):
            continue
        try:
            outcome = Outcome(trial, report_of(trial.applied(config), devices))
        except DoesNotFit as error:
            outcome = Outcome(trial, None, str(error))
        tell(f"compiled {outcome_line(outcome)}")
        outcomes.append(outcome)
    return sorted(outcomes, key=lambda outcome: outcome.order)


TRIED = "tried: mesh, remat and micro_batch_size, in place of what the config says of them"
LEGEND = "times in ms, at least; micro 0: the whole batch at once"
HEADER = (
    f"{'fsdp':>5} {'tensor':>6} {'remat':>5} {'micro':>6} {'peak':>11} {'compute':>9} "
    f"{'HBM':>9} {'links':>9} {'step':>9} {'MFU':>4}"
)


def search_table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes in their order as a table; what does not fit is marked."""
    rows = [f"  {outcome_line(outcome)}" for outcome in outcomes]
    reports = [outcome.report for outcome in outcomes if outcome.report]
    warnings = dict.fromkeys(each for report in reports for each in report.warnings)
    return "\n".join([TRIED, f"  {HEADER}", *rows, LEGEND, *warnings])


def outcome_line(outcome: Outcome) -> str:
    """One row of the table."""
    trial, report = outcome.trial, outcome.report
    way = (
        f"{trial.fsdp:>5} {trial.tensor:>6} {'on' if trial.remat else 'off':>5} "
        f"{trial.micro_batch_size:>6}"
    )
    if report is None:
        return f"{way} DOES NOT FIT: {outcome.reason}"
    line = report.roofline
    seconds = (line.compute, line.memory, line.interconnect, line.step) if line else ()
    times = " ".join(f"{1e3 * each:9.2f}" for each in seconds)
    mfu = f"{100 * line.mfu:3.0f}%" if line else "no roofline"
    return f"{way} {gigabytes(report.memory.peak)} {times} {mfu}" + (
        "" if outcome.fits else f"  {report.verdict.upper()}"
    )
