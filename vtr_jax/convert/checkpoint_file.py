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

from vtr_jax.convert.huggingface_folder import config_name, find_weight_files, read_config
from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.safetensors_file import SAFETENSORS, is_safetensors, read_safetensors
from vtr_jax.convert.state_dict import find_state_dict
from vtr_jax.convert.torch_file import read_torch_file, require_file


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
    filled by openai_names.
    """

    path: Path
    format: str
    tensors: dict[str, LazyTensor]
    config: dict[str, Any] | None
    notes: tuple[str, ...]
    sha256: str
    facts: CheckpointFacts = CheckpointFacts()


def open_checkpoint(path: str | Path) -> CheckpointFile:
    """Open a checkpoint file or a Hugging Face folder without executing anything in it.

    The file is read once through for its hash, never into memory. FileNotFoundError where it is
    missing; ValueError with the path and the reason where it is damaged, of another kind, holds
    no weights, or asks for anything to be executed.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    file_format, tensors, notes = _open_file(path)
    name = config_name(path)
    config = read_config(path.parent, name) if name else None
    if config is not None:
        notes = (*notes, f"used {name} from the same folder")
    return CheckpointFile(path, file_format, tensors, config, notes, _sha256([path]))


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


def _open_file(path: Path) -> tuple[str, dict[str, LazyTensor], tuple[str, ...]]:
    require_file(path)
    try:
        if is_safetensors(path):
            tensors, notes = find_state_dict(read_safetensors(path))
            return SAFETENSORS, tensors, notes
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    file_format, value = read_torch_file(path)
    try:
        tensors, notes = find_state_dict(value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return file_format, tensors, notes


def _open_folder(folder: Path) -> CheckpointFile:
    weights = find_weight_files(folder)
    tensors: dict[str, LazyTensor] = {}
    notes: list[str] = []
    file_format = ""
    for path in weights.files:
        file_format, part, part_notes = _open_file(path)
        notes.extend(note for note in part_notes if note not in notes)
        if weights.shard_of is not None:
            part = _promised(path, part, weights.shard_of)
        tensors.update(part)
    return CheckpointFile(
        folder,
        f"{file_format} (Hugging Face folder)",
        tensors,
        read_config(folder, config_name(weights.files[0]) or "config.json"),
        tuple(notes),
        _sha256(list(weights.files)),
    )


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
