from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtr_jax.convert.torch_storage import (
    FileRange,
    Storage,
    storage_request,
    tensor_view,
)

FLOAT = np.dtype(np.float32)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """The numbers 0 to 59 behind 5 foreign bytes."""
    path = tmp_path_factory.mktemp("storage") / "numbers"
    path.write_bytes(b"xxxxx" + np.arange(60, dtype=np.float32).tobytes() + b"xxx")
    return Storage(FLOAT, 60, FileRange(path, 5, 240))


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_every_view_inside_is_numpys_view(data: st.DataObject, storage: Storage):
    shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=4)))
    strides = tuple(data.draw(st.integers(0, 7)) for _ in shape)
    offset = data.draw(st.integers(0, 8))
    tensor = tensor_view(storage, offset, shape, strides)
    numbers = np.arange(60, dtype=np.float32)[offset:]
    steps = tuple(4 * step for step in strides)
    expected = np.lib.stride_tricks.as_strided(numbers, shape, steps)
    found = tensor.read()
    assert found.shape == tensor.shape == shape
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "message"),
    [
        (0, (61,), (1,), "reaches element 61 of a storage of 60"),
        (1, (60,), (1,), "reaches element 61"),
        (0, (2, 2), (59, 1), "reaches element 61"),
        (61, (0,), (1,), "reaches element 61"),
        (-1, (2,), (1,), "offset is not made of whole numbers"),
        (0, (-1,), (1,), "shape is not made of whole numbers"),
        (0, (2,), (-1,), "strides is not made of whole numbers"),
        (0, (True,), (1,), "shape is not made"),
        (0, (2**80,), (1,), "shape is not made"),
        (0, (2,), (1, 1), "1 sizes and 2 strides"),
        (0, (1,) * 33, (1,) * 33, "no list of up to 32"),
        (0, 5, (1,), "no list of up to 32"),
        (0, (2**20, 2**20), (0, 0), r"repeats a storage of 60 elements to 1099511627776"),
    ],
)
def test_views_outside_are_refused(
    offset: object, shape: object, strides: object, message: str, storage: Storage
):
    with pytest.raises(ValueError, match=message):
        tensor_view(storage, offset, shape, strides)


def test_a_tensor_needs_a_storage():
    with pytest.raises(ValueError, match="without stored numbers"):
        tensor_view("numbers", 0, (1,), (1,))


def test_storage_references():
    good = ("storage", FLOAT, "3", "cuda:0", 7)
    assert storage_request(good) == storage_request((*good, None)) == (FLOAT, "3", 7)
    for bad, message in (
        ("storage", "malformed"),
        (("storage", FLOAT, "3", "cpu"), "malformed"),
        (("module", FLOAT, "3", "cpu", 7), "whole module"),
        (("storage", "float", "3", "cpu", 7), "malformed"),
        (("storage", FLOAT, 3, "cpu", 7), "malformed"),
        (("storage", FLOAT, "3", "cpu", -7), "not made of whole numbers"),
        ((*good, ("4", 0, 2)), "before 0.4"),
    ):
        with pytest.raises(ValueError, match=message):
            storage_request(bad)


def test_a_file_that_became_shorter_is_named(tmp_path: Path):
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(40))
    tensor = tensor_view(Storage(FLOAT, 10, FileRange(path, 0, 40)), 0, (10,), (1,))
    path.write_bytes(bytes(12))
    with pytest.raises(ValueError, match=r"weights\.bin: expected 40 bytes at 0, found 12"):
        tensor.read()


def test_changed_numbers_are_noticed(tmp_path: Path):
    path = tmp_path / "weights.bin"
    content = np.arange(10, dtype=np.float32).tobytes()
    path.write_bytes(content)
    source = FileRange(path, 0, 40, zlib.crc32(content))
    tensor = tensor_view(Storage(FLOAT, 10, source), 0, (10,), (1,))
    assert tensor.read()[9] == 9
    path.write_bytes(content[:-1] + b"\x00")
    with pytest.raises(ValueError, match=r"weights\.bin: .*checksum.*download it again"):
        tensor.read()
