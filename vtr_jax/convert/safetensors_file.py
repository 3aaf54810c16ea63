"""Tensors of a .safetensors file, one at a time."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from vtr_jax.convert.lazy_tensor import LazyTensor

SAFETENSORS = "safetensors"

_DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_MAX_HEADER_BYTES = 100 * 2**20


def is_safetensors(path: Path) -> bool:
    """True where the file is named .safetensors or begins with the header of one."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (
        start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _MAX_HEADER_BYTES
    )


def read_safetensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of the file by name.

    ValueError where the file is damaged, cut off or holds a type that no checkpoint here has; the
    message does not repeat the path.
    """
    _require_complete(path)
    tensors = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118  (no mapping, only named like one)
                part = file.get_slice(name)
                dtype = _DTYPES.get(part.get_dtype())
                if dtype is None:
                    raise ValueError(
                        f"{name[:100]!r} has type {part.get_dtype()}, expected one of "
                        f"{', '.join(_DTYPES)}; convert it to F32 before"
                    )
                shape = tuple(part.get_shape())
                tensors[name] = LazyTensor(dtype, shape, partial(_read_tensor, path, name))
    except SafetensorError as error:
        raise ValueError(f"{error}: the file is damaged; download it again") from error
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the file's header, {} for none; ValueError where the file is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path}: {error}: the file is damaged; download it again") from error


def _read_tensor(path: Path, name: str) -> np.ndarray:
    try:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"{path}: {error}: the file is damaged; download it again") from error


def _require_complete(path: Path) -> None:
    """Name the size that is missing, which the library's own message does not."""
    found = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError(
                f"expected a header of at most {_MAX_HEADER_BYTES} bytes, found {length}: "
                "this is no safetensors file"
            )
        header = file.read(length)
    expected = 8 + length + _data_bytes(header)
    if found < max(expected, 8):
        raise ValueError(
            f"expected at least {expected} bytes, found {found}: the file is cut off; "
            "download it again"
        )


def _data_bytes(header: bytes) -> int:
    """Bytes of numbers that the header announces; 0 where it is too damaged to tell."""
    try:
        entries = json.loads(header)
        ends = [value["data_offsets"][1] for key, value in entries.items() if key != "__metadata__"]
        return int(max(ends, default=0))
    except (ValueError, AttributeError, KeyError, IndexError, TypeError, OverflowError):
        return 0
