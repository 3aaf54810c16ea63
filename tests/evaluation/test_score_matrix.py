"""The matrix on the host: its tiles, its temporary file, and a folder without space."""

from __future__ import annotations

import errno
import os
import tempfile

import numpy as np
import pytest

from vtr_jax.evaluation import score_matrix
from vtr_jax.evaluation.score_matrix import MatrixTiles, empty_matrix


@pytest.fixture
def temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_small_matrix_is_in_memory(temporary_folder, capsys):
    matrix = empty_matrix(3, 5)
    assert type(matrix) is np.ndarray and (matrix.shape, matrix.dtype) == ((3, 5), np.float32)
    assert capsys.readouterr().err == ""


def test_a_large_matrix_is_in_a_file_that_goes_with_it(temporary_folder, capsys):
    matrix = empty_matrix(30, 50, largest_in_memory=30 * 50 * 4 - 1)
    assert isinstance(matrix, np.memmap) and (matrix.shape, matrix.dtype) == ((30, 50), np.float32)
    matrix[:] = np.arange(50)
    assert matrix.sum() == 30 * 49 * 25
    assert str(temporary_folder) in capsys.readouterr().err
    # The file has no name, so nothing is left, however the process ends.
    assert list(temporary_folder.iterdir()) == []


def test_a_folder_without_space_is_named_before_anything_is_computed(temporary_folder, monkeypatch):
    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(score_matrix.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=rf"{temporary_folder}.*TMPDIR"):
        empty_matrix(10, 10, largest_in_memory=0)


@pytest.mark.parametrize("width", [None, 2, 7])
@pytest.mark.parametrize("tile", [1, 3, 100])
def test_tiles_cover_the_matrix_once(tile, width):
    caption_clip = np.repeat(np.arange(7), [1, 2, 4, 1, 1, 3, 1])
    matrix = np.arange(13 * 7, dtype=np.float32).reshape(13, 7)
    tiles = MatrixTiles(matrix, caption_clip, tile, width)
    seen = np.zeros(matrix.shape, int)
    own = np.zeros(matrix.shape, bool)
    for first_text, first_clip, tile_tv in tiles():
        place = (
            np.s_[first_text : first_text + len(tile_tv), first_clip:][0],
            slice(first_clip, first_clip + tile_tv.shape[1]),
        )
        np.testing.assert_array_equal(tile_tv, matrix[place])
        seen[place] += 1
    assert (seen == 1).all()
    for first_text, first_clip, tile_tv in tiles(only_own=True):
        rows, columns = tile_tv.shape
        own[first_text : first_text + rows, first_clip : first_clip + columns] = True
    assert own[np.arange(13), caption_clip].all()
