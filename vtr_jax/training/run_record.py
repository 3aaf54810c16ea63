"""WORKDIR/run.json: every resolved setting of a run, so that only the same run resumes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtr_jax.files import write_atomically

RUN_FILE = "run.json"

# Settings that may differ when a run is resumed. The mesh decides the order of sums, so that
# another one changes the last bits; the others change no parameter.
FREE_SETTINGS = (
    "log_every",
    "checkpoint_every",
    "keep_last",
    "tensorboard",
    "data.num_threads",
    "data.store",
    "data.annotations",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "evaluation.batch_size",
    "evaluation.tile",
)


def write_record(workdir: Path, resolved: Mapping[str, Any]) -> None:
    """Write run.json: the settings, hashes of the splits, how the frame store was made."""
    text = json.dumps(resolved, indent=2) + "\n"
    write_atomically(workdir / RUN_FILE, text.encode())


def check_same_run(workdir: Path, resolved: Mapping[str, Any]) -> None:
    """Refuse a directory that holds something, unless it is a run of these very settings.

    Raises FileExistsError for other files, ValueError listing the settings that differ.
    """
    if (workdir / RUN_FILE).is_file():
        _refuse_differences(workdir, resolved)
    elif workdir.is_dir() and any(map(_is_foreign, workdir.iterdir())):
        raise FileExistsError(f"{workdir} is not empty and holds no run; choose another --workdir")


def _is_foreign(entry: Path) -> bool:
    # A run that was killed while it wrote its first file has left a part of that.
    return not entry.name.startswith(RUN_FILE)


def _refuse_differences(workdir: Path, resolved: Mapping[str, Any]) -> None:
    path = workdir / RUN_FILE
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); choose another --workdir") from error
    differences = differing_settings(resolved, saved)
    if differences:
        lines = "\n  ".join(differences)
        raise ValueError(
            f"{workdir} holds a run with other settings; resume it with those, or choose another "
            f"--workdir:\n  {lines}"
        )


def differing_settings(config: Mapping, other: Mapping, prefix: str = "") -> list[str]:
    """Settings of two resolved configs that differ and decide the parameters, as readable lines."""
    lines: list[str] = []
    for name in sorted(config.keys() | other.keys()):
        path = f"{prefix}{name}"
        ours, theirs = config.get(name), other.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            lines += differing_settings(ours, theirs, f"{path}.")
        elif ours != theirs and path not in FREE_SETTINGS:
            lines.append(f"{path}: {ours!r} now, {theirs!r} in the run")
    return lines
