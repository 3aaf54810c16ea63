"""A Hugging Face folder: weights in one or several files, and config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# What open_clip puts into a folder beside, or instead of, the above.
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_MAX_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True)
class WeightFiles:
    """Files that together hold the weights. shard_of: file of every name, None for one file."""

    files: tuple[Path, ...]
    shard_of: dict[str, Path] | None = None


def find_weight_files(folder: Path) -> WeightFiles:
    """The weight files of the folder, safetensors before PyTorch's.

    ValueError where there are none, FileNotFoundError where a shard of the index is missing.
    """
    for name in (*WEIGHT_FILES, *OPEN_CLIP_FILES):
        path = folder / name
        if path.is_file():
            return _shards(path) if name.endswith(".json") else WeightFiles((path,))
    found = sorted(entry.name for entry in folder.iterdir())
    raise ValueError(
        f"{folder}: expected one of {', '.join(WEIGHT_FILES)} in this folder, found "
        f"{', '.join(found[:10]) or 'nothing'}; Flax, TensorFlow and other weights cannot be read, "
        "give the PyTorch or safetensors ones"
    )


def config_name(weights: Path) -> str | None:
    """The name of the configuration that stands beside a weight file of that name, or None."""
    if weights.name in OPEN_CLIP_FILES:
        return "open_clip_config.json"
    return "config.json" if weights.name in WEIGHT_FILES else None


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any] | None:
    """A configuration file of the folder, or None; ValueError where it is no JSON object."""
    path = folder / name
    return _read_object(path) if path.is_file() else None


def _shards(index: Path) -> WeightFiles:
    weight_map = _read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: expected an entry weight_map of names and files; found none")
    for file in weight_map.values():
        if not isinstance(file, str) or Path(file).name != file or file in ("", ".."):
            raise ValueError(
                f"{index}: expected plain file names in weight_map, found {str(file)[:100]!r}; "
                "refused, since it may lead out of the folder"
            )
    missing = sorted({file for file in weight_map.values() if not (index.parent / file).is_file()})
    if missing:
        raise FileNotFoundError(
            f"{index}: it names {len(missing)} files that are missing here "
            f"({', '.join(missing[:5])}); download them into the same folder"
        )
    shard_of = {name: index.parent / file for name, file in weight_map.items()}
    return WeightFiles(tuple(sorted(set(shard_of.values()))), shard_of)


def _read_object(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"{path}: expected a small JSON file, found {path.stat().st_size} bytes")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: this is no JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, found a {type(value).__name__}")
    return value
