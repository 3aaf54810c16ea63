"""A training run from config to checkpoints; the same command again resumes it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import time
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


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number."""


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
        self.pending.append((step, metrics))
        self.waiting += waited
        self.steps += 1

    def flush(self, good_step: int | None) -> dict[str, float]:
        """Read all pending metrics in order; raises DivergedError at the first bad one."""
        latest: dict[str, float] = {}
        while self.pending:
            step, metrics = self.pending.popleft()
            latest = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if not math.isfinite(latest["loss"]) or not math.isfinite(latest["gradient_norm"]):
                kept = (
                    f"the checkpoint of step {good_step} is kept" if good_step else "none saved yet"
                )
                raise DivergedError(
                    f"step {step}: loss {latest['loss']}, gradient norm "
                    f"{latest['gradient_norm']}; {kept}. Lower optimizer.learning_rate or raise "
                    "optimizer.warmup_proportion"
                )
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


def _due(step: int, every: int, run: Run) -> bool:
    return step % (every or run.plan.steps_per_epoch) == 0 or step == run.total_steps


def _train_steps(run: Run, progress: _Progress, start: int, bar: tqdm) -> None:
    config = run.config
    step_fn = compile_train_step(run.settings, run.state, run.mesh)
    seed_key = jax.random.key(config.seed)
    good_step = start or None
    batches = run.batches(start)
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
            bar.write(step_line(step, run.total_steps, epoch, values))
        evaluate = _due(step, config.eval_every, run)
        if evaluate or (config.checkpoint_every and step % config.checkpoint_every == 0):
            progress.flush(good_step)
            scores = run.evaluate() if evaluate else {}
            if scores:
                progress.log.write("evaluation", step, scores)
                bar.write(_score_line(step, scores))
            run.checkpoints.save(step, run.state, scores)
            good_step = step
            progress.window_start = time.perf_counter()


def _score_line(step: int, scores: dict[str, float]) -> str:
    shown = ("R@1", "R@5", "R@10", "MdR")
    parts = [
        " ".join([direction, *(f"{name} {scores[f'{direction} {name}']:.1f}" for name in shown)])
        for direction in ("t2v", "v2t")
    ]
    return f"step {step}  validation  " + "   ".join(parts)


def train(config: ConfigDict, workdir: Path) -> TrainState:
    """Run or resume training; returns the final state.

    workdir: checkpoints, retriever.json (load_retriever reads the directory), metrics.jsonl,
    run.json. Raises ValueError before the first step for settings or data that cannot work,
    DivergedError when the loss is no longer finite (the last good checkpoint stays).
    """
    run = Run(config, workdir)
    start = run.resume()
    resumed = f"resuming after step {start}" if start else "from the start"
    tqdm.write(
        f"{run.settings.config.recipe}: {len(run.data.train.clips)} clips, "
        f"{len(run.data.train.captions)} captions; {run.plan.describe()}; "
        f"{run.total_steps} steps in all, {resumed}; mesh {dict(run.mesh.shape)}"
    )
    with contextlib.ExitStack() as stack:
        stack.callback(run.checkpoints.close)
        log = RunLog(workdir, start, config.tensorboard)
        stack.callback(log.close)
        bar = stack.enter_context(tqdm(total=run.total_steps, initial=start, unit="step"))
        _train_steps(run, _Progress(run, log), start, bar)
    return run.state
