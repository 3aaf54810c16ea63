"""A report on a compiled step as text for people and as plain values for JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from vtr_jax.compile.analysis import StepReport
from vtr_jax.compile.chips import chip_of
from vtr_jax.training.config import clip_of

METHOD = (
    "FLOPs: matrix products of the traced step, a scan counted as often as it turns, a "
    "multiplication and its addition as two; element-wise work is not counted. MFU leaves out what "
    "is computed twice. Bytes: of the compiled program, loops multiplied out. The step takes at "
    "least as long as its busiest resource."
)

# By the name in a Roofline. "memory" alone is what a program takes, and whether that fits.
RESOURCES = {"compute": "compute", "memory": "HBM", "interconnect": "interconnect"}


def settings_of(config: ConfigDict) -> dict[str, Any]:
    """The settings of a config that decide what a step costs."""
    clip = clip_of(config)
    return {
        "recipe": config.recipe,
        "options": config.options.to_dict(),
        "vision": f"{clip.vision.layers} x {clip.vision.width}, patch {clip.vision.patch_size}",
        "frames": config.data.max_frames,
        "words": config.data.max_words,
        "batch_size": config.batch_size,
        "micro_batch_size": config.get("micro_batch_size", 0),
        "compute_dtype": config.compute_dtype,
        "attention": config.attention,
        "remat": config.remat,
    }


def report_values(report: StepReport) -> dict[str, Any]:
    """A report as plain values: bytes, operations and seconds."""
    values = dataclasses.asdict(report)
    values["memory"]["peak"] = report.memory.peak
    values.update(fits=report.fits, verdict=report.verdict)
    if report.roofline is not None:
        values["roofline"].update(step=report.roofline.step, bound=report.roofline.bound)
    return values


def report_text(config: ConfigDict, report: StepReport) -> str:
    """A report for a person, one idea a line."""
    memory, settings = report.memory, settings_of(config)
    mesh = " x ".join(f"{name} {size}" for name, size in report.mesh.items())
    head = (
        f"{settings['recipe']}, vision {settings['vision']}; {settings['frames']} frames, "
        f"{settings['words']} words, {settings['batch_size']} clips a step, "
        f"{settings['compute_dtype']}, rematerialisation {'on' if settings['remat'] else 'off'}"
    )
    chip = chip_of(report.kind)
    lines = [
        head,
        f"{report.devices} x {chip.name if chip else report.kind}, mesh {mesh}; compiled in "
        f"{report.compile_seconds:.0f} s",
        "",
        "memory of one device",
        f"  arguments    {gigabytes(memory.arguments)}",
        f"  temporaries  {gigabytes(memory.temporaries)}",
        f"  output       {gigabytes(memory.output)}, of it {gigabytes(memory.aliased).strip()} "
        "in the arguments' place",
        f"  program      {gigabytes(memory.code)}",
        f"  peak         {gigabytes(memory.peak)} at most{_of_limit(report)}",
        *_stated_peak_lines(report),
        "",
        "one step",
        f"  operations   {report.flops / 1e12:9.2f} TFLOP, the model's own "
        f"{report.model_flops / 1e12:.2f}",
        f"  memory moved {gigabytes(report.traffic)} a device",
        *_traffic_lines(report),
        f"  sent         {gigabytes(report.sent)} a device",
        *_collective_lines(report),
        "",
        *_roofline_lines(report),
    ]
    if report.unknown_loops:
        lines.append(f"counted once, turns unknown: {', '.join(report.unknown_loops)}")
    return "\n".join([*lines, *report.warnings, METHOD])


def gigabytes(size: float) -> str:
    """Bytes as 10^9, eight characters and the unit."""
    return f"{size / 1e9:8.2f} GB"


def _stated_peak_lines(report: StepReport) -> list[str]:
    stated = report.memory.stated_peak
    return (
        []
        if stated is None
        else [f"  the compiler's own estimate of it {gigabytes(stated).strip()}"]
    )


def _of_limit(report: StepReport) -> str:
    limit = report.memory.limit
    if limit is None:
        return "; how much the device has is not known"
    share = 100 * report.memory.peak / limit
    verdict = "" if report.fits else f": {report.verdict.upper()}"
    return f" of {gigabytes(limit).strip()}, {share:.0f}%{verdict}"


def _traffic_lines(report: StepReport) -> list[str]:
    kinds = [f"    {kind:<18} {gigabytes(size)}" for kind, size in report.traffic_by_kind.items()]
    return [
        *kinds,
        f"    of all these       {gigabytes(report.score_traffic)} of scores and weights of "
        "frames' attention",
    ]


def _collective_lines(report: StepReport) -> list[str]:
    return [
        f"    {kind:<18} {total['number']:5} of {gigabytes(total['bytes'])} together"
        for kind, total in sorted(report.collectives.items())
    ] or ["    no collectives"]


def _roofline_lines(report: StepReport) -> list[str]:
    line = report.roofline
    if line is None:
        return [f"no roofline: the peak of {report.kind} is not in vtr_jax/compile/chips.py"]
    return [
        "roofline: a resource is busy for",
        *(f"  {name:<12} {1e3 * getattr(line, key):9.2f} ms" for key, name in RESOURCES.items()),
        f"  step         {1e3 * line.step:9.2f} ms at least ({RESOURCES[line.bound]}): MFU at most "
        f"{100 * line.mfu:.0f}%",
    ]
