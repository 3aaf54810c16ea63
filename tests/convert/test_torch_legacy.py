from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from vtr_jax.convert.checkpoint_file import open_checkpoint

TENSORS = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.asarray(2, np.int64)}
MAGIC = 0x1950A86A20F9469CFC6C


def parts(protocol: int = 1001, machine: object = None, keys: object = ()) -> bytes:
    """A legacy file of pickles without storages."""
    machine = {"little_endian": True} if machine is None else machine
    return b"".join(pickle.dumps(part, 2) for part in (MAGIC, protocol, machine, {}, keys))


def test_big_endian_is_refused(tmp_path: Path, torch_writer):
    path = tmp_path / "weights.bin"
    torch_writer.write_torch_legacy(path, TENSORS, little_endian=False)
    with pytest.raises(ValueError, match=r"weights\.bin: expected byte order little"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (parts(protocol=1000), "expected protocol 1001"),
        (parts(machine=[1]), "expected byte order little"),
        (parts(keys={}), "list of storages is damaged"),
        (parts(keys=[3]), "list of storages is damaged"),
        (parts(keys=["a"]), r"its list has 1 storages, its tensors need 0"),
    ],
)
def test_damaged_headers(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_checkpoint(path)


def test_header_must_not_refer_to_storages(tmp_path: Path):
    path = tmp_path / "weights.bin"
    path.write_bytes(pickle.dumps(MAGIC, 2) + b"\x80\x02NQ." + parts())
    with pytest.raises(ValueError, match="header refers to stored numbers"):
        open_checkpoint(path)


def test_other_count_before_the_numbers(tmp_path: Path, torch_writer):
    path = tmp_path / "weights.bin"
    torch_writer.write_torch_legacy(path, TENSORS)
    content = bytearray(path.read_bytes())
    count = content.rindex((12).to_bytes(8, "little"))
    content[count] = 13
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected 12 elements in the storage .*, found 13"):
        open_checkpoint(path)


def test_newer_pickle_protocols_are_read(tmp_path: Path):
    path = tmp_path / "weights.bin"
    values = (MAGIC, 1001, {"little_endian": True}, {"epoch": 1}, [])
    path.write_bytes(b"".join(pickle.dumps(value, 4) for value in values))
    with pytest.raises(ValueError, match=r"found no tensors.*entries: epoch"):
        open_checkpoint(path)


def test_numbers_that_are_missing_are_counted(tmp_path: Path, torch_writer):
    path = tmp_path / "weights.bin"
    torch_writer.write_torch_legacy(path, TENSORS)
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    message = f"expected {len(content)} bytes, found {len(content) - 3}: the file is cut off"
    with pytest.raises(ValueError, match=message):
        open_checkpoint(path)
