"""What `vtr compile` is told, and what it prints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from vtr_jax.compile.analysis import StepReport, compile_step
from vtr_jax.compile.search import search, search_table
from vtr_jax.compile.text import report_text, report_values, settings_of
from vtr_jax.compile.topology import topology_devices

EPILOG = (
    "--config.name=value replaces a setting, as for `vtr train`. "
    "A pod is compiled for without having one: pip install 'vtr_jax[compile]'. "
    "One line of progress a compilation goes to the standard output, except with --json."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `vtr compile` beside --config.NAME=VALUE."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="RECIPE[:VARIANT]",
        help="recipe or recipe file, as for `vtr train`",
    )
    parser.add_argument(
        "--topology",
        metavar="NAME",
        help="TPU slice such as v5e:2x4, v5e:16x16, v5p:4x4x8; default: the devices here",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="try values of mesh, remat and micro_batch_size, in place of those given, best "
        "first; a minute or more each",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run_compile(config: ConfigDict, topology: str | None, searches: bool, as_json: bool) -> str:
    """The report on a config, as text or as one JSON object.

    Raises ValueError without libtpu, for an unknown topology, for a mesh or a batch that does not
    fit it, and DoesNotFit, one of its kind, where the compiler finds too little memory.
    """
    devices = target_devices(topology)
    config = resolved_for(config, devices)
    about = {"topology": topology, "config": settings_of(config), "jax": jax.__version__}
    if not searches:
        report = compile_step(config, devices)
        if as_json:
            return json.dumps({**about, "report": report_values(report)}, indent=1)
        return report_text(config, report)
    if as_json:
        outcomes = search(config, devices, tell=lambda line: None)
        rows = [
            {**vars(each.trial), "reason": each.reason, "report": _values(each.report)}
            for each in outcomes
        ]
        return json.dumps({**about, "search": rows}, indent=1)
    return search_table(search(config, devices))


def _values(report: StepReport | None) -> dict[str, Any] | None:
    return None if report is None else report_values(report)


def target_devices(topology: str | None) -> Sequence[jax.Device]:
    """The devices of a described slice, or without one those of this machine."""
    return topology_devices(topology) if topology else jax.devices()


def resolved_for(config: ConfigDict, devices: Sequence[jax.Device]) -> ConfigDict:
    """A copy of a config whose compute_dtype "auto" is what those devices would train with."""
    resolved = config.copy_and_resolve_references()
    if resolved.compute_dtype == "auto":
        on_cpu = devices[0].platform == "cpu"
        resolved.compute_dtype = "float32" if on_cpu else "bfloat16"
    return resolved
