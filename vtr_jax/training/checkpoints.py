"""Saving and resuming a run: the last few checkpoints and the best one are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from vtr_jax.checkpoint import CHECKPOINTS_FOLDER, RETRIEVER_ITEM, restore_tree
from vtr_jax.sharding import shardings
from vtr_jax.training.step import TrainState

OPTIMIZER_ITEM = "optimizer"


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


class RunCheckpoints:
    """The checkpoints of one run in WORKDIR/checkpoints, written in the background."""

    def __init__(self, workdir: Path, keep_last: int, metric: str) -> None:
        import orbax.checkpoint as ocp

        if keep_last < 1:
            raise ValueError(f"keep_last: expected at least 1 checkpoint, got {keep_last}")
        self.folder = (workdir / CHECKPOINTS_FOLDER).absolute()
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

    def save(
        self, step: int, train_state: TrainState, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Start saving the state after `step` updates; earlier saves are finished first."""
        retriever = {"params": train_state["params"], "state": train_state["state"]}
        args = self._args.Composite(
            **{
                RETRIEVER_ITEM: self._args.StandardSave(retriever),
                OPTIMIZER_ITEM: self._args.StandardSave(train_state["opt_state"]),
            }
        )
        self._manager.save(step, args=args, metrics=dict(metrics or {}))

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
        folder = self.folder / str(step)
        retriever = {"params": target["params"], "state": target["state"]}
        try:
            restored = restore_tree(folder / RETRIEVER_ITEM, retriever)
            opt_state = restore_tree(folder / OPTIMIZER_ITEM, target["opt_state"])
        except ValueError as error:
            raise ValueError(
                f"{error}\n  remove {folder} to go on from the checkpoint before it"
            ) from error
        return {**restored, "opt_state": opt_state}

    def finish(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish and release the background threads."""
        self.finish()
        self._manager.close()
