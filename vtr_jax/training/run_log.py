"""What a run says while it runs: JSON lines always, TensorBoard on request."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtr_jax.cluster import is_first
from vtr_jax.files import naming, write_atomically

LOG_FILE = "metrics.jsonl"


def read_log(workdir: Path) -> list[dict[str, Any]]:
    """All records of a run in order; a torn last line, as a kill leaves one, is left out."""
    path = workdir / LOG_FILE
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


class RunLog:
    """Appends records to WORKDIR/metrics.jsonl.

    resumed_step: updates already done; records of later steps (of a run that was killed before
    it saved them) are dropped, so that the file reads as if nothing had happened. 0: all are.
    evaluated: whether the checkpoint of that step has its scores; where it has not, it will be
    evaluated again, and a record of that is dropped too.
    """

    def __init__(
        self, workdir: Path, resumed_step: int, tensorboard: bool, evaluated: bool = True
    ) -> None:
        old = read_log(workdir) if resumed_step else []
        kept = [record for record in old if record["step"] <= resumed_step]
        if not evaluated:
            kept = [record for record in kept if not _is_evaluation(record, resumed_step)]
        self._path = path = workdir / LOG_FILE
        write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        self._board = None
        if tensorboard:
            folder = str(workdir / "tensorboard")
            self._board = tensorboard_writer()(folder, purge_step=resumed_step + 1)
        self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One record: what it is about, updates done, named values (null if not finite).

        kind: "train", "speed" (since the record of speed before), "evaluation", "nonfinite"
            (an evaluation without scores), "protocol" or "refused". Raises OSError naming the file.
        """
        record = {"kind": kind, "step": step, **values}
        finite = {name: None if _is_not_finite(value) else value for name, value in record.items()}
        with naming(self._path):
            self._file.write(json.dumps(finite, allow_nan=False) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


class NoLog:
    """The log of a process that leaves writing to another."""

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def open_log(
    workdir: Path, resumed_step: int, tensorboard: bool, evaluated: bool = True
) -> RunLog | NoLog:
    """The log of this process: see RunLog."""
    return RunLog(workdir, resumed_step, tensorboard, evaluated) if is_first() else NoLog()


def _is_evaluation(record: Mapping[str, Any], step: int) -> bool:
    return record["kind"] in ("evaluation", "nonfinite") and record["step"] == step


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def tensorboard_writer() -> Any:
    """The class that writes for TensorBoard; ValueError naming the extra where it is missing."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "tensorboard=True needs tensorboardX: pip install 'vtr_jax[tensorboard]'"
        ) from error
    return SummaryWriter


def step_line(step: int, steps: int, epoch: int, values: Mapping[str, float]) -> str:
    """One line for a person: where the run is and how it does."""
    return (
        f"step {step}/{steps}  epoch {epoch}  loss {values['loss']:.4f}  "
        f"lr {values['learning_rate']:.2e} (clip {values['clip_learning_rate']:.2e})  "
        f"scale {values['logit_scale']:.1f}  {values['clips_per_second']:.1f} clips/s  "
        f"waiting {100 * values['waiting_share']:.0f}%"
    )
