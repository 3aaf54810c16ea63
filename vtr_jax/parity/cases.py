"""Recorded cases: CASE.json (configuration, names, shapes) and CASE.npz (inputs and results).

Weights and frames are not stored: both are functions of a salt and a name.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LOGIT_SCALE = np.array(2.6592, np.float32)

# Recorded for the reader, not to be equalled.
INFORMATION = {
    ("clip4clip", "allgather"),
    ("clip4clip", "half-meanP-2d"),
    ("clip4clip", "bertadam-half"),
}
KIND_OF_NAME = {
    ("clip4clip", "bertadam"): "optimizer",
    ("clip4clip", "bertadam-innerclip"): "optimizer",
    ("clip4clip", "freeze"): "freeze",
    ("clip4clip", "init-trick"): "initialisation",
}
KIND_OF_SYSTEM = {
    "metrics": "evaluation",
    "eval_protocol": "evaluation",
    "tokenizer": "data",
    "frames": "data",
}
NOT_BUILT_SYSTEMS = ("drl", "backbone_tvr", "emcl", "eercf", "internvideo")
NOT_BUILT_HEADS = {"clip4clip": ("seqLSTM", "tightTransf")}
FILE_SYSTEMS = {"clip-file": "clip", "clip4clip-file": "clip4clip"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One recorded configuration of one system; system is the recipe's name."""

    path: Path
    system: str
    config: dict[str, Any]
    record: dict[str, Any]

    @property
    def name(self) -> str:
        """Folder and file name, as test reports show it."""
        return f"{self.path.parent.name}/{self.path.stem}"

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything in the npz by name."""
        with np.load(self.path.with_suffix(".npz")) as stored:
            return dict(stored)


def fill(salt: str, name: str, shape: tuple[int, ...] | list[int]) -> np.ndarray:
    """The weights that a recorded case has under a name: float32 of that shape."""
    if name.endswith("logit_scale"):
        return LOGIT_SCALE
    seed = zlib.crc32(f"{salt}/{name}".encode())
    normal = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if len(shape) <= 1:
        return 1 + 0.1 * normal if leaf in ("weight", "gamma") else 0.1 * normal
    fan_in = np.sqrt(np.prod(shape[1:]))
    return (0.5 * normal.astype(np.float64) / fan_in).astype(np.float32)


def case_weights(case: Case) -> dict[str, np.ndarray]:
    """The state dict of a case, by original key."""
    salt, overrides = case.record["salt"], case.record.get("overrides", {})

    def weight(key: str, shape: list[int]) -> np.ndarray:
        override = overrides.get(key)
        if override is None:
            return fill(salt, key, shape)
        if isinstance(override, str):
            return (np.eye(shape[0]) + 0.05 * fill(salt, key, shape)).astype(np.float32)
        return np.full(shape, override, np.float32)

    return {key: weight(key, shape) for key, shape in case.record["keys"].items()}


def normal_frames(salt: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Already normalised pictures, channels first as recorded, float32 of that shape."""
    seed = zlib.crc32(f"{salt}/{name}".encode())
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def system_of(path: Path, record: Any) -> str:
    """The system a case belongs to: what the record says, else the folder's name."""
    named = record.get("system") if isinstance(record, dict) else None
    folder = path.parent.name
    return folder if folder in KIND_OF_SYSTEM or named is None else named


def kind_of(path: Path) -> str:
    """What kind of case a JSON file is.

    "model", "file", "optimizer", "freeze", "initialisation", "evaluation", "data", "tensor-file",
    "information", or "not built: NAME" for a system or head of the design that is still to
    come. Raises ValueError for any other.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    system, name = system_of(path, record), path.stem
    owner = FILE_SYSTEMS.get(system, system.removesuffix("-file"))
    if owner in NOT_BUILT_SYSTEMS or path.parent.name in NOT_BUILT_SYSTEMS:
        return f"not built: {owner if owner in NOT_BUILT_SYSTEMS else path.parent.name}"
    if (system, name) in INFORMATION or path.name in ("bad_video_behaviour.json", "config.json"):
        return "information"
    if (system, name) in KIND_OF_NAME:
        return KIND_OF_NAME[(system, name)]
    if system in KIND_OF_SYSTEM:
        return KIND_OF_SYSTEM[system]
    if system == "tensor-file" or name == "clip4clip-pytorch_opt":
        return "tensor-file"
    if owner not in ("clip", "clip4clip"):
        files = NOT_BUILT_SYSTEMS
        if any(name.startswith(each) for each in files):
            return f"not built: {name.split('-')[0]}"
        raise ValueError(f"{path}: unknown system {system!r}")
    header = record["config"].get("task_config", {}).get("sim_header")
    if header in NOT_BUILT_HEADS.get(owner, ()):
        return f"not built: {owner} {header}"
    return "file" if system in FILE_SYSTEMS else "model"


def find_cases(folder: Path) -> Iterator[Path]:
    """Every case's JSON below a folder, in order."""
    return iter(sorted(path for path in folder.rglob("*.json") if path.name != "config.json"))


def load_case(path: Path) -> Case:
    """A case of kind "model" or "file"."""
    record = json.loads(path.read_text(encoding="utf-8"))
    system = system_of(path, record)
    return Case(path, FILE_SYSTEMS.get(system, system), record["config"], record)
