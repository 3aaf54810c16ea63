"""Writing a file: the whole new one, or the old one and an error that names it."""

from __future__ import annotations

import errno
import os

import pytest

from vtr_jax.files import naming, write_atomically


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write: No space left on device: '.*run\.json'"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_errors_that_name_a_file_stay_as_they_are(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"'.*/nowhere/file\."),
        naming(tmp_path / "other"),
    ):
        (tmp_path / "nowhere").joinpath("file.txt").write_text("x")
