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

from vtr_jax.parity.kinds import recorded_system
from vtr_jax.parity.systems import SYSTEMS

LOGIT_SCALE = np.array(2.6592, np.float32)


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
    """The state dict of a case, by original key; float32, some rounded to float16 and back."""
    salt, overrides = case.record["salt"], case.record.get("overrides", {})
    halves = {*case.record.get("fp16_rounded_keys", ()), *SYSTEMS[case.system].half_keys(case)}

    def weight(key: str, shape: list[int]) -> np.ndarray:
        full = full_weight(key, shape)
        return full.astype(np.float16).astype(np.float32) if key in halves else full

    def full_weight(key: str, shape: list[int]) -> np.ndarray:
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


def find_cases(folder: Path) -> Iterator[Path]:
    """Every case's JSON below a folder, in order."""
    return iter(sorted(path for path in folder.rglob("*.json") if path.name != "config.json"))


def system_cases(folder: Path, system: str) -> list[Path]:
    """Every case of a system below a folder, in order; "metrics", "frames" and so on are systems.

    Raises json.JSONDecodeError for a file below it that is no JSON.
    """

    def recorded(path: Path) -> str:
        return recorded_system(path, json.loads(path.read_text(encoding="utf-8")))

    return [path for path in find_cases(folder) if recorded(path) == system]


def case_file(path: Path, record: dict[str, Any]) -> Path | None:
    """The checkpoint that a case of kind "file" is about, None where no file is named.

    A folder for the Hugging Face layout.
    """
    if "file" not in record:
        return None
    file = path.parent / record["file"].split(" ")[0]
    return file.parent if file.name == "model.safetensors" else file


def load_case(path: Path) -> Case:
    """A case of kind "model" or "file".

    A file's record may name the recorded case whose numbers it reproduces ("reproduces",
    "golden"); then the case is that one. Raises ValueError for a record without configuration.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    elsewhere = record.get("reproduces") or record.get("golden")
    if elsewhere:
        return load_case((path.parent / elsewhere).resolve().with_suffix(".json"))
    if "config" not in record:
        raise ValueError(f"{path}: a recorded case needs a configuration ('config')")
    return Case(path, recorded_system(path, record), record["config"], record)
