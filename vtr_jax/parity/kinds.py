"""What kind of case a recorded JSON file is, and so which comparison it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vtr_jax.parity.systems import SYSTEMS

DESIGNED_SYSTEMS = (
    "clip",
    "clip4clip",
    "drl",
    "backbone_tvr",
    "emcl",
    "eercf",
    "internvideo",
)

KIND_OF_FOLDER = {
    "metrics": "evaluation",
    "eval_protocol": "evaluation",
    "tokenizer": "data",
    "frames": "data",
}

# Facts about the originals that are no targets.
INFORMATION = ("allgather", "half-meanP-2d", "bertadam-half", "bad_video_behaviour", "config")

KIND_OF_NAME = {
    "freeze": "freeze",
    "init-trick": "initialisation",
    "extra_metrics": "evaluation",
    "operator": "operator",
    "inference_module": "operator",
    "clip4clip-pytorch_opt": "tensor-file",
    "internvideo-files": "merged-files",
}

KIND_OF_PREFIX = {
    "bertadam": "optimizer",
    "extra_bertadam": "recipe-optimizer",
    "eval_": "evaluation",
    "rerank_": "evaluation",
    "dsl_": "evaluation",
    "merge_": "merge",
}


def recorded_system(path: Path, record: Any) -> str:
    """The system a case belongs to: what the record says, else the folder's name."""
    named = record.get("system") if isinstance(record, dict) else None
    folder = path.parent.name
    return folder if folder in KIND_OF_FOLDER or named is None else named.removesuffix("-file")


def _kind_of_name(name: str) -> str | None:
    if name in KIND_OF_NAME:
        return KIND_OF_NAME[name]
    return next((kind for prefix, kind in KIND_OF_PREFIX.items() if name.startswith(prefix)), None)


def kind_of(path: Path) -> str:
    """What kind of case a JSON file is.

    "model", "file", "merge", "merged-files", "operator", "optimizer", "recipe-optimizer", "freeze",
    "initialisation", "evaluation", "data", "tensor-file", "information", or "not built: NAME" for
    a system of the design that is still to come. Raises ValueError for an unknown system, and for
    a record of no known form.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    system, name = recorded_system(path, record), path.stem
    if name in INFORMATION:
        return "information"
    if system in KIND_OF_FOLDER:
        return KIND_OF_FOLDER[system]
    if system == "tensor":
        return "tensor-file"
    if system not in DESIGNED_SYSTEMS:
        raise ValueError(f"{path}: unknown system {system!r}")
    if system not in SYSTEMS:
        return f"not built: {system}"
    kind = _kind_of_name(name)
    if kind is not None:
        return kind
    if "file" in record:
        return "file"
    if "config" in record:
        return "model"
    raise ValueError(f"{path}: a record of {system} without a configuration")
