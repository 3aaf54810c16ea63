"""A Hugging Face folder: weights in one or several files, and config.json."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vtr_jax.convert.foreign_files import lfs_pointer, refuse_folder
from vtr_jax.convert.lazy_tensor import LazyTensor

# In order of preference.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# What open_clip puts into a folder next to, or instead of, these.
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
CONFIG = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
INDEX = ".index.json"
_OTHER_WEIGHTS = re.compile(
    r"(?!training_args|optimizer|scheduler|rng_state).*\.(safetensors|bin|pt|pth|ckpt)(\.\d+)?"
)
_SHARD = re.compile(r".*-\d{5}-of-\d{5}\..*")
_MAX_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True)
class WeightFiles:
    """Files that together hold the weights.

    shard_of: file of every name, None for one file. note: why this one of several was chosen.
    """

    files: tuple[Path, ...]
    shard_of: dict[str, Path] | None = None
    note: str | None = None


def find_weight_files(folder: Path, is_clip: Callable[[Path], bool]) -> WeightFiles:
    """Find the weights in a folder: by the usual names, and by content if there are several.

    Args:
        folder: The folder.
        is_clip: Whether the weight file at a path has CLIP's names.

    Raises:
        FileNotFoundError: A shard of the index is missing.
        ValueError: There are no weights, or several files with a CLIP and no usual name.
    """
    refuse_folder(folder)
    usual = [folder / name for name in (*WEIGHT_FILES, *OPEN_CLIP_FILES)]
    usual = [path for path in usual if path.is_file()]
    others = sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and _OTHER_WEIGHTS.fullmatch(path.name)
        and not _SHARD.fullmatch(path.name)
        and path not in usual
    )
    if len(usual) == 1 and not others:
        return _files(usual[0])
    for path in usual:
        if is_clip(path):
            return _files(path, _why(path, usual, others))
    clips = [path for path in others if len(usual) + len(others) == 1 or is_clip(path)]
    if len(clips) == 1:
        return _files(clips[0], _why(clips[0], usual, others))
    if clips:
        names = [path.name for path in clips]
        raise ValueError(
            f"{folder}: expected one weight file, found {len(names)} with a CLIP "
            f"({', '.join(names[:6])}); give the one that is meant: {clips[0]}"
        )
    if usual:
        return _files(usual[0])
    found = sorted(entry.name for entry in folder.iterdir())
    raise ValueError(
        f"{folder}: expected one of {', '.join(WEIGHT_FILES)} in this folder, found "
        f"{', '.join(found[:10]) or 'nothing'}; Flax, TensorFlow and other weights cannot be read, "
        "give the PyTorch or safetensors ones"
    )


def inner_folder(folder: Path) -> Path | None:
    """Return where a sentence-transformers folder keeps its CLIP, None for another folder."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return None
    try:
        listed = json.loads(modules.read_text(encoding="utf-8"))
        paths = [module["path"] for module in listed if "CLIP" in module["type"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{modules}: expected a list of modules ({error})") from error
    plain = [path for path in paths if path and Path(path).name == path]
    if not paths:
        types = ", ".join(str(module["type"])[:80] for module in listed)
        raise ValueError(
            f"{folder}: a sentence-transformers folder without a CLIP module (found {types}); only "
            "CLIP models can be converted"
        )
    return folder / plain[0] if plain else None


def index_files(index: Path) -> WeightFiles:
    """Return the shards that an index file names; errors as find_weight_files."""
    return _shards(index)


def config_name(folder: Path, weights: Path, tensors: Mapping[str, LazyTensor]) -> str | None:
    """Return the name of the configuration file that belongs to a weight file, or None.

    Whatever the weight file is called: open_clip's file for OpenAI's and open_clip's names, else
    config.json of a CLIP. Next to a file without a usual name it counts only if its sizes fit.
    """
    huggingface = any(".embeddings." in f".{name}" for name in tensors)
    from_open_clip = weights.name in OPEN_CLIP_FILES or not huggingface
    usual = weights.name in (*WEIGHT_FILES, *OPEN_CLIP_FILES)
    for name in (OPEN_CLIP_CONFIG, CONFIG) if from_open_clip else (CONFIG,):
        path = folder / name
        if not path.is_file() or (name == OPEN_CLIP_CONFIG and weights.name in WEIGHT_FILES):
            continue
        if usual or _fits(_read_object(path), tensors):
            return name
    return None


def _fits(config: Mapping[str, Any], tensors: Mapping[str, LazyTensor]) -> bool:
    """Whether a configuration is a CLIP's and states the widths and patch size of the tensors."""
    model = config.get("model_cfg")
    if model is None and config.get("model_type") != "clip":
        return False
    sections = (
        [model.get(name) for name in ("text_cfg", "vision_cfg")]
        if isinstance(model, dict)
        else [config.get(name) for name in ("text_config", "vision_config")]
    )
    text, vision = (section if isinstance(section, dict) else {} for section in sections)
    stated = {
        ("token_embedding.weight", 1): text.get("hidden_size", text.get("width")),
        ("class_embedding", 0): vision.get("hidden_size", vision.get("width")),
        ("conv1.weight", -1): vision.get("patch_size"),
        ("patch_embedding.weight", -1): vision.get("patch_size"),
    }
    for name, tensor in tensors.items():
        for (suffix, axis), size in stated.items():
            if name.endswith(suffix) and size is not None and tensor.shape[axis:][:1] != (size,):
                return False
    return True


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any] | None:
    """A configuration file of the folder, or None; ValueError where it is no JSON object."""
    path = folder / name
    return _read_object(path) if path.is_file() else None


def _files(path: Path, note: str | None = None) -> WeightFiles:
    files = _shards(path) if path.name.endswith(INDEX) else WeightFiles((path,))
    return replace(files, note=note)


def _why(path: Path, usual: list[Path], others: list[Path]) -> str | None:
    more = [other.name for other in (*usual, *others) if other != path]
    if not more:
        return None
    better = usual[: usual.index(path)] if path in usual else usual
    reason = "the first with CLIP's names" if better else "the usual name"
    reason = reason if path in usual else "the only one with CLIP's names"
    return f"took {path.name} ({reason}); the folder also has {', '.join(more[:5])}"


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
    if lfs_pointer(path.read_bytes()[:64]):
        raise ValueError(f"{path}: this is a Git LFS pointer; fetch the file with git lfs pull")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: this is no JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, found a {type(value).__name__}")
    return value
