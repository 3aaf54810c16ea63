"""Saving and resuming a run: the last few checkpoints and the best one are kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from vtr_jax import cluster
from vtr_jax.checkpoint import (
    CHECKPOINTS_FOLDER,
    RETRIEVER_ITEM,
    best_checkpoint_step,
    checkpoint_scores,
    checkpoint_steps,
    scores_file,
    verify_checkpoint,
)
from vtr_jax.files import write_atomically
from vtr_jax.restore import brief, restore_tree
from vtr_jax.sharding import shardings
from vtr_jax.training.checksum_recorder import ChecksumRecorder
from vtr_jax.training.step import TrainState

OPTIMIZER_ITEM = "optimizer"
TRAINING_ITEM = "training"
DAMAGED_FOLDER = "damaged"


@dataclasses.dataclass(frozen=True)
class KeepLastAndBest:
    """Orbax preservation policy: the last `last` checkpoints and the highest `metric`.

    Of equal metrics the later checkpoint is the best, as in the original programs.
    """

    last: int
    metric: str

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """One bool a checkpoint, in the given order (oldest first)."""
        del context
        scored = [
            (checkpoint.metrics[self.metric], checkpoint.step)
            for checkpoint in checkpoints
            if checkpoint.metrics and self.metric in checkpoint.metrics
        ]
        best = max(scored)[1] if scored else None
        recent = {checkpoint.step for checkpoint in checkpoints[-self.last :]}
        return [c.step in recent or c.step == best for c in checkpoints]


def saved_items(train_state: TrainState) -> dict[str, Any]:
    """What a checkpoint holds of a train state, by the name of its folder.

    "retriever" is what evaluation loads: the averaged parameters where the run averages them.
    "training" is what else only training needs, the parameters behind the average among it.
    """
    state = dict(train_state)
    average = state.pop("ema", None)
    params = state.pop("params") if average is None else average
    items = {
        RETRIEVER_ITEM: {"params": params, "state": state.pop("state")},
        OPTIMIZER_ITEM: state.pop("opt_state"),
    }
    return {**items, TRAINING_ITEM: state} if state else items


def _train_state(items: Mapping[str, Any], averaged: bool) -> TrainState:
    """The inverse of saved_items."""
    more, retriever = dict(items.get(TRAINING_ITEM, {})), items[RETRIEVER_ITEM]
    if averaged:
        more["ema"] = retriever["params"]
    return {**retriever, **more, "opt_state": items[OPTIMIZER_ITEM]}


class RunCheckpoints:
    """The checkpoints of one run in WORKDIR/checkpoints, written in the background.

    WORKDIR/checksums/STEP.json tells, for each that is wholly written, what its files held.
    """

    def __init__(self, workdir: Path, keep_last: int, metric: str) -> None:
        import orbax.checkpoint as ocp

        if keep_last < 1:
            raise ValueError(f"keep_last: expected at least 1 checkpoint, got {keep_last}")
        self.workdir = workdir.absolute()
        self.folder = self.workdir / CHECKPOINTS_FOLDER
        self._args = ocp.args
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=KeepLastAndBest(keep_last, metric),
                best_fn=lambda metrics: metrics.get(metric, float("-inf")),
                best_mode="max",
                cleanup_tmp_directories=True,
            ),
        )
        self._keep_last, self._metric = keep_last, metric
        self._recorder = ChecksumRecorder(self.workdir)

    def save(self, step: int, train_state: TrainState) -> None:
        """Start saving the state after `step` updates; earlier saves are finished first.

        Raises OSError where this save cannot begin or the one before it has failed; the
        checkpoints before that are kept.
        """
        items = saved_items(train_state)
        args = {name: self._args.StandardSave(tree) for name, tree in items.items()}
        try:
            self._manager.wait_until_finished()
            self._recorder.record_finished()
            self._recorder.expect(step)
            self._manager.save(step, args=self._args.Composite(**args), metrics={})
        except Exception as error:  # Orbax and TensorStore raise many kinds for a full disk
            raise self._unwritten(error) from error

    def record_finished(self) -> None:
        """Start to record checksums of the last save, if it has come to its end meanwhile."""
        self._recorder.record_finished()

    def latest_step(self) -> int | None:
        """Updates done in the newest complete checkpoint, None if there is none."""
        return self._manager.latest_step()

    def restore(self, step: int, train_state: TrainState, mesh: Mesh) -> TrainState:
        """The state saved after `step` updates, laid out on a mesh.

        train_state: concrete or abstract, for shapes. Raises ValueError naming what does not
        fit or is damaged.
        """
        target = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            train_state,
            shardings(train_state, mesh),
        )
        verify_checkpoint(self.workdir, step)
        folder = self.folder / str(step)
        items = {
            name: restore_tree(folder / name, tree) for name, tree in saved_items(target).items()
        }
        return _train_state(items, "ema" in train_state)

    def restore_newest(
        self, train_state: TrainState, mesh: Mesh
    ) -> tuple[int, TrainState, list[str]]:
        """The newest state that is whole: its step, itself, and why newer ones were passed over.

        Newer checkpoints that are damaged are moved to WORKDIR/damaged, so that the run can save
        these steps again. Raises ValueError where none is whole; nothing is moved then.
        """
        errors: dict[int, ValueError] = {}
        for step in reversed(checkpoint_steps(self.workdir)):
            try:
                restored = self.restore(step, train_state, mesh)
            except ValueError as error:
                errors[step] = error
                continue
            return step, restored, [self._set_aside(*damaged) for damaged in errors.items()]
        listed = "\n  ".join(map(str, errors.values())) or "there is none"
        raise ValueError(
            f"{self.folder}: no checkpoint can be resumed:\n  {listed}\n  restore the files from "
            "a copy, or choose another --workdir; everything is left as it is"
        )

    def _set_aside(self, step: int, error: ValueError) -> str:
        folder = self.workdir / DAMAGED_FOLDER
        taken = len(list(folder.glob(f"{step}.*")))
        target = folder / f"{step}.{taken + 1}"
        cluster.on_first(self._move, self.folder / str(step), target)
        self._recorder.forget(step)
        self._manager.reload()
        return f"the checkpoint of step {step} is damaged, moved to {target}: {error}"

    @staticmethod
    def _move(checkpoint: Path, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        checkpoint.rename(target)

    def has_scores(self, step: int) -> bool:
        """Whether a checkpoint was evaluated."""
        return bool(checkpoint_scores(self.workdir, step))

    def add_scores(self, step: int, metrics: Mapping[str, float]) -> None:
        """Give a checkpoint its scores; waits until it is written. Another one may be best then.

        Raises OSError where it could not be written.
        """
        self._wait()
        self._recorder.forget(step)
        cluster.on_first(self._write_scores, scores_file(self.workdir, step), metrics)
        self._recorder.expect(step)
        self._manager.reload()
        best = best_checkpoint_step(self.workdir, self._metric)
        older = checkpoint_steps(self.workdir)[: -self._keep_last]
        # A process that looked while another one removes would wait for something else.
        cluster.wait_for_all("superseded checkpoints")
        for superseded in older:
            if superseded != best:
                self._manager.delete(superseded)

    @staticmethod
    def _write_scores(path: Path, metrics: Mapping[str, float]) -> None:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(dict(metrics)).encode())

    def finish(self) -> None:
        """Wait until everything is on disk; raises OSError where it could not be written."""
        self._wait()
        self._recorder.record_finished()
        self._recorder.finish()

    def _wait(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # as in save
            raise self._unwritten(error) from error

    def close(self) -> None:
        """Finish and release the background threads."""
        try:
            self.finish()
        finally:
            self._recorder.close()
            self._manager.close()

    def _unwritten(self, error: Exception) -> OSError:
        if isinstance(error, OSError) and error.filename is None and error.errno is None:
            return error  # says already what it is about
        steps = checkpoint_steps(self.workdir)
        kept = f"the checkpoints of steps {steps} are kept" if steps else "there is none yet"
        return OSError(
            f"{self.folder}: a checkpoint could not be written ({brief(error)}); {kept}. Make "
            "room, and give the same command again"
        )
