"""Reading any file of torch.save or TorchScript, by what is in it and not by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtr_jax.convert.foreign_files import file_kind, unknown_kind
from vtr_jax.convert.torch_legacy import TORCH_LEGACY, is_torch_legacy, read_torch_legacy
from vtr_jax.convert.torch_zip import read_torch_zip

SUPPORTED = (
    "OpenAI's TorchScript archives, files of torch.save (zip and legacy), .safetensors files, and "
    "Hugging Face folders with model.safetensors or pytorch_model.bin"
)


def read_torch_file(path: Path) -> tuple[str, Any]:
    """Read a PyTorch file: (its format in words, the object with LazyTensor leaves).

    Dicts, lists, tuples, numbers and text are Python's; a TorchScript module is a ScriptNode.
    Nothing in the file is executed. FileNotFoundError, or ValueError with the path and the reason.
    """
    require_file(path)
    try:
        start = start_of(path)
        refuse_kind(start, path)
        if start.startswith(b"PK"):
            return read_torch_zip(path)
        if is_torch_legacy(path):
            return TORCH_LEGACY, read_torch_legacy(path)
        raise ValueError(f"this is {unknown_kind(start)}, expected one of: {SUPPORTED}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def require_file(path: Path) -> None:
    """Refuse what is missing, empty or no regular file, before anything is read."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file or folder; give a downloaded checkpoint ({SUPPORTED})"
        )
    if not path.is_file():
        raise ValueError(f"{path}: expected a checkpoint file, found a folder or device")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: expected a checkpoint, found 0 bytes; download it again")


def start_of(path: Path) -> bytes:
    """Return the first bytes of a file, enough to recognize its kind."""
    with path.open("rb") as file:
        return file.read(512)


def refuse_kind(start: bytes, path: Path) -> None:
    """Raise ValueError, without the path, for a file of a known kind that is not a checkpoint."""
    kind = file_kind(start, path)
    if kind is not None:
        expected = "" if ";" in kind else f", expected one of: {SUPPORTED}"  # it has its own advice
        raise ValueError(f"this is {kind}{expected}")
