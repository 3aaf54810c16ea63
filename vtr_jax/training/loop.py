"""A training run from config to checkpoints; the same command again resumes it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from vtr_jax.cluster import is_first
from vtr_jax.evaluation.nonfinite import NonfiniteScores
from vtr_jax.lock import only_process
from vtr_jax.sharding import put_batch
from vtr_jax.training.progress import DivergedError, Progress, say
from vtr_jax.training.run import Run
from vtr_jax.training.run_lines import first_lines, last_lines, score_line
from vtr_jax.training.run_log import open_log, step_line
from vtr_jax.training.run_record import check_workdir
from vtr_jax.training.step import BATCH_KEYS, TrainState, compile_train_step
from vtr_jax.training.stop_request import StopRequest, stop_requests

__all__ = ["DivergedError", "train"]


def _due(step: int, every: int, run: Run) -> bool:
    return step % (every or run.plan.steps_per_epoch) == 0 or step == run.total_steps


def _train_steps(
    run: Run, progress: Progress, batches: Iterator[dict[str, Any]], bar: tqdm, stop: StopRequest
) -> None:
    config, start = run.config, progress.good_step or 0
    step_fn = compile_train_step(run.settings, run.state, run.mesh)
    seed_key = jax.random.key(config.seed)
    progress.begin_window()
    for step in range(start + 1, run.total_steps + 1):
        if stop.reached(step - 1):
            _save(run, progress, step - 1)
            run.checkpoints.finish()
            raise stop.interruption(step - 1)
        began = time.perf_counter()
        batch = _next_batch(batches, run, progress, step)
        waited = time.perf_counter() - began
        arrays = put_batch({name: batch[name] for name in BATCH_KEYS}, run.mesh)
        arguments = (run.state, arrays, jax.random.fold_in(seed_key, step))
        if step == start + 1:
            with progress.compiling():
                step_fn.lower(*arguments).compile()  # found again when it is called
        run.state, metrics = step_fn(*arguments)
        progress.add(step, metrics, waited)
        bar.update()
        run.checkpoints.record_finished()
        if step % config.log_every == 0 or step == run.total_steps:
            values = progress.window(step, progress.flush())
            epoch = -(-step // run.plan.steps_per_epoch)
            say(step_line(step, run.total_steps, epoch, values))
        if _due(step, config.eval_every, run):
            # Saved first: an evaluation that fails or takes too long must cost nothing.
            with progress.pause():
                _save(run, progress, step)
                _evaluate(run, progress, step, stop)
        elif config.checkpoint_every and step % config.checkpoint_every == 0:
            with progress.pause():
                _save(run, progress, step)
    run.checkpoints.finish()


def _next_batch(
    batches: Iterator[dict[str, Any]], run: Run, progress: Progress, step: int
) -> dict[str, Any]:
    """The next batch; what was trained so far is saved where the store can be read no more."""
    try:
        return next(batches)
    except OSError:
        _save_alone(run, progress, step - 1)
        raise


def _save_alone(run: Run, progress: Progress, step: int) -> None:
    """Save before an error ends this process, where others need not take part in that."""
    if jax.process_count() == 1:
        _save(run, progress, step)


def _evaluate(run: Run, progress: Progress, step: int, stop: StopRequest) -> None:
    """Evaluate a checkpoint, unless that was done; it may still be on its way to the disk."""
    if run.checkpoints.has_scores(step):
        return
    try:
        with stop.at_once():
            scores = run.evaluate()
    except NonfiniteScores as error:
        # Without scores the checkpoint is never the best; the run may still recover.
        found = error.nonfinite
        counts = {"captions": len(found.captions), "clips": len(found.clips)}
        progress.log.write("nonfinite", step, counts)
        say(
            f"step {step}  WARNING: no validation scores: {found.describe(error.split)}", sys.stderr
        )
        return
    if scores:
        progress.log.write("evaluation", step, scores)
        say(score_line(step, scores))
        run.checkpoints.add_scores(step, scores)


def _save(run: Run, progress: Progress, step: int) -> None:
    """Save the state after a step, unless that was done or there is nothing to save."""
    progress.flush()
    if step in (0, progress.good_step):
        return
    run.checkpoints.save(step, run.state)
    progress.good_step = step


def train(config: ConfigDict, workdir: Path) -> TrainState:
    """Run or resume training; returns the final state.

    workdir: checkpoints, retriever.json (load_retriever reads the directory), metrics.jsonl,
    run.json. Raises BlockingIOError if another process trains there, ValueError before the first
    step for settings or data that cannot work, DivergedError when numbers are no longer finite
    (the last good checkpoint stays), Interrupted (a SystemExit) on SIGTERM or Ctrl-C, OSError
    where files cannot be read or written.
    """
    check_workdir(workdir)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        with stop.at_once():
            run, progress = _begin(config, workdir, stack)
        start = progress.good_step or 0
        # A run that was stopped saved first, and is evaluated now.
        if start and _due(start, config.eval_every, run):
            _evaluate(run, progress, start, stop)
        if start < run.total_steps:
            _train_the_rest(run, progress, stop)
        if is_first():
            say(last_lines(run, start))
    return run.state


def _train_the_rest(run: Run, progress: Progress, stop: StopRequest) -> None:
    start = progress.good_step or 0
    # No bar where nobody watches: a log file keeps its lines.
    silent = None if is_first() else True
    with (
        tqdm(total=run.total_steps, initial=start, unit="step", disable=silent) as bar,
        contextlib.closing(run.batches(start)) as batches,
    ):
        _train_steps(run, progress, batches, bar, stop)


def _begin(config: ConfigDict, workdir: Path, stack: contextlib.ExitStack) -> tuple[Run, Progress]:
    """The run where it stands, and its log; the stack closes them."""
    if is_first():
        stack.enter_context(only_process(workdir, "training"))
    run = Run(config, workdir)
    stack.callback(run.checkpoints.close)
    start, notes = run.resume()
    for warning in run.warnings():
        say(warning, sys.stderr)
    say(first_lines(run, start, notes))
    log = open_log(workdir, start, config.tensorboard, run.checkpoints.has_scores(start))
    stack.callback(log.close)
    if not start and (protocol := run.validation_protocol()):
        log.write("protocol", 0, protocol)
    return run, Progress(run, log, good_step=start or None)
