"""What a run says to a person: where it begins, how it validates, where its result is."""

from __future__ import annotations

import shlex
from typing import Any

import jax

from vtr_jax.checkpoint import CHECKPOINTS_FOLDER, best_checkpoint_step, checkpoint_scores
from vtr_jax.training.run import Run


def first_lines(run: Run, start: int, notes: list[str]) -> str:
    """What is trained, on what, and from where on; notes: what a person should know besides."""
    kind, dtype = jax.devices()[0].device_kind, run.settings.runtime.compute_dtype
    lines = [
        *notes,
        f"{run.settings.config.recipe}: {len(run.data.train.clips)} clips, "
        f"{len(run.data.train.captions)} captions; {run.plan.describe()}; "
        f"{run.total_steps} steps in all, {_where(run, start)}",
        f"{run.mesh.size} x {kind}, mesh {dict(run.mesh.shape)}, {dtype}",
    ]
    for split, clips in run.data.skipped.items():
        if clips:
            named = ", ".join(clips[:5])
            lines.append(f"{len(clips)} clips of {split} are not in the store, skipped: {named}")
    return "\n".join(lines)


def _where(run: Run, start: int) -> str:
    if start == run.total_steps:
        return "all of them done before: nothing is left to train"
    return f"resuming after step {start}" if start else "from the start"


def score_line(step: int, scores: dict[str, float]) -> str:
    """The validation scores of a checkpoint in one line."""
    shown = ("R@1", "R@5", "R@10", "MdR")
    parts = [
        " ".join([direction, *(f"{name} {scores[f'{direction} {name}']:.1f}" for name in shown)])
        for direction in ("t2v", "v2t")
    ]
    return f"step {step}  validation  " + "   ".join(parts)


def last_lines(run: Run, start: int) -> str:
    """That a run is finished, which checkpoint counts, where it is, and how to evaluate it."""
    metric = run.config.evaluation.metric
    step = best_checkpoint_step(run.workdir, metric)
    assert step is not None, "a finished run has a checkpoint"
    scores = checkpoint_scores(run.workdir, step)
    which = "its last checkpoint:"
    if run.data.validation is not None:
        which = f"no checkpoint has validation scores; {which}"
    if metric in scores:
        which = f"best by validation: step {step}, {metric} {scores[metric]:.1f}, in"
    already = "already " if start == run.total_steps else ""
    return (
        f"{already}finished at step {run.total_steps}; {which} "
        f"{run.workdir / CHECKPOINTS_FOLDER / str(step)}\n{_how_to_evaluate(run)}"
    )


def _how_to_evaluate(run: Run) -> str:
    split, data = run.data.left_to_evaluate, run.config.data
    if split is None:
        others = _evaluation(run, {"annotations": "FILE", "store": "STORE"})
        return (
            f"nothing is left to evaluate it on: {data.annotations} has neither a split test nor "
            f"val; on other videos: {others}"
        )
    options = {
        "annotations": data.annotations,
        "store": data.store,
        **({} if split == "test" else {"split": split}),
        **data.options.to_dict(),
    }
    return f"evaluate it with: {_evaluation(run, options)}"


def _evaluation(run: Run, options: dict[str, Any]) -> str:
    data = run.config.data
    dataset = {} if data.dataset == "table" else {"dataset": data.dataset}
    flags = ["--skip_missing"] if data.skip_missing else []
    given = {"checkpoint": run.workdir, **dataset, **options}
    words = [*(f"--{name}={each}" for name, each in given.items()), *flags]
    return shlex.join(["vtr", "evaluate", *words])
