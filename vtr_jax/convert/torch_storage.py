"""The raw number blocks (storages) of PyTorch files, and tensors as checked views of them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import ml_dtypes
import numpy as np

from vtr_jax.convert.lazy_tensor import LazyTensor

STORAGE_DTYPES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
    "ComplexFloatStorage": np.dtype("<c8"),
    "ComplexDoubleStorage": np.dtype("<c16"),
    "QInt8Storage": np.dtype("i1"),
    "QUInt8Storage": np.dtype("u1"),
    "QInt32Storage": np.dtype("<i4"),
    "UntypedStorage": np.dtype("u1"),
}
MAX_DIMENSIONS = 32
_MAX_EXPANDED_BYTES = 64 * 2**20
_LARGEST_INT = 2**63


class ByteSource(Protocol):
    """A run of bytes somewhere in a file."""

    @property
    def length(self) -> int:
        """Bytes there are."""

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill the buffer with the bytes from `start` on."""


@dataclass(frozen=True)
class FileRange:
    """Bytes that stand in a file as they are. crc32: their recorded checksum, if there is one."""

    path: Path
    offset: int
    length: int
    crc32: int | None = None

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill the buffer from byte `start` of the range; ValueError if the file is damaged."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + start)
            filled = 0
            while filled < len(buffer):
                count = file.readinto(buffer[filled:])
                if not count:
                    raise ValueError(
                        f"{self.path}: expected {len(buffer)} bytes at {self.offset + start}, "
                        f"found {filled}: the file became shorter; download or copy it again"
                    )
                filled += count
        if self.crc32 is not None and len(buffer) == self.length:
            self._check(zlib.crc32(buffer))

    def _check(self, found: int) -> None:
        if found != self.crc32:
            raise ValueError(
                f"{self.path}: the {self.length} bytes at {self.offset} have checksum {found:08x}, "
                f"the archive records {self.crc32:08x}: the file is damaged; download it again "
                "(or, if it was saved with checksums switched off, save it again with them)"
            )


@dataclass
class Storage:
    """`count` numbers of one dtype. The source is None until the reader knows where they lie."""

    dtype: np.dtype
    count: int
    source: ByteSource | None = None


def storage_request(reference: object) -> tuple[np.dtype, str, int]:
    """Check a file's reference to a storage: its dtype, key and number of elements.

    References are tuples ('storage', type, key, device, count) with, in old files, a sixth part.
    """
    if isinstance(reference, tuple) and reference[:1] == ("module",):
        raise ValueError(
            "it holds a whole module with its class, which is never run; save only the weights: "
            "torch.save(model.state_dict(), path)"
        )
    if not isinstance(reference, tuple) or len(reference) not in (5, 6):
        raise ValueError("a reference to stored numbers is malformed: the file is damaged")
    word, dtype, key, _device, count = reference[:5]
    if word != "storage" or not isinstance(dtype, np.dtype) or not isinstance(key, str):
        raise ValueError(
            "a reference to stored numbers is malformed: the file is damaged, or it holds a whole "
            "module; save only the weights: torch.save(model.state_dict(), path)"
        )
    if reference[5:] not in ((), (None,)):
        raise ValueError(
            "it stores views of storages, as PyTorch before 0.4 did; "
            "load it in PyTorch and save the state_dict again"
        )
    _require_sizes("number of stored elements", (count,))
    return dtype, key, count


def tensor_view(storage: object, offset: object, shape: object, strides: object) -> LazyTensor:
    """The tensor of `shape` that starts at element `offset` of a storage, strides in elements.

    ValueError where the view would leave its storage or blow it up beyond any real checkpoint.
    """
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without stored numbers: the file is damaged")
    sizes = _integers("shape", shape)
    steps = _integers("strides", strides)
    (start,) = _integers("offset", (offset,))
    if len(sizes) != len(steps):
        raise ValueError(
            f"a tensor has {len(sizes)} sizes and {len(steps)} strides: the file is damaged"
        )
    elements = math.prod(sizes)
    span = _span(sizes, steps) if elements else 0
    if start + span > storage.count:
        raise ValueError(
            f"a tensor of shape {sizes} reaches element {start + span} of a storage "
            f"of {storage.count}: the file is damaged; download it again"
        )
    if elements * storage.dtype.itemsize > max(
        storage.count * storage.dtype.itemsize, _MAX_EXPANDED_BYTES
    ):
        raise ValueError(
            f"a tensor of shape {sizes} repeats a storage of {storage.count} elements to "
            f"{elements}; load the file in PyTorch and save .contiguous() tensors"
        )
    load = partial(_read_view, storage, start, sizes, steps)
    return LazyTensor(storage.dtype, sizes, load)


def _read_view(
    storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> np.ndarray:
    if storage.source is None:
        raise ValueError("the storage was never located")
    if math.prod(shape) == 0:
        return np.empty(shape, storage.dtype)
    itemsize = storage.dtype.itemsize
    numbers = np.empty(_span(shape, strides), storage.dtype)
    storage.source.read_into(offset * itemsize, numbers.view(np.uint8).data)
    if _is_contiguous(shape, strides):
        return numbers.reshape(shape)
    steps = tuple(stride * itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(numbers, shape, steps).copy(order="C")


def _span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to the last one that the view touches."""
    return 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))


def _is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    expected = 1
    for size, step in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


def _integers(what: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MAX_DIMENSIONS:
        raise ValueError(
            f"a tensor's {what} is no list of up to {MAX_DIMENSIONS} numbers: the file is damaged"
        )
    _require_sizes(what, values)
    return tuple(values)


def _require_sizes(what: str, values: Sequence[object]) -> None:
    for value in values:
        # bool is an int to Python, but no file means one by a size.
        if type(value) is not int or not 0 <= value < _LARGEST_INT:
            raise ValueError(
                f"a tensor's {what} is not made of whole numbers from 0 on: the file is damaged"
            )
