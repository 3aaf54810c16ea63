"""A training run from config to checkpoints; the same command again resumes it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from tqdm import tqdm

from vtr_jax.sharding import put_batch
from vtr_jax.training.run import Run
from vtr_jax.training.run_log import RunLog, step_line
from vtr_jax.training.step import BATCH_KEYS, TrainState, compile_train_step

# Steps that may be computed while the host goes on: each of them holds a batch in device memory.
MAX_STEPS_AHEAD = 2
MUST_BE_FINITE = ("loss", "gradient_norm", "update_norm")


class DivergedError(ArithmeticError):
    """Loss, gradients or parameters are no longer finite numbers."""


@dataclasses.dataclass
class _Progress:
    """Metrics of steps that were started but not yet looked at, and where time went."""

    run: Run
    log: RunLog
    pending: collections.deque = dataclasses.field(default_factory=collections.deque)
    window_start: float = dataclasses.field(default_factory=time.perf_counter)
    waiting: float = 0.0
    steps: int = 0

    def add(self, step: int, metrics: Any, waited: float) -> None:
        if len(self.pending) >= MAX_STEPS_AHEAD:
            jax.block_until_ready(self.pending[-MAX_STEPS_AHEAD])
        self.pending.append((step, metrics))
        self.waiting += waited
        self.steps += 1

    def flush(self, good_step: int | None) -> dict[str, float]:
        """Read all pending metrics in order; raises DivergedError at the first bad one."""
        latest: dict[str, float] = {}
        while self.pending:
            step, metrics = self.pending.popleft()
            latest = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if not all(math.isfinite(latest[name]) for name in MUST_BE_FINITE):
                raise DivergedError(_diverged(step, latest, good_step))
            self.log.write("train", step, {**latest, **self._rates(step)})
        return latest

    def _rates(self, step: int) -> dict[str, float]:
        factor = float(self.run.schedule(jnp.asarray(step - 1)))
        rate = self.run.config.optimizer.learning_rate * factor
        return {
            "learning_rate": rate,
            "clip_learning_rate": rate * self.run.config.optimizer.coef_lr,
        }

    def window(self, step: int, latest: dict[str, float]) -> dict[str, float]:
        """The latest metrics with speed and waiting share since the last call."""
        now = time.perf_counter()
        seconds = max(now - self.window_start, 1e-9)
        values = {
            **latest,
            **self._rates(step),
            "clips_per_second": self.steps * self.run.config.batch_size / seconds,
            "waiting_share": self.waiting / seconds,
        }
        self.window_start, self.waiting, self.steps = now, 0.0, 0
        return values

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """What happens inside does not count in the speed of training."""
        began = time.perf_counter()
        yield
        self.window_start += time.perf_counter() - began


def _diverged(step: int, metrics: Mapping[str, float], good_step: int | None) -> str:
    found = ", ".join(f"{name} {metrics[name]}" for name in MUST_BE_FINITE)
    kept = f"the checkpoint of step {good_step} is kept" if good_step else "none was saved before"
    return (
        f"step {step}: {found}; {kept}. Lower optimizer.learning_rate or raise "
        "optimizer.warmup_proportion"
    )


def _due(step: int, every: int, run: Run) -> bool:
    return step % (every or run.plan.steps_per_epoch) == 0 or step == run.total_steps


def _train_steps(
    run: Run, progress: _Progress, start: int, batches: Iterator[dict[str, Any]], bar: tqdm
) -> None:
    config = run.config
    step_fn = compile_train_step(run.settings, run.state, run.mesh)
    seed_key = jax.random.key(config.seed)
    good_step = start or None
    for step in range(start + 1, run.total_steps + 1):
        began = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - began
        arrays = put_batch({name: batch[name] for name in BATCH_KEYS}, run.mesh)
        run.state, metrics = step_fn(run.state, arrays, jax.random.fold_in(seed_key, step))
        progress.add(step, metrics, waited)
        bar.update()
        if step % config.log_every == 0 or step == run.total_steps:
            values = progress.window(step, progress.flush(good_step))
            epoch = -(-step // run.plan.steps_per_epoch)
            _say(step_line(step, run.total_steps, epoch, values))
        evaluate = _due(step, config.eval_every, run)
        if evaluate or (config.checkpoint_every and step % config.checkpoint_every == 0):
            progress.flush(good_step)
            with progress.pause():
                scores = run.evaluate() if evaluate else {}
                if scores:
                    progress.log.write("evaluation", step, scores)
                    _say(_score_line(step, scores))
                run.checkpoints.save(step, run.state, scores)
            good_step = step


def _say(text: str) -> None:
    """A line above the progress bar, at once also where the output is a file."""
    with tqdm.external_write_mode():
        print(text, flush=True)


def _score_line(step: int, scores: dict[str, float]) -> str:
    shown = ("R@1", "R@5", "R@10", "MdR")
    parts = [
        " ".join([direction, *(f"{name} {scores[f'{direction} {name}']:.1f}" for name in shown)])
        for direction in ("t2v", "v2t")
    ]
    return f"step {step}  validation  " + "   ".join(parts)


def _first_lines(run: Run, start: int) -> str:
    resumed = f"resuming after step {start}" if start else "from the start"
    lines = [
        f"{run.settings.config.recipe}: {len(run.data.train.clips)} clips, "
        f"{len(run.data.train.captions)} captions; {run.plan.describe()}; "
        f"{run.total_steps} steps in all, {resumed}; mesh {dict(run.mesh.shape)}"
    ]
    for split, clips in run.data.skipped.items():
        if clips:
            named = ", ".join(clips[:5])
            lines.append(f"{len(clips)} clips of {split} are not in the store, skipped: {named}")
    return "\n".join(lines)


def train(config: ConfigDict, workdir: Path) -> TrainState:
    """Run or resume training; returns the final state.

    workdir: checkpoints, retriever.json (load_retriever reads the directory), metrics.jsonl,
    run.json. Raises ValueError before the first step for settings or data that cannot work,
    DivergedError when numbers are no longer finite (the last good checkpoint stays).
    """
    run = Run(config, workdir)
    with contextlib.ExitStack() as stack:
        stack.callback(run.checkpoints.close)
        start = run.resume()
        _say(_first_lines(run, start))
        log = RunLog(workdir, start, config.tensorboard)
        stack.callback(log.close)
        protocol = run.validation_protocol()
        if protocol and not start:
            log.write("protocol", 0, protocol)
        # No bar where nobody watches: a log file keeps its lines.
        bar = tqdm(total=run.total_steps, initial=start, unit="step", disable=None)
        stack.enter_context(bar)
        batches = stack.enter_context(contextlib.closing(run.batches(start)))
        _train_steps(run, _Progress(run, log), start, batches, bar)
    return run.state
