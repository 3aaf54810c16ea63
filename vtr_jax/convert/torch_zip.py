"""The zip form of PyTorch files: torch.save since 1.6, and TorchScript archives.

<stem>/data.pkl describes the object, <stem>/data/<key> holds the numbers, uncompressed as written
by PyTorch (re-packed archives may deflate them).
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

from vtr_jax.convert.foreign_files import archive_kind
from vtr_jax.convert.torch_pickle import MAX_PICKLE_BYTES, read_pickle
from vtr_jax.convert.torch_storage import FileRange, Storage, storage_request

TORCH_ZIP = "torch.save (zip)"
TORCHSCRIPT = "TorchScript archive"

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_BROKEN_ZIP = (
    zipfile.BadZipFile,
    NotImplementedError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)
# Deflate cannot shrink more than this; a higher claim is a bomb.
_MAX_DEFLATE_RATIO = 1032
_CHUNK = 2**20
# Methods that archivers write, by their number in the zip format.
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd"}


@dataclass(frozen=True)
class CompressedEntry:
    """The bytes of a deflated archive entry."""

    path: Path
    name: str
    length: int

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill the buffer from byte `start` of the entry; ValueError if the file is damaged."""
        try:
            with _opened(self.path) as archive, archive.open(self.name) as entry:
                for offset in range(0, start, _CHUNK):
                    _read_exactly(entry, min(_CHUNK, start - offset))
                for offset in range(0, len(buffer), _CHUNK):
                    count = min(_CHUNK, len(buffer) - offset)
                    buffer[offset : offset + count] = _read_exactly(entry, count)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error


def _read_exactly(entry: IO[bytes], count: int) -> bytes:
    part = entry.read(count)
    if len(part) != count:
        raise ValueError("an entry of the archive ends early; download the file again")
    return part


@dataclass
class _Archive:
    """An open archive; `load` finds the storages that the description refers to."""

    path: Path
    file: BinaryIO
    entries: dict[str, zipfile.ZipInfo]
    stem: str
    storages: dict[str, Storage] = field(default_factory=dict)

    def load(self, reference: object) -> Storage:
        """The storage a reference names; ValueError where it is missing or of another size."""
        dtype, key, count = storage_request(reference)
        storage = self.storages.get(key)
        if storage is None:
            nbytes = count * dtype.itemsize
            source = self._source(f"{self.stem}/data/{key}", nbytes)
            storage = self.storages[key] = Storage(dtype, count, source)
        if (storage.dtype, storage.count) != (dtype, count):
            raise ValueError(f"storage {key[:50]!r} is described in two ways: the file is damaged")
        return storage

    def _source(self, name: str, nbytes: int) -> FileRange | CompressedEntry:
        entry = self.entries.get(name)
        if entry is None:
            raise ValueError(f"the archive lacks {name[:200]!r}; download the file again")
        if entry.file_size != nbytes:
            raise ValueError(
                f"expected {nbytes} bytes in {name!r}, found {entry.file_size}: "
                "the file is damaged; download it again"
            )
        _require_plain(entry)
        if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == nbytes:
            return FileRange(self.path, self._data_offset(entry), nbytes, entry.CRC)
        if entry.compress_type != zipfile.ZIP_STORED and nbytes > (
            _MAX_DEFLATE_RATIO * entry.compress_size
        ):
            raise ValueError(
                f"{name!r} claims {nbytes} bytes in {entry.compress_size} packed ones, more than "
                "deflate can hold: refused as tampered with"
            )
        if entry.compress_type == zipfile.ZIP_STORED:
            raise ValueError(
                f"{name!r} is stored as it is, yet has {entry.compress_size} bytes in the file "
                f"and {nbytes} unpacked: the file is damaged; download it again"
            )
        return CompressedEntry(self.path, name, nbytes)

    def _data_offset(self, entry: zipfile.ZipInfo) -> int:
        size = self.file.seek(0, io.SEEK_END)
        self.file.seek(entry.header_offset)
        header = self.file.read(_LOCAL_HEADER.size)
        if len(header) == _LOCAL_HEADER.size:
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            offset = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
            if signature == b"PK\x03\x04" and offset + entry.file_size <= size:
                return offset
        raise ValueError(
            f"{entry.filename!r} does not lie where the archive's directory says; "
            "download the file again"
        )


def read_torch_zip(path: Path) -> tuple[str, Any]:
    """Read a zip file of PyTorch: (TORCH_ZIP or TORCHSCRIPT, the object with LazyTensor leaves).

    A TorchScript object is a tree of ScriptNode. ValueError for anything else than an undamaged
    little-endian archive of weights; the message does not repeat the path.
    """
    with _opened(path) as archive, path.open("rb") as file:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise ValueError("two entries of the archive share a name; refused as tampered with")
        stem = _stem(entries)
        _require_little_endian(archive, entries.get(f"{stem}/byteorder"))
        described = _small_entry(archive, entries[f"{stem}/data.pkl"])
        storages = _Archive(path, file, entries, stem)
        value = read_pickle(io.BytesIO(described), storages.load)
    is_script = f"{stem}/constants.pkl" in entries
    return (TORCHSCRIPT if is_script else TORCH_ZIP), value


def _stem(entries: dict[str, zipfile.ZipInfo]) -> str:
    stems = [name[: -len("/data.pkl")] for name in entries if name.endswith("/data.pkl")]
    stems = [stem for stem in stems if "/" not in stem]
    if len(stems) != 1:
        kind = archive_kind(entries)
        if kind is not None and not stems:
            raise ValueError(f"this is {kind}")
        found = ", ".join(sorted(entries)[:3]) or "nothing"
        raise ValueError(
            f"expected one <name>/data.pkl in the archive, as PyTorch 1.6 and later write it, "
            f"found {len(stems)} ({found[:200]} ...): this zip file is no PyTorch checkpoint"
        )
    return stems[0]


def _require_little_endian(archive: zipfile.ZipFile, entry: zipfile.ZipInfo | None) -> None:
    order = b"little" if entry is None else _small_entry(archive, entry).strip()
    if order != b"little":
        raise ValueError(
            f"expected byte order little, found {order[:20].decode(errors='replace')}; load the "
            "file in PyTorch on the kind of machine that wrote it and save it as safetensors"
        )


def _require_plain(entry: zipfile.ZipInfo) -> None:
    """Refuse an entry that is encrypted, or packed by a method that PyTorch never uses."""
    if entry.flag_bits & 1:
        raise ValueError(f"{entry.filename!r} is encrypted; save the checkpoint without a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = _METHODS.get(entry.compress_type, f"method {entry.compress_type}")
        raise ValueError(
            f"{entry.filename!r} is packed by {method}, expected it stored as it is or deflated; "
            "unpack the archive and pack it again with `zip -r -0 NEW.pt FOLDER`"
        )


def _small_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    _require_plain(entry)
    if entry.file_size > MAX_PICKLE_BYTES:
        raise ValueError(
            f"{entry.filename!r} has {entry.file_size} bytes, expected a description of at most "
            f"{MAX_PICKLE_BYTES}; save only the weights: torch.save(model.state_dict(), path)"
        )
    return archive.read(entry)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever the zip reader finds wrong becomes one ValueError."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = path.stat().st_size
            if not all(0 <= entry.header_offset < size for entry in archive.infolist()):
                raise zipfile.BadZipFile("its directory points outside the file")
            yield archive
    except _BROKEN_ZIP as error:
        raise ValueError(_incomplete(path, str(error)[:200])) from error


def _incomplete(path: Path, reason: str) -> str:
    found = path.stat().st_size
    expected = _least_size(path)
    if expected is not None and expected > found:
        return (
            f"expected more than {expected} bytes, found {found}: the file is cut off; "
            "download it again"
        )
    return (
        f"expected a complete zip archive with its directory at the end, found {found} bytes "
        f"({reason}): the file is cut off or damaged; compare its size with the source's and "
        "download it again"
    )


def _least_size(path: Path) -> int | None:
    """Bytes the archive must have by its own description, where that stands at the front."""
    sizes: dict[str, int] = {}

    def count(reference: object) -> Storage:
        dtype, key, elements = storage_request(reference)
        sizes[key] = elements * dtype.itemsize
        return Storage(dtype, elements)

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if len(content) < _LOCAL_HEADER.size:
            return None
        _signature, name_length, extra_length = _LOCAL_HEADER.unpack(
            content.read(_LOCAL_HEADER.size)
        )
        if not content.read(name_length).endswith(b"/data.pkl"):
            return None
        content.seek(min(len(content), content.tell() + extra_length))
        try:
            read_pickle(content, count)
        except ValueError:
            return None  # cut off inside the description, or compressed
        return content.tell() + sum(sizes.values())
