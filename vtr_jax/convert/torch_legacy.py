"""The form that torch.save wrote before PyTorch 1.6.

Five pickles in a row (magic number, protocol, machine, object, storage keys), then for every key in
that order an int64 element count and the raw numbers.
"""

from __future__ import annotations

import mmap
import pickletools
import struct
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from vtr_jax.convert.torch_pickle import MAX_PICKLE_BYTES, read_pickle
from vtr_jax.convert.torch_storage import FileRange, Storage, storage_request

TORCH_LEGACY = "torch.save (legacy)"

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_COUNT = struct.Struct("<q")


def is_torch_legacy(path: Path) -> bool:
    """True where the file begins with the magic number of torch.save."""
    with path.open("rb") as file:
        start = file.read(64)
    try:
        # Protocol 4 puts a frame around the number, so it is among the first three instructions.
        return any(
            argument == _MAGIC for _opcode, argument, _at in islice(pickletools.genops(start), 3)
        )
    except ValueError:
        return False


def read_torch_legacy(path: Path) -> Any:
    """Read the object of a legacy file, with LazyTensor leaves.

    ValueError for anything else than an undamaged little-endian file of weights; the message does
    not repeat the path.
    """
    storages: dict[str, Storage] = {}
    with path.open("rb") as file:
        size = file.seek(0, 2)
        with mmap.mmap(
            file.fileno(), min(size, MAX_PICKLE_BYTES), access=mmap.ACCESS_READ
        ) as content:
            value, keys = _described(content, storages, size)
            start = content.tell()
        _locate(path, file, start, [storages[key] for key in keys])
    return value


def _described(
    content: mmap.mmap, storages: dict[str, Storage], size: int
) -> tuple[Any, list[str]]:
    """The object and the keys of its storages in file order; the stream ends after them."""

    def load(reference: object) -> Storage:
        dtype, key, count = storage_request(reference)
        storage = storages.setdefault(key, Storage(dtype, count))
        if (storage.dtype, storage.count) != (dtype, count):
            raise ValueError(f"storage {key[:50]!r} is described in two ways: the file is damaged")
        return storage

    try:
        read_pickle(content, _no_storage)
        protocol = read_pickle(content, _no_storage)
        machine = read_pickle(content, _no_storage)
        _require_known(protocol, machine)
        value = read_pickle(content, load)
        keys = read_pickle(content, _no_storage)
    except ValueError as error:
        if content.tell() < len(content):
            raise
        raise ValueError(
            f"expected a description of its contents and then the numbers, found {size} bytes "
            "that end inside the description: the file is cut off or damaged; download it again"
        ) from error
    if not isinstance(keys, list) or any(type(key) is not str for key in keys):
        raise ValueError("its list of storages is damaged; download the file again")
    if len(set(keys)) != len(keys) or set(keys) != set(storages):
        raise ValueError(
            f"its list has {len(keys)} storages, its tensors need {len(storages)} others: "
            "the file is damaged; download it again"
        )
    return value, keys


def _no_storage(_reference: object) -> Storage:
    raise ValueError("its header refers to stored numbers: the file is damaged; download it again")


def _require_known(protocol: object, machine: object) -> None:
    if protocol != _PROTOCOL:
        raise ValueError(
            f"expected protocol {_PROTOCOL} of torch.save; the file has another one: load it in "
            "PyTorch and save the state_dict again"
        )
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError(
            "expected byte order little, found big or none; load the file in PyTorch on the kind "
            "of machine that wrote it and save it as safetensors"
        )


def _locate(path: Path, file: BinaryIO, start: int, storages: list[Storage]) -> None:
    """Give every storage its place in the file, after checking the count that stands before it."""
    sizes = [storage.count * storage.dtype.itemsize for storage in storages]
    expected = start + sum(sizes) + _COUNT.size * len(sizes)
    found = file.seek(0, 2)
    if found < expected:
        raise ValueError(
            f"expected {expected} bytes, found {found}: the file is cut off; download it again"
        )
    offset = start
    for storage, nbytes in zip(storages, sizes, strict=True):
        file.seek(offset)
        (count,) = _COUNT.unpack(file.read(_COUNT.size))
        if count != storage.count:
            raise ValueError(
                f"expected {storage.count} elements in the storage at byte {offset}, found "
                f"{count}: the file is damaged; download it again"
            )
        offset += _COUNT.size
        storage.source = FileRange(path, offset, nbytes)
        offset += nbytes
