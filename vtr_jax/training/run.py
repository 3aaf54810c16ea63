"""What one run needs, made and checked before its first step."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import optax
from ml_collections import ConfigDict

from vtr_jax.checkpoint import DESCRIPTION_FILE, load_retriever, write_description
from vtr_jax.data.batch_plan import BatchPlan
from vtr_jax.evaluation.evaluate import (
    EvaluationSettings,
    evaluate_split,
    protocol_card,
    require_resolution,
)
from vtr_jax.models.initialise import initialise_from_clip
from vtr_jax.models.recipes import RetrieverConfig, recipe_named
from vtr_jax.models.retriever import Retriever, init_retriever
from vtr_jax.sharding import check_batch_divides, make_mesh
from vtr_jax.training.checkpoints import RunCheckpoints
from vtr_jax.training.config import check_config, clip_of, runtime_of
from vtr_jax.training.optimizer import (
    Schedule,
    adamw,
    bert_adam,
    clip_by_global_norm,
    warmup_cosine,
)
from vtr_jax.training.parameter_groups import freeze, parameter_groups, trainable_mask
from vtr_jax.training.run_data import SELECTION_OF_VALIDATION, RunData, load_run_data
from vtr_jax.training.run_log import tensorboard_writer
from vtr_jax.training.run_record import check_same_run, write_record
from vtr_jax.training.step import (
    StepSettings,
    abstract_batch,
    initial_train_state,
    train_step,
)

if TYPE_CHECKING:
    from vtr_jax.data.pipeline import TrainingBatches


def starting_retriever(config: ConfigDict) -> Retriever:
    """The retriever a run starts from: config.init, or drawn from the seed.

    A retriever directory of recipe "clip" gives the towers, one of the same recipe everything.
    Raises ValueError for a directory of another recipe, or options it does not have.
    """
    key = jax.random.key(config.seed)
    recipe, options, sizes = config.recipe, config.options.to_dict(), config.sizes.to_dict()
    if not config.init:
        description = recipe_named(recipe).config(clip_of(config), options, sizes)
        return init_retriever(description, key)
    source = load_retriever(config.init)
    if source.config.recipe == "clip" and recipe != "clip":
        return initialise_from_clip(source, recipe, key, options, sizes)
    wanted = recipe_named(recipe).config(source.config.clip, options, sizes)
    if source.config != wanted:
        raise ValueError(
            f"init: {config.init} holds a {_named(source.config)}, the run wants a {_named(wanted)}"
        )
    return source


def _named(config: RetrieverConfig) -> str:
    return f"{config.recipe} with {dict(config.options)} and sizes {dict(config.sizes)}"


def make_optimizer(
    config: ConfigDict, retriever: Retriever, schedule: Schedule
) -> optax.GradientTransformation:
    """The optimizer a config describes, over the parameters it trains."""
    settings = config.optimizer
    groups = parameter_groups(
        settings.learning_rate, settings.coef_lr, settings.weight_decay, settings.decay_norms
    )
    moments = {"b1": settings.b1, "b2": settings.b2, "eps": settings.eps}
    if settings.name == "bert_adam":
        update = bert_adam(groups, schedule, max_grad_norm=settings.max_grad_norm, **moments)
    elif settings.name == "adamw":
        update = adamw(groups, schedule, **moments)
    else:
        raise ValueError(f"optimizer.name: expected bert_adam or adamw, got {settings.name!r}")
    mask = trainable_mask(
        retriever.params,
        retriever.config,
        settings.freeze_layer_num,
        settings.freeze_nothing_in_3d,
    )
    return freeze(optax.chain(clip_by_global_norm(settings.max_grad_norm), update), mask)


def evaluation_settings(config: ConfigDict) -> EvaluationSettings:
    """How a run evaluates its validation split."""
    data = config.data
    return EvaluationSettings(
        max_words=data.max_words,
        max_frames=data.max_frames,
        slice_framepos=data.slice_framepos,
        frame_order=data.eval_frame_order,
        batch_size=config.evaluation.batch_size,
        tile=config.evaluation.tile,
    )


class Run:
    """One run: what it needs, made once, and the loop over its steps."""

    def __init__(self, config: ConfigDict, workdir: Path) -> None:
        check_config(config)
        if config.tensorboard:
            tensorboard_writer()  # refused now, not when everything has been prepared
        self.config, self.workdir = config, workdir
        self.mesh = make_mesh(config.mesh.to_dict())
        check_batch_divides(config.batch_size, self.mesh)
        self.data: RunData = load_run_data(config)
        self.plan = BatchPlan.of(
            self.data.train,
            config.batch_size,
            config.seed,
            caption_mode=config.data.caption_mode,
            allow_repeated_clips=config.data.allow_repeated_clips,
        )
        self.total_steps = self.plan.steps_per_epoch * config.epochs
        resolved = self._resolved()
        check_same_run(workdir, resolved)
        retriever = dataclasses.replace(starting_retriever(config), runtime=runtime_of(config))
        resolution = retriever.config.clip.vision.image_resolution
        require_resolution(self.data.store, resolution)
        self.schedule = warmup_cosine(self.total_steps, config.optimizer.warmup_proportion)
        self.settings = StepSettings(
            retriever.config, retriever.runtime, make_optimizer(config, retriever, self.schedule)
        )
        self.state = initial_train_state(retriever, self.settings, self.mesh)
        self._check_step(resolution)
        self._open_workdir(resolved)

    def _resolved(self) -> dict[str, Any]:
        """Everything that decides the run, as plain JSON values."""
        validation = self.data.validation
        return {
            **json.loads(self.config.to_json_best_effort()),
            "train_sha256": self.data.train.sha256(),
            "validation_sha256": validation.sha256() if validation else None,
            "store_settings": self.data.store.settings,
            "total_steps": self.total_steps,
        }

    def _check_step(self, resolution: int) -> None:
        """Trace one step: sizes that do not fit are refused before anything is written."""
        data = self.config.data
        batch = abstract_batch(self.config.batch_size, data.max_frames, resolution, data.max_words)
        step = functools.partial(train_step, settings=self.settings)
        jax.eval_shape(step, self.state, batch, jax.random.key(0))

    def _open_workdir(self, resolved: dict[str, Any]) -> None:
        self.workdir.mkdir(parents=True, exist_ok=True)
        write_record(self.workdir, resolved)
        if not (self.workdir / DESCRIPTION_FILE).is_file():
            selection = {
                "metric": self.config.evaluation.metric,
                "rule": SELECTION_OF_VALIDATION[self.config.data.validation],
            }
            write_description(
                self.workdir,
                self.settings.config,
                {"source": {"trained_from": self.config.init or "seed"}, "selection": selection},
            )
        self.checkpoints = RunCheckpoints(
            self.workdir, self.config.keep_last, self.config.evaluation.metric
        )

    def resume(self) -> int:
        """Load the newest checkpoint, if there is one; returns the updates already done."""
        step = self.checkpoints.latest_step()
        if step is None:
            return 0
        self.state = self.checkpoints.restore(step, self.state, self.mesh)
        return step

    def batches(self, start_step: int) -> TrainingBatches:
        """This process's batches from a step on."""
        from vtr_jax.data.pipeline import training_batches

        data = self.config.data
        return training_batches(
            self.data.store,
            self.data.train,
            self.data.train_tokens,
            batch_size=self.config.batch_size,
            max_frames=data.max_frames,
            seed=self.config.seed,
            start_step=start_step,
            stop_step=self.total_steps,
            slice_framepos=data.slice_framepos,
            frame_order=data.train_frame_order,
            caption_mode=data.caption_mode,
            allow_repeated_clips=data.allow_repeated_clips,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=data.num_threads or None,
        )

    def _retriever(self) -> Retriever:
        return Retriever(
            self.state["params"], self.state["state"], self.settings.config, self.settings.runtime
        )

    def validation_protocol(self) -> dict[str, Any]:
        """How every validation score of this run comes about, {} without validation.

        The checkpoint's hash is left out: each score has a checkpoint of its own.
        """
        validation = self.data.validation
        if validation is None:
            return {}
        card = protocol_card(
            self._retriever(),
            self.data.store,
            validation,
            evaluation_settings(self.config),
            clips_skipped=len(self.data.skipped.get(validation.name, ())),
            selection=SELECTION_OF_VALIDATION[self.config.data.validation],
        )
        return {k: v for k, v in card.to_dict().items() if k != "checkpoint_sha256"}

    def evaluate(self) -> dict[str, float]:
        """Scores on the validation split as flat names such as "t2v R@1"; {} without one."""
        if self.data.validation is None:
            return {}
        evaluation = evaluate_split(
            self._retriever(),
            self.data.store,
            self.data.validation,
            evaluation_settings(self.config),
            self.mesh,
        )
        return {
            f"{direction} {name}": value
            for direction, row in evaluation.results.items()
            for name, value in row.items()
        }
