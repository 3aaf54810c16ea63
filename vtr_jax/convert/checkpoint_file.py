"""One way into every checkpoint file: names, types and shapes at once, numbers when asked for.

file = open_checkpoint("ViT-B-32.pt")
print(file.format, len(file.tensors))
projection = file.tensors["visual.proj"].read()
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr_jax.convert.huggingface_folder import (
    CONFIG,
    INDEX,
    WeightFiles,
    config_name,
    find_weight_files,
    index_files,
    inner_folder,
    read_config,
)
from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.prefixes import clip_prefixes
from vtr_jax.convert.safetensors_file import SAFETENSORS, is_safetensors, read_safetensors
from vtr_jax.convert.state_dict import find_state_dict, open_clip_model_name
from vtr_jax.convert.torch_file import read_torch_file, refuse_kind, require_file, start_of


@dataclass(frozen=True)
class CheckpointFacts:
    """What a model's configuration tells beyond shapes; None where there is no configuration.

    eos_rule: a text is pooled at its largest id ("argmax") or at the first end-of-text id
    ("first_eos", with eos_token_id). config_name: the file that says so.
    """

    vision_heads: int | None = None
    text_heads: int | None = None
    activation: str | None = None
    layer_norm_eps: float | None = None
    eos_rule: str | None = None
    eos_token_id: int | None = None
    config_name: str = "config.json"


@dataclass
class CheckpointFile:
    """An open checkpoint.

    tensors is the flat state_dict, wrapper removed; config is Hugging Face's config.json,
    open_clip's, or None; notes tell what was unwrapped, removed or ignored; sha256 is that of the
    weight file (of the lines "<sha256>  <file name>" where there are several files). facts are
    filled by openai_names. run_name: what open_clip's training calls the run, in its files only.
    """

    path: Path
    format: str
    tensors: dict[str, LazyTensor]
    config: dict[str, Any] | None
    notes: tuple[str, ...]
    sha256: str
    facts: CheckpointFacts = CheckpointFacts()
    run_name: str | None = None


def open_checkpoint(
    path: str | Path, entry: str | None = None, prefix: str | None = None
) -> CheckpointFile:
    """Open a checkpoint file or a Hugging Face folder without executing anything in it.

    The file is read once through for its hash, never into memory.

    Args:
        path: A weight file, an index of shards, or a folder.
        entry: Dotted path of the entry with the weights, e.g. "model_ema"; None to choose.
        prefix: What the wanted names begin with, e.g. "student."; None to infer it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, of another kind, without weights, or asks for anything to be
            executed; the message has the path and the reason.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, entry, prefix)
    if path.name.endswith(INDEX) and path.is_file():
        return _open_files(path.parent, index_files(path), entry, prefix)
    part = _open_file(path, entry, prefix)
    notes = part.notes
    name = config_name(path.parent, path, part.tensors)
    config = read_config(path.parent, name) if name else None
    if config is not None:
        notes = (*notes, f"used {name} from the same folder")
    sha256 = _sha256([path])
    return CheckpointFile(
        path, part.format, part.tensors, config, notes, sha256, run_name=part.run_name
    )


def read_torch_object(path: str | Path) -> Any:
    """Read a PyTorch file as it is: nested dicts, lists and numbers with LazyTensor leaves.

    For files that hold more than weights, e.g. an optimizer's state. Errors as open_checkpoint.
    """
    return read_torch_file(Path(path))[1]


def strip_prefix(file: CheckpointFile, prefix: str) -> CheckpointFile:
    """The same checkpoint with the prefix removed from every name.

    ValueError where a name does not have it: dropping it from some could merge two models.
    """
    others = [name for name in file.tensors if not name.startswith(prefix) or name == prefix]
    if others or not file.tensors:
        raise ValueError(
            f"{file.path}: expected every name to begin with {prefix!r}, found {len(others)} that "
            f"do not ({', '.join(others[:5])}); give the recipe that this checkpoint belongs to"
        )
    tensors = {name.removeprefix(prefix): tensor for name, tensor in file.tensors.items()}
    notes = (*file.notes, f"removed the prefix {prefix!r} from every name")
    return dataclasses.replace(file, tensors=tensors, notes=notes)


@dataclass(frozen=True)
class _Part:
    """What one file contains. run_name: what open_clip's training calls the run."""

    format: str
    tensors: dict[str, LazyTensor]
    notes: tuple[str, ...]
    run_name: str | None = None


def _open_file(path: Path, entry: str | None = None, prefix: str | None = None) -> _Part:
    require_file(path)
    try:
        refuse_kind(start_of(path), path)
        if is_safetensors(path):
            tensors, notes = find_state_dict(read_safetensors(path), entry, prefix)
            return _Part(SAFETENSORS, tensors, notes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    file_format, value = read_torch_file(path)
    try:
        tensors, notes = find_state_dict(value, entry, prefix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return _Part(file_format, tensors, notes, open_clip_model_name(value))


def _has_clip(path: Path) -> bool:
    """Whether a weight file, or the index of one, has CLIP's names."""
    try:
        if path.name.endswith(INDEX):
            return bool(clip_prefixes(index_files(path).shard_of or {}))
        return bool(clip_prefixes(_open_file(path).tensors))
    except (OSError, ValueError):
        return False


def _open_folder(folder: Path, entry: str | None, prefix: str | None) -> CheckpointFile:
    inside = inner_folder(folder)
    if inside is not None:
        if not inside.is_dir():
            raise FileNotFoundError(f"{folder}: its modules.json names {inside.name}, not found")
        file = _open_folder(inside, entry, prefix)
        note = f"took {inside.name}, the CLIP of this sentence-transformers folder"
        return dataclasses.replace(file, notes=(note, *file.notes))
    return _open_files(folder, find_weight_files(folder, _has_clip), entry, prefix)


def _open_files(
    folder: Path, weights: WeightFiles, entry: str | None, prefix: str | None
) -> CheckpointFile:
    tensors: dict[str, LazyTensor] = {}
    notes = [weights.note] if weights.note else []
    file_format, run_name = "", None
    for path in weights.files:
        whole = weights.shard_of is None
        part = _open_file(path, entry, prefix) if whole else _open_shard(path)
        notes.extend(note for note in part.notes if note not in notes)
        found = part.tensors
        if weights.shard_of is not None:
            found = _promised(path, found, weights.shard_of)
        file_format, run_name = part.format, part.run_name
        tensors.update(found)
    if weights.shard_of is not None:
        tensors, joint = _joint_names(folder, tensors, entry, prefix)
        notes.extend(joint)
    name = config_name(folder, weights.files[0], tensors)
    if name is None and weights.shard_of is not None:
        name = CONFIG
    return CheckpointFile(
        folder,
        f"{file_format} (Hugging Face folder)",
        tensors,
        read_config(folder, name) if name else None,
        tuple(notes),
        _sha256(list(weights.files)),
        run_name=run_name,
    )


def _open_shard(path: Path) -> _Part:
    """One of several files: its names are looked at when all are there."""
    require_file(path)
    try:
        refuse_kind(start_of(path), path)
        if is_safetensors(path):
            return _Part(SAFETENSORS, read_safetensors(path), ())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    file_format, value = read_torch_file(path)
    tensors = value if isinstance(value, dict) else {}
    return _Part(file_format, {k: t for k, t in tensors.items() if isinstance(t, LazyTensor)}, ())


def _joint_names(
    folder: Path, tensors: dict[str, LazyTensor], entry: str | None, prefix: str | None
) -> tuple[dict[str, LazyTensor], tuple[str, ...]]:
    try:
        return find_state_dict(tensors, entry, prefix)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _promised(
    path: Path, part: dict[str, LazyTensor], shard_of: dict[str, Path]
) -> dict[str, LazyTensor]:
    """The tensors of one shard, after checking that they are exactly those the index promises."""
    expected = {name for name, file in shard_of.items() if file == path}
    different = sorted(expected ^ set(part))
    if different:
        raise ValueError(
            f"{path}: expected the {len(expected)} tensors that the index names, found "
            f"{len(part)}; {', '.join(different[:5])} stand in only one of them; download the "
            "folder again"
        )
    return part


def _sha256(files: list[Path]) -> str:
    hashes = []
    for path in files:
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(files) == 1:
        return hashes[0]
    lines = [f"{digest}  {path.name}\n" for digest, path in zip(hashes, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
