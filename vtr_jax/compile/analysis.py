"""One train step of a config, compiled for some devices and measured without being run."""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vtr_jax.checkpoint import read_config
from vtr_jax.collectives import collective_totals, collectives
from vtr_jax.compile.chips import Chip, chip_of
from vtr_jax.compile.flops import matmul_flops
from vtr_jax.compile.roofline import Roofline, roofline
from vtr_jax.compile.traffic import bytes_by_kind, memory_traffic, score_bytes
from vtr_jax.hlo import read_program
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import Retriever, abstract_retriever
from vtr_jax.models.runtime import check_attention_device
from vtr_jax.sharding import check_batch_divides, left_whole, make_mesh
from vtr_jax.training.config import check_config, clip_of, runtime_of
from vtr_jax.training.optimizer import warmup_cosine
from vtr_jax.training.run import step_settings
from vtr_jax.training.step import (
    StepSettings,
    abstract_batch,
    abstract_train_state,
    compile_train_step,
    train_step,
)

# The schedule's length is a number in the program: it changes nothing that is measured.
STEPS = 1000


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device. limit: what it has, None where that is not known.

    The output is written over the arguments that the step takes over (aliased). stated_peak: what
    the TPU compiler says is in use at once at most, None elsewhere: it shares places that the
    other figures count apart.
    """

    arguments: int
    temporaries: int
    output: int
    aliased: int
    code: int
    limit: int | None
    stated_peak: int | None = None

    @property
    def peak(self) -> int:
        """At most: arguments, temporaries, program, and what of the output has its own place."""
        return self.arguments + self.temporaries + self.code + self.output - self.aliased


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What one compiled step needs.

    devices of kind. mesh: sizes of its axes. memory, traffic (bytes moved to and from it) and sent
    (bytes): of one device. flops: as matmul_flops, of all devices; model_flops: without what
    rematerialisation and cached gradients compute twice. traffic_by_kind: its parts, as Move.kind.
    score_traffic: the bytes in it of frames' attention scores and weights. collectives:
    collective_totals. roofline: None where the chip's figures are not known. warnings: left_whole.
    """

    kind: str
    devices: int
    mesh: dict[str, int]
    memory: Memory
    flops: int
    model_flops: int
    traffic: int
    traffic_by_kind: dict[str, int]
    score_traffic: int
    sent: float
    collectives: dict[str, dict[str, int]]
    roofline: Roofline | None
    compile_seconds: float
    unknown_loops: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the devices surely have the memory, as far as theirs is known."""
        return self.memory.limit is None or self.memory.peak <= self.memory.limit

    @property
    def verdict(self) -> str:
        """fits, does not fit, or may fit: the compiler's estimate does, the sum does not."""
        stated, limit = self.memory.stated_peak, self.memory.limit
        if self.fits or limit is None:
            return "fits"
        return "may fit" if stated is not None and stated <= limit else "does not fit"


class DoesNotFit(ValueError):
    """The compiler itself says that a program needs more memory than the chip has."""


@dataclasses.dataclass(frozen=True)
class AbstractStep:
    """A config's train step in shapes: all that compiling it needs."""

    config: ConfigDict
    settings: StepSettings
    state: Any
    batch: Any
    key: Any


def described_retriever(config: ConfigDict) -> Retriever:
    """The retriever that a run of a config would train, as shapes; init is read for its sizes."""
    recipe, runtime = recipe_named(config.recipe), runtime_of(config)
    clip, preprocessing = clip_of(config), None
    if config.init:
        start = read_config(config.init)
        clip, preprocessing = start.clip, start.preprocessing
    description = recipe.config(
        clip, config.options.to_dict(), config.sizes.to_dict(), preprocessing
    )
    return abstract_retriever(description, runtime)


def abstract_step(config: ConfigDict) -> AbstractStep:
    """The step of a config; raises ValueError for settings that no run can have."""
    check_config(config)
    retriever, data = described_retriever(config), config.data
    schedule = warmup_cosine(STEPS, config.optimizer.warmup_proportion)
    settings = step_settings(config, retriever, schedule)
    resolution = retriever.config.clip.vision.image_resolution
    return AbstractStep(
        config,
        settings,
        abstract_train_state(retriever, settings),
        abstract_batch(config.batch_size, data.max_frames, resolution, data.max_words),
        jax.eval_shape(lambda: jax.random.key(0)),
    )


def step_flops(step: AbstractStep) -> int:
    """Operations of a step's matrix products, what it computes twice included.

    Attention counts as XLA computes it: products inside cuDNN's are not in the traced step.
    """
    runtime = dataclasses.replace(step.settings.runtime, attention="xla")
    settings = dataclasses.replace(step.settings, runtime=runtime)
    function = functools.partial(train_step, settings=settings)
    return matmul_flops(function, step.state, step.batch, step.key)


def model_flops(config: ConfigDict) -> int:
    """Operations of a step that computes nothing twice: what utilisation is counted by.

    Rematerialised blocks and the second pass of cached gradients are left out; tiles of similarity
    heads, which are always computed again in the backward pass, are not.
    """
    once = config.copy_and_resolve_references()
    once.remat = False
    if "micro_batch_size" in once:
        once.micro_batch_size = 0
    return step_flops(abstract_step(once))


def compile_step(config: ConfigDict, devices: Sequence[jax.Device]) -> StepReport:
    """Compile the train step of a config for some devices, real or described.

    Raises ValueError for a mesh, a batch or an attention that does not fit the devices, DoesNotFit
    where the compiler finds too little memory.
    """
    check_attention_device(config.attention, devices[0])
    mesh = make_mesh(config.mesh.to_dict(), devices)
    step = abstract_step(config)
    check_batch_divides(
        config.batch_size, mesh, config.gradient_accumulation_steps, config.micro_batch_size
    )
    started = time.perf_counter()
    jitted = compile_train_step(step.settings, step.state, mesh)
    lowered = jitted.lower(step.state, step.batch, step.key)
    try:
        compiled = lowered.compile()
    except Exception as error:  # jaxlib raises its own kind, without a class for this case
        raise _explained(error) from error
    seconds = time.perf_counter() - started
    report = _report(step, mesh, compiled, seconds)
    return dataclasses.replace(report, warnings=tuple(left_whole(step.state["params"], mesh)))


def _explained(error: Exception) -> Exception:
    text = " ".join(str(error).split())
    for wording in (
        r"Used ([\d.]+)G of ([\d.]+)G hbm",
        r"\(([\d.]+)G\) exceeds available HBM \(([\d.]+)G",
    ):
        found = re.search(wording, text)
        if found:
            needed, there = found.groups()
            return DoesNotFit(f"needs {needed} GiB of the {there} GiB a chip has")
    return DoesNotFit(text[:300]) if "RESOURCE_EXHAUSTED" in text else error


def _report(step: AbstractStep, mesh: Mesh, compiled: Any, seconds: float) -> StepReport:
    device = mesh.devices.flat[0]
    return report_of(
        step,
        device.device_kind,
        dict(mesh.shape),
        memory_of(compiled.memory_analysis(), device.platform, _limit(device)),
        compiled.as_text(),
        seconds,
    )


def report_of(
    step: AbstractStep, kind: str, mesh: dict[str, int], memory: Memory, text: str, seconds: float
) -> StepReport:
    """The report on a compiled program, from its text and the memory that it takes."""
    devices = functools.reduce(lambda a, b: a * b, mesh.values())
    program = read_program(text)
    exchanges = collectives(program, devices)
    sent = sum(each.sent for each in exchanges)
    moves, flops, once = memory_traffic(program), step_flops(step), model_flops(step.config)
    traffic = sum(move.bytes for move in moves)
    chip = chip_of(kind)
    return StepReport(
        kind=kind,
        devices=devices,
        mesh=mesh,
        memory=memory,
        flops=flops,
        model_flops=once,
        traffic=traffic,
        traffic_by_kind=bytes_by_kind(moves),
        score_traffic=score_bytes(moves, step.settings.config.clip.vision.patches + 1),
        sent=sent,
        collectives=collective_totals(exchanges),
        roofline=roofline(chip, devices, flops, once, traffic, sent) if chip else None,
        compile_seconds=seconds,
        unknown_loops=program.unknown_loops,
    )


def memory_of(analysis: Any, platform: str, limit: int | None) -> Memory:
    """XLA's own account of a compiled program's memory on one device of a platform."""
    return Memory(
        arguments=analysis.argument_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        output=analysis.output_size_in_bytes,
        aliased=analysis.alias_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
        limit=limit,
        stated_peak=analysis.peak_memory_in_bytes if platform == "tpu" else None,
    )


def _limit(device: jax.Device) -> int | None:
    chip: Chip | None = chip_of(device.device_kind)
    if chip is not None:
        return chip.hbm
    try:
        statistics = device.memory_stats() or {}
    except Exception:  # a backend that keeps none says so by an error
        return None
    return statistics.get("bytes_limit")
