"""Where each clip of a frame store lies in its record files."""

from __future__ import annotations

import dataclasses
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vtr_jax.data.frame_store.jobs import ClipSource, seconds_as_stored
from vtr_jax.data.frame_store.part import Part
from vtr_jax.data.frame_store.shards import AFTER_RECORD, BEFORE_RECORD, SHARD_PATTERN
from vtr_jax.data.tensorflow_host import import_tensorflow
from vtr_jax.files import write_atomically

INDEX_FILE = "index.npz"
_CHUNK = 2**20
_ROW_DTYPES = {
    "clip_ids": np.str_,
    "shards": np.int32,
    "offsets": np.int64,
    "lengths": np.int64,
    "checksums": np.uint32,
    "num_frames": np.int32,
    "files": np.str_,
    "file_sizes": np.int64,
    "file_sha256s": np.str_,
    "starts": np.float32,
    "ends": np.float32,
}


@dataclasses.dataclass(frozen=True)
class StoreIndex:
    """One row a clip, in the order of the records.

    clip_ids, files, file_sha256s: text [N]; shards int32 [N], index into shard_names; offsets,
    lengths, file_sizes int64 [N], bytes; checksums uint32 [N], zlib's CRC-32 of the record;
    num_frames int32 [N]; starts, ends float32 [N], seconds.
    shard_names text [S] and shard_sizes int64 [S] say which files the rows were read from.
    """

    clip_ids: np.ndarray
    shards: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    checksums: np.ndarray
    num_frames: np.ndarray
    files: np.ndarray
    file_sizes: np.ndarray
    file_sha256s: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    shard_names: np.ndarray
    shard_sizes: np.ndarray

    def source(self, row: int) -> ClipSource:
        """What the clip of a row was made from."""
        times = [float(seconds[row]) for seconds in (self.starts, self.ends)]
        start, end = (None if np.isnan(seconds) else seconds for seconds in times)
        size = int(self.file_sizes[row])
        return ClipSource(str(self.files[row]), size, str(self.file_sha256s[row]), start, end)

    def row(self, row: int) -> dict[str, Any]:
        """Return the columns of a row that do not depend on where its record is stored."""
        names = _ROW_DTYPES.keys() - {"shards", "offsets", "lengths", "checksums"}
        return {name: getattr(self, name)[row] for name in names}

    def describes(self, directory: Path) -> bool:
        """Whether the record files are those that were read; ones cut off since also are."""
        names, sizes = _shard_files(directory)
        shorter = len(sizes) == len(self.shard_sizes) and np.all(sizes <= self.shard_sizes)
        return names == self.shard_names.tolist() and bool(shorter)

    def readable_part(self, directory: Path) -> tuple[StoreIndex, dict[int, str]]:
        """The rows within the record files' present sizes; shard -> what it lacks."""
        sizes = np.array(_shard_files(directory)[1], np.int64)
        short = np.flatnonzero(sizes < self.shard_sizes).tolist()
        damage = {s: f"cut off at {sizes[s]} of {self.shard_sizes[s]} bytes" for s in short}
        if not damage:
            return self, damage
        kept = self.offsets + self.lengths + AFTER_RECORD <= sizes[self.shards]
        columns = {name: getattr(self, name)[kept] for name in _ROW_DTYPES}
        return dataclasses.replace(self, **columns), damage

    def write(self, directory: Path) -> None:
        """Writes the index beside the record files."""
        content = io.BytesIO()
        np.savez(content, **dataclasses.asdict(self))
        write_atomically(directory / INDEX_FILE, content.getvalue())


def row_of(part: Part) -> dict[str, Any]:
    """Return the columns of a new clip's row that do not depend on where its record is stored."""
    return {
        "clip_ids": part.clip_id,
        "num_frames": len(part.sizes),
        "files": part.source.file,
        "file_sizes": part.source.file_size,
        "file_sha256s": part.source.file_sha256,
        "starts": seconds_as_stored(part.source.start),
        "ends": seconds_as_stored(part.source.end),
    }


def read_index(directory: Path) -> StoreIndex | None:
    """Reads a store's index, None where there is none; OSError names a damaged one."""
    path = directory / INDEX_FILE
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return StoreIndex(**arrays)
    except FileNotFoundError:
        return None
    except (EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise OSError(
            f"{path}: damaged index ({error}); delete it, it is made again from the record files"
        ) from error


def index_of(directory: Path, rows: list[dict[str, Any]]) -> StoreIndex:
    """Return the index of record files just written, each record read back and compared.

    Raises:
        OSError: a record is not on the disk as it was written; the message names its file.
    """
    index = _index(rows, *_shard_files(directory))
    for number, name in enumerate(index.shard_names.tolist()):
        path = directory / name
        with path.open("rb") as file:
            for row in np.flatnonzero(index.shards == number).tolist():
                if _checksum(file, index.offsets[row], index.lengths[row]) != index.checksums[row]:
                    raise OSError(
                        f"{path}: the record of clip {index.clip_ids[row]!r} is not as it was "
                        "written: check the disk and run the same command again"
                    )
    return index


def _checksum(file: BinaryIO, offset: int, length: int) -> int:
    """CRC-32 of a stretch of a file, read in small pieces."""
    file.seek(int(offset))
    checksum, left = 0, int(length)
    while left and (piece := file.read(min(left, _CHUNK))):
        checksum = zlib.crc32(piece, checksum)
        left -= len(piece)
    return checksum


def scan_records(directory: Path) -> tuple[StoreIndex, dict[int, str]]:
    """The index of all records that can be read; shard -> what ends the reading of it early."""
    names, sizes = _shard_files(directory)
    rows: list[dict[str, Any]] = []
    damage = {}
    for shard, name in enumerate(names):
        try:
            rows.extend(_rows(directory / name, shard))  # keeps those before an error
        except OSError as error:
            damage[shard] = str(error)
    return _index(rows, names, sizes), damage


def _index(rows: list[dict[str, Any]], names: list[str], sizes: list[int]) -> StoreIndex:
    columns: dict[str, np.ndarray] = {
        name: np.array([row[name] for row in rows], dtype) for name, dtype in _ROW_DTYPES.items()
    }
    return StoreIndex(
        **columns, shard_names=np.array(names, np.str_), shard_sizes=np.array(sizes, np.int64)
    )


def _shard_files(directory: Path) -> tuple[list[str], list[int]]:
    paths = sorted(directory.glob(SHARD_PATTERN))
    return [path.name for path in paths], [path.stat().st_size for path in paths]


def _rows(path: Path, shard: int) -> Iterator[dict[str, Any]]:
    tf = import_tensorflow()
    from google.protobuf.message import DecodeError

    offset = 0
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            yield {
                "clip_ids": feature["clip_id"].bytes_list.value[0].decode(),
                "shards": shard,
                "offsets": offset + BEFORE_RECORD,
                "lengths": len(record),
                "checksums": zlib.crc32(record),
                "num_frames": len(feature["frames"].bytes_list.value),
                "files": feature["file"].bytes_list.value[0].decode(),
                "file_sizes": feature["file_size"].int64_list.value[0],
                "file_sha256s": feature["file_sha256"].bytes_list.value[0].decode(),
                "starts": feature["start"].float_list.value[0],
                "ends": feature["end"].float_list.value[0],
            }
            offset += BEFORE_RECORD + len(record) + AFTER_RECORD
    except (tf.errors.OpError, DecodeError, IndexError) as error:
        raise OSError(f"damaged after {offset} good bytes ({type(error).__name__})") from error
