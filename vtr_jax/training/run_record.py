"""WORKDIR/run.json: every resolved setting of a run, so that only the same run resumes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vtr_jax.files import write_atomically
from vtr_jax.lock import LOCK_FILE

RUN_FILE = "run.json"

# Settings that may differ when a run is resumed. How the model is computed (tiles, micro-batches)
# changes the last bits of sums, as the mesh does; compute_dtype and attention change more of them.
# on_nonfinite and spike_factor decide about bad steps alone. init is read by the first start alone.
# The others change no parameter.
FREE_SETTINGS = (
    "init",
    "compute_dtype",
    "attention",
    "remat",
    "tile",
    "cross_tile",
    "micro_batch_size",
    "on_nonfinite",
    "spike_factor",
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


def check_workdir(workdir: Path) -> None:
    """Raise FileExistsError for a directory that holds something, but no run."""
    if (workdir / RUN_FILE).is_file() or not workdir.is_dir():
        return
    foreign = sorted(entry.name for entry in workdir.iterdir() if _is_foreign(entry))
    if foreign:
        raise FileExistsError(
            f"{workdir} is not empty and holds no run; choose another --workdir (no {RUN_FILE} in "
            f"it, but {', '.join(foreign[:5])})"
        )


def check_same_run(workdir: Path, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse a directory that holds something, unless it is a run of these very settings.

    Returns the settings of the run that it holds, {} if it is empty. Raises FileExistsError for
    other files, ValueError listing the settings that differ.
    """
    check_workdir(workdir)
    saved = read_record(workdir)
    if not saved:
        return {}
    differences = differing_settings(resolved, _with_newer_settings(resolved, saved))
    if differences:
        # What to do comes last: that is the line that everybody reads.
        lines = "\n  ".join(["settings that differ:", *differences])
        raise ValueError(
            f"{lines}\n{workdir} holds a run with other settings; resume it with those, or choose "
            "another --workdir"
        )
    return saved


def _with_newer_settings(resolved: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run with the store settings that an earlier version did not know."""
    from vtr_jax.data.frame_store.settings import StoreSettings

    known = saved.get("store_settings")
    if not isinstance(known, Mapping):
        return dict(saved)
    defaults = StoreSettings().as_dict()
    newer = {name: defaults[name] for name in defaults if name not in known}
    return {**saved, "store_settings": {**known, **newer}}


def _is_foreign(entry: Path) -> bool:
    # A run that was killed while it wrote its first file has left a part of that.
    return entry.name != LOCK_FILE and not entry.name.startswith(RUN_FILE)


def read_record(workdir: Path) -> dict[str, Any]:
    """The contents of run.json, {} where there is none; raises ValueError for a damaged one."""
    path = workdir / RUN_FILE
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error}); choose another --workdir") from error


def differing_settings(config: Mapping, other: Mapping) -> list[str]:
    """Settings of two resolved configs that differ and decide the parameters, as readable lines."""
    return [
        f"{name}: {ours!r} now, {theirs!r} in the run"
        for name, ours, theirs in _differences(config, other)
        if name not in FREE_SETTINGS
    ]


def changed_settings(config: Mapping, other: Mapping) -> list[str]:
    """Settings of two resolved configs that differ although the run is the same one."""
    return [
        f"{name}: {ours!r} now, {theirs!r} before"
        for name, ours, theirs in _differences(config, other)
        if name in FREE_SETTINGS
    ]


def _differences(config: Mapping, other: Mapping, prefix: str = "") -> Iterator[tuple]:
    for name in sorted(config.keys() | other.keys()):
        ours, theirs = config.get(name), other.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from _differences(ours, theirs, f"{prefix}{name}.")
        elif ours != theirs:
            yield f"{prefix}{name}", ours, theirs
