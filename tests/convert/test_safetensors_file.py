from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from vtr_jax.convert.checkpoint_file import open_checkpoint


def write(path: Path, header: object, data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_every_type_and_shape(tmp_path: Path):
    path = tmp_path / "all.safetensors"
    types = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?")
    expected = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in types}
    expected |= {"scalar": np.asarray(2.5), "empty": np.zeros((0, 3), np.float32)}
    save_file(expected, path, metadata={"format": "pt"})
    file = open_checkpoint(path)
    assert file.format == "safetensors"
    assert set(file.tensors) == set(expected)
    for name, array in expected.items():
        found = file.tensors[name].read()
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)


def test_types_no_checkpoint_has(tmp_path: Path):
    header = {"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    path = write(tmp_path / "w.safetensors", header, b"ab")
    with pytest.raises(ValueError, match=r"w\.safetensors: 'w' has type F8_E4M3"):
        open_checkpoint(path)


def test_missing_numbers_are_counted(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_file({"w": np.zeros((100, 100), np.float32)}, path)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    message = f"expected at least {len(content)} bytes, found {len(content) - 1}"
    with pytest.raises(ValueError, match=message):
        open_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [b"\x00", bytes(8), b"\xff" * 40, b"\x02" + bytes(7) + b"{]", b"\x02" + bytes(7) + b"[]"],
)
def test_damaged_headers(content: bytes, tmp_path: Path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.safetensors: "):
        open_checkpoint(path)


@pytest.mark.parametrize("offsets", [[0, 99], [8, 0], [0, 2**70], ["a", "b"], [0], None])
def test_impossible_offsets(offsets: object, tmp_path: Path):
    header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}
    path = write(tmp_path / "w.safetensors", header, bytes(8))
    with pytest.raises(ValueError, match=r"w\.safetensors: "):
        open_checkpoint(path)


def test_a_file_damaged_after_opening_is_named(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_file({"w": np.zeros(4, np.float32)}, path)
    tensor = open_checkpoint(path).tensors["w"]
    path.write_bytes(b"\x08" + bytes(7) + b"        ")
    with pytest.raises(ValueError, match=r"w\.safetensors: .*download it again"):
        tensor.read()
