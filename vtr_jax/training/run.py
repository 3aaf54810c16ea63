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

from vtr_jax import cluster
from vtr_jax.checkpoint import checkpoint_steps, write_description
from vtr_jax.data.augmentation import RandAugment
from vtr_jax.data.batch_plan import BatchPlan
from vtr_jax.data.trained_clips import TrainedClips, memory_warning, write_trained_clips
from vtr_jax.evaluation.evaluate import (
    EvaluationSettings,
    evaluate_split,
    protocol_card,
)
from vtr_jax.evaluation.store_match import require_same_pictures, sampling_differences
from vtr_jax.models.retriever import Retriever
from vtr_jax.preprocessing import Preprocessing
from vtr_jax.sharding import check_batch_divides, left_whole, make_mesh, process_rows
from vtr_jax.training.checkpoints import RunCheckpoints
from vtr_jax.training.config import check_config, runtime_of
from vtr_jax.training.optimizer import (
    Schedule,
    adamw,
    bert_adam,
    clip_by_global_norm,
    warmup_cosine,
)
from vtr_jax.training.parameter_groups import (
    freeze,
    frozen_names,
    parameter_groups,
    trainable_mask,
)
from vtr_jax.training.run_data import SELECTION_OF_VALIDATION, RunData, load_run_data
from vtr_jax.training.run_log import tensorboard_writer
from vtr_jax.training.run_record import changed_settings, check_same_run, write_record
from vtr_jax.training.start import (
    check_start,
    clips_before,
    clips_of_run,
    resumed_retriever,
    start_preprocessing,
    starting_retriever,
    with_training_settings,
)
from vtr_jax.training.step import (
    StepSettings,
    abstract_batch,
    abstract_train_state,
    initial_train_state,
    train_step,
)

if TYPE_CHECKING:
    from vtr_jax.data.pipeline import TrainingBatches


def make_optimizer(
    config: ConfigDict, retriever: Retriever, schedule: Schedule
) -> optax.GradientTransformationExtraArgs:
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
    chain = optax.chain(clip_by_global_norm(settings.max_grad_norm), update)
    return freeze(chain, _trained(config, retriever))


def _trained(config: ConfigDict, retriever: Retriever) -> Any:
    settings = config.optimizer
    return trainable_mask(
        retriever.params,
        retriever.config,
        settings.freeze_layer_num,
        settings.freeze_nothing_in_3d,
        settings.train_video_projection,
    )


def step_settings(config: ConfigDict, retriever: Retriever, schedule: Schedule) -> StepSettings:
    """What the step of a run is made of; the retriever may be abstract."""
    return StepSettings(
        retriever.config,
        retriever.runtime,
        make_optimizer(config, retriever, schedule),
        frozen_names(_trained(config, retriever)),
        ema_decay=config.ema_decay,
        spike_factor=config.spike_factor,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        cached_micro_batches=config.batch_size // (config.micro_batch_size or config.batch_size),
    )


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
        check_batch_divides(
            config.batch_size,
            self.mesh,
            config.gradient_accumulation_steps,
            config.micro_batch_size,
        )
        # What another process sees of a shared disk may be a moment old.
        self._resumes = bool(cluster.from_first(len(checkpoint_steps(workdir))))
        self.data: RunData = load_run_data(config, self._start_preprocessing())
        self.plan = BatchPlan.of(
            self.data.train,
            config.batch_size,
            config.seed,
            caption_mode=config.data.caption_mode,
            allow_repeated_clips=config.data.allow_repeated_clips,
        )
        self.total_steps = self.plan.steps_per_epoch * config.epochs
        self.resolved = self._resolved()
        self.record_before = check_same_run(workdir, self.resolved)
        retriever = dataclasses.replace(self._first_retriever(), runtime=runtime_of(config))
        require_same_pictures(self.data.store, retriever.preprocessing)
        self._unlike_start = sampling_differences(self.data.store, retriever.config)
        retriever = with_training_settings(retriever, config, self.data.store)
        self.trained_clips = self._trained_clips()
        resolution = retriever.config.clip.vision.image_resolution
        self.schedule = warmup_cosine(self.total_steps, config.optimizer.warmup_proportion)
        self.settings = step_settings(config, retriever, self.schedule)
        # Shapes where resume() fills them: a state is in memory once.
        if self._resumes:
            self.state = abstract_train_state(retriever, self.settings)
        else:
            self.state = initial_train_state(retriever, self.settings, self.mesh)
        self._check_step(resolution)
        self._open_workdir()

    def _start_preprocessing(self) -> Preprocessing:
        """Return the preprocessing that captions are tokenized by."""
        if self._resumes:
            return resumed_retriever(self.workdir).preprocessing
        return start_preprocessing(self.config)

    def _first_retriever(self) -> Retriever:
        if self._resumes:
            return resumed_retriever(self.workdir)
        check_start(self.config)
        return starting_retriever(self.config)

    def _trained_clips(self) -> TrainedClips:
        before = clips_of_run(self.workdir) if self._resumes else clips_before(self.config.init)
        return before.and_those_of(self.data.train)

    def _resolved(self) -> dict[str, Any]:
        """Everything that decides the run, as plain JSON values."""
        validation = self.data.validation
        return {
            **json.loads(self.config.to_json_best_effort()),
            "compute_dtype": runtime_of(self.config).compute_dtype,
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

    def _open_workdir(self) -> None:
        cluster.wait_for_all("workdir was read")
        cluster.on_first(self._describe)
        self.checkpoints = RunCheckpoints(
            self.workdir, self.config.keep_last, self.config.evaluation.metric
        )

    def _describe(self) -> None:
        self.workdir.mkdir(parents=True, exist_ok=True)
        write_record(self.workdir, self.resolved)
        write_trained_clips(self.workdir, self.trained_clips)
        if not self._resumes:
            selection = {
                "metric": self.config.evaluation.metric,
                "rule": SELECTION_OF_VALIDATION[self.config.data.validation],
            }
            write_description(
                self.workdir,
                self.settings.config,
                {"source": {"trained_from": self.config.init or "seed"}, "selection": selection},
            )

    def warnings(self) -> list[str]:
        """What a person should know about the clips and the mesh of this run, a sentence each."""
        split = self.data.validation
        known = self.trained_clips.among(split) if split else None
        of_clips = [memory_warning(split, known)] if split and known else []
        unlike = [f"WARNING: {difference}" for difference in self._unlike_start]
        return [
            *self.data.warnings,
            *unlike,
            *of_clips,
            *left_whole(self.state["params"], self.mesh),
        ]

    def resume(self) -> tuple[int, list[str]]:
        """Load the newest whole checkpoint, if the run has any.

        Returns the updates already done, and what a person should know: damaged checkpoints,
        settings that are not those of the start.
        """
        if not self._resumes:
            return 0, []
        step, self.state, damaged = self.checkpoints.restore_newest(self.state, self.mesh)
        return step, [*damaged, *changed_settings(self.resolved, self.record_before)]

    def clips_of_step(self, step: int) -> list[str]:
        """Ids of the clips in the global batch of an update, counted from 1."""
        return [self.data.train.clips[i].clip_id for i in self.plan.batch(step - 1)[0]]

    def batches(self, start_step: int) -> TrainingBatches:
        """This process's batches from a step on."""
        from vtr_jax.data.frame_stream import FrameChoice
        from vtr_jax.data.pipeline import training_batches

        data = self.config.data
        choice = FrameChoice(
            data.max_frames,
            data.slice_framepos,
            data.train_frame_order,
            self.config.seed,
            RandAugment.parse(data.augmentation),
        )
        return training_batches(
            self.data.store,
            self.data.train,
            self.data.train_tokens,
            self.plan,
            choice,
            start_step=start_step,
            stop_step=self.total_steps,
            rows=process_rows(self.mesh, self.config.batch_size),
            num_threads=data.num_threads or None,
        )

    def result(self) -> Retriever:
        """What is evaluated and kept: the average of the parameters, if there is one."""
        params = self.state["ema" if "ema" in self.state else "params"]
        return Retriever(params, self.state["state"], self.settings.config, self.settings.runtime)

    def validation_protocol(self) -> dict[str, Any]:
        """Return the protocol of this run's validation scores ({} without validation)."""
        validation = self.data.validation
        if validation is None:
            return {}
        trained_on = self.trained_clips.among(validation)
        # No hash of parameters: each score has a checkpoint of its own.
        card = protocol_card(
            self.result(),
            self.data.store,
            validation,
            evaluation_settings(self.config),
            checkpoint_sha256="",
            tokens=self.data.validation_tokens,
            clips_skipped=len(self.data.skipped.get(validation.name, ())),
            clips_trained_on=None if trained_on is None else len(trained_on),
            selection=SELECTION_OF_VALIDATION[self.config.data.validation],
        )
        return {k: v for k, v in card.to_dict().items() if k != "checkpoint_sha256"}

    def evaluate(self) -> dict[str, float]:
        """Return validation scores as flat names such as "t2v R@1" ({} without validation).

        Raises NonfiniteScores (a ValueError) for features or scores that are not finite.
        """
        if self.data.validation is None:
            return {}
        evaluation = evaluate_split(
            self.result(),
            self.data.store,
            self.data.validation,
            evaluation_settings(self.config),
            self.mesh,
            self.data.validation_tokens,
        )
        return {
            f"{direction} {name}": value
            for direction, row in evaluation.results.items()
            for name, value in row.items()
        }
