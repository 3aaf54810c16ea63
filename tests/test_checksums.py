"""Checksums of folders: what they cover, and that every other byte is noticed."""

from __future__ import annotations

import hashlib

import pytest

from vtr_jax.checksums import directory_checksums, file_sha256, verify_checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "a.bin").write_bytes(b"weights")
    (tmp_path / "d" / "0").write_bytes(b"")
    return tmp_path


def test_every_file_is_covered(folder):
    assert directory_checksums(folder) == {
        "a.bin": hashlib.sha256(b"weights").hexdigest(),
        "d/0": hashlib.sha256(b"").hexdigest(),
    }
    assert file_sha256(folder / "a.bin") == hashlib.sha256(b"weights").hexdigest()


def test_what_was_written_is_accepted(folder):
    wanted = directory_checksums(folder)
    (folder / "new").write_text("of no concern")
    verify_checksums(folder, wanted)
    verify_checksums(folder, {})


def test_every_damaged_and_missing_file_is_named(folder):
    wanted = directory_checksums(folder)
    (folder / "a.bin").write_bytes(b"weighTs")
    (folder / "d" / "0").unlink()
    with pytest.raises(ValueError) as caught:
        verify_checksums(folder, wanted)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{folder / 'd' / '0'}: missing"
    assert lines[1].startswith(f"{folder / 'a.bin'}: damaged, sha256 is ")
    assert lines[2].startswith(f"{folder}: 2 of 2 files are not as they were written")
    assert "(d/0, a.bin)" in lines[2]
