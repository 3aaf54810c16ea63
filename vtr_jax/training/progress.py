"""What the steps of a run report: read behind them, judged, and written to the log."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import jax
import jax.numpy as jnp
from tqdm import tqdm

from vtr_jax.cluster import is_first
from vtr_jax.training.run import Run
from vtr_jax.training.run_log import NoLog, RunLog

# Steps that may be computed while the host goes on: each of them holds a batch in device memory.
MAX_STEPS_AHEAD = 2
MUST_BE_FINITE = ("loss", "gradient_norm", "parameter_norm")
# A run that refuses so many updates one after the other will not recover.
MAX_REFUSED_IN_A_ROW = 20


class DivergedError(ArithmeticError):
    """Loss, gradients or parameters are no longer finite numbers, or far above the usual."""


@dataclasses.dataclass
class Progress:
    """Metrics of steps that were started but not yet looked at, and where time went."""

    run: Run
    log: RunLog | NoLog
    good_step: int | None = None
    pending: collections.deque = dataclasses.field(default_factory=collections.deque)
    window_start: float = dataclasses.field(default_factory=time.perf_counter)
    waiting: float = 0.0
    steps: int = 0
    refused_in_a_row: int = 0

    def add(self, step: int, metrics: Any, waited: float) -> None:
        """Take the metrics of a step that was just started; waits for one that is far behind."""
        if len(self.pending) >= MAX_STEPS_AHEAD:
            jax.block_until_ready(self.pending[-MAX_STEPS_AHEAD])
        self.pending.append((step, metrics))
        self.waiting += waited
        self.steps += 1

    def flush(self) -> dict[str, float]:
        """Read all pending metrics in order; raises DivergedError at the first bad one."""
        latest: dict[str, float] = {}
        while self.pending:
            step, metrics = self.pending.popleft()
            latest = {name: float(value) for name, value in jax.device_get(metrics).items()}
            self._judge(step, latest)
            self.log.write("train", step, {**latest, **self._rates(step, latest)})
        return latest

    def _judge(self, step: int, metrics: Mapping[str, float]) -> None:
        refused = bool(metrics.get("refused"))
        finite = all(math.isfinite(metrics[name]) for name in MUST_BE_FINITE)
        if finite and not refused:
            self.refused_in_a_row = 0
            return
        self.refused_in_a_row += 1
        clips = self.run.clips_of_step(step)
        found = _found(step, metrics, self.run.config.spike_factor)
        self.log.write("refused", step, {"found": found, "clips": clips})
        # A refused step leaves the parameters as they are: skipping does not mend them.
        mendable = refused and math.isfinite(metrics["parameter_norm"])
        skips = mendable and self.run.config.on_nonfinite == "skip"
        if not skips or self.refused_in_a_row > MAX_REFUSED_IN_A_ROW:
            raise DivergedError(self._diverged(found, metrics))
        in_all = int(metrics["refused_in_all"])
        say(f"{found}: not applied, {in_all} in all; clips {', '.join(clips[:5])}, ...")

    def _diverged(self, found: str, metrics: Mapping[str, float]) -> str:
        saved = self.good_step
        kept = f"the checkpoint of step {saved} is kept" if saved else "none was saved before"
        row = self.refused_in_a_row
        times = f" ({row} such steps in a row)" if row > 1 else ""
        advice = self._advice(metrics)
        return f"{found}{times}; {kept}. {advice}; metrics.jsonl names the clips of the step"

    def _advice(self, metrics: Mapping[str, float]) -> str:
        # In the same workdir only what a run may change when it is resumed is of use.
        mendable = math.isfinite(metrics["parameter_norm"])
        ways = []
        if not mendable and self.good_step:
            ways.append("repeat the command, to go on from the last good checkpoint")
        if mendable and self.run.config.on_nonfinite != "skip":
            ways.append("go on in this --workdir with --config.on_nonfinite=skip")
        if mendable and _is_spike(metrics):
            ways.append("raise --config.spike_factor, in this --workdir too")
        source = f", e.g. with --config.init={self.run.workdir}" if self.good_step else ""
        ways.append(f"start a new --workdir{source} and a lower optimizer.learning_rate")
        why = "" if mendable else "the parameters are not finite, which skipping cannot mend: "
        advice = why + ", or ".join(ways)
        return advice[0].upper() + advice[1:]

    def _rates(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        # The schedule counts the updates that were applied.
        refused = metrics.get("refused_in_all", 0) - metrics.get("refused", 0)
        factor = float(self.run.schedule(jnp.asarray(step - 1 - int(refused))))
        rate = self.run.config.optimizer.learning_rate * factor
        return {
            "learning_rate": rate,
            "clip_learning_rate": rate * self.run.config.optimizer.coef_lr,
        }

    def window(self, step: int, latest: dict[str, float]) -> dict[str, float]:
        """The latest metrics with speed and waiting share since the last call.

        The latter two are logged as records of their own: those of training are the same in every
        run with the same settings, bit by bit.
        """
        now = time.perf_counter()
        seconds = max(now - self.window_start, 1e-9)
        speed = {
            "clips_per_second": self.steps * self.run.config.batch_size / seconds,
            "waiting_share": self.waiting / seconds,
        }
        self.log.write("speed", step, speed)
        self.window_start, self.waiting, self.steps = now, 0.0, 0
        return {**latest, **self._rates(step, latest), **speed}

    def begin_window(self) -> None:
        """Speed is measured from here on."""
        self.window_start, self.waiting, self.steps = time.perf_counter(), 0.0, 0

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Says that the step is compiled inside, and how long that took; it is not training.

        Nothing is to be run inside: a device may be waited for there, for a whole step.
        """
        say("compiling the train step ...")
        began = time.perf_counter()
        with self.pause():
            yield
            self.run.schedule(jnp.asarray(0))  # compiled, too, when it is first asked
        say(f"compiled the train step in {time.perf_counter() - began:.1f} s")

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """What happens inside does not count in the speed of training."""
        began = time.perf_counter()
        yield
        self.window_start += time.perf_counter() - began


def say(text: str, stream: TextIO | None = None) -> None:
    """A line above the progress bar, at once also where the output is a file; one process's.

    stream: where to, standard output if None. Where it cannot be written any more (its reader is
    gone, its disk is full), the run goes on without it: what matters is in its log, too.
    """
    if not is_first():
        return
    try:
        with tqdm.external_write_mode():
            print(text, flush=True, file=stream)
    except OSError as error:
        _go_on_without(stream or sys.stdout, error)


def _go_on_without(stream: TextIO, error: OSError) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
    name = "error" if stream is sys.stderr else "output"
    with contextlib.suppress(OSError):
        print(f"standard {name}: {error}; the run goes on without it", file=sys.stderr, flush=True)


def _is_spike(metrics: Mapping[str, float]) -> bool:
    # An infinite norm is above every limit, and no limit lets it through.
    return bool(metrics.get("spike")) and math.isfinite(metrics["gradient_norm"])


def _found(step: int, metrics: Mapping[str, float], spike_factor: float) -> str:
    if _is_spike(metrics):
        return (
            f"step {step}: gradient_norm {metrics['gradient_norm']:.4g} is more than spike_factor "
            f"{spike_factor:g} times the running median"
        )
    return f"step {step}: " + ", ".join(f"{name} {metrics[name]}" for name in MUST_BE_FINITE)
