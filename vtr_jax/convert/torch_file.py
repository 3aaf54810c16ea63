"""Reading any file of torch.save or TorchScript, by what is in it and not by its name."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from vtr_jax.convert.torch_legacy import TORCH_LEGACY, is_torch_legacy, read_torch_legacy
from vtr_jax.convert.torch_zip import read_torch_zip

SUPPORTED = (
    "OpenAI's TorchScript archives, files of torch.save (zip and legacy), .safetensors files, and "
    "Hugging Face folders with model.safetensors or pytorch_model.bin"
)
_OTHER_KINDS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (Keras or TensorFlow weights)",
    b"\x93NUMPY": "a NumPy array file",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip file; unpack it",
    b"<": "a web page or XML; the download probably failed",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with git lfs pull",
}
_TEXT = frozenset(string.printable.encode())


def read_torch_file(path: Path) -> tuple[str, Any]:
    """Read a PyTorch file: (its format in words, the object with LazyTensor leaves).

    Dicts, lists, tuples, numbers and text are Python's; a TorchScript module is a ScriptNode.
    Nothing in the file is executed. FileNotFoundError, or ValueError with the path and the reason.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(64)
        if start.startswith(b"PK"):
            return read_torch_zip(path)
        if is_torch_legacy(path):
            return TORCH_LEGACY, read_torch_legacy(path)
        raise ValueError(f"this is {_kind(start)}, expected one of: {SUPPORTED}")
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


def _kind(start: bytes) -> str:
    for signature, words in _OTHER_KINDS.items():
        if start.startswith(signature):
            return words
    if start[:1] == b"\x80":
        return "a plain Python pickle, not written by torch.save (nothing in it was executed)"
    if all(byte in _TEXT for byte in start):
        return "a text file"
    return "no file of a known form, or a damaged or cut-off one"
