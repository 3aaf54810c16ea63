from __future__ import annotations

import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vtr_jax.convert.checkpoint_file import open_checkpoint
from vtr_jax.convert.lazy_tensor import LazyTensor

TENSORS = {
    "a": np.arange(3000, dtype=np.float32).reshape(30, 100),
    "b": np.zeros((0, 4), np.float16),
    "c": np.asarray(True),
}


def rewrite(path: Path, changes: dict[str, bytes | None]) -> None:
    """Replace, add or (None) remove entries of an archive."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries |= {name: content for name, content in changes.items() if content is not None}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if changes.get(name, content) is not None:
                archive.writestr(name, content)


def claim_size(path: Path, name: str, size: int) -> None:
    """Make the archive's directory state another unpacked size of an entry."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(name.encode()) - 46
    assert content[entry : entry + 4] == b"PK\x01\x02"
    content[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    path.write_bytes(content)


def test_deflated_archives_are_read(tmp_path: Path, torch_writer):
    base = np.random.default_rng(0).integers(0, 9, 700_000).astype(np.float32)
    view = torch_writer.View(base, 600_000, (100, 10), (10, 1))
    path = tmp_path / "packed.pt"
    value = {**TENSORS, "view": view}
    torch_writer.write_torch_zip(path, value, compression=zipfile.ZIP_DEFLATED)
    tensors = open_checkpoint(path).tensors
    for name, expected in TENSORS.items():
        np.testing.assert_array_equal(tensors[name].read(), expected)
    np.testing.assert_array_equal(tensors["view"].read().ravel(), base[600_000:601_000])


def test_deflated_entry_that_claims_more_than_it_holds(tmp_path: Path, torch_writer):
    path = tmp_path / "packed.pt"
    deflated = zipfile.ZIP_DEFLATED
    torch_writer.write_torch_zip(path, {"a": np.arange(100, dtype="u1")}, compression=deflated)
    with zipfile.ZipFile(path) as archive:
        described = archive.read("archive/data.pkl")
    with zipfile.ZipFile(path, "w", deflated) as archive:
        archive.writestr("archive/data.pkl", described)
        archive.writestr("archive/data/0", bytes(range(90)))
    claim_size(path, "archive/data/0", 100)
    tensor = open_checkpoint(path).tensors["a"]
    with pytest.raises(ValueError, match=r"packed\.pt: an entry of the archive ends early"):
        tensor.read()


def test_zip_bombs_are_refused_before_anything_is_unpacked(tmp_path: Path, torch_writer):
    path = tmp_path / "bomb.pt"
    huge = LazyTensor(np.dtype("u1"), (2**31,), lambda: np.zeros(1000, "u1"))
    torch_writer.write_torch_zip(path, {"a": huge}, compression=zipfile.ZIP_DEFLATED)
    claim_size(path, "archive/data/0", 2**31)
    with pytest.raises(ValueError, match="claims 2147483648 bytes in .* refused as tampered with"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("compression", "method"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")]
)
def test_other_compression_is_refused(compression, method, tmp_path: Path, torch_writer):
    path = tmp_path / "packed.pt"
    torch_writer.write_torch_zip(path, TENSORS, compression=compression)
    with pytest.raises(ValueError, match=f"packed by {method}, expected it stored as it is or"):
        open_checkpoint(path)


def test_compression_that_is_not_known_is_refused_by_number(tmp_path: Path, torch_writer):
    path = tmp_path / "packed.pt"
    torch_writer.write_torch_zip(path, TENSORS)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + offset] = 97
            start = content.find(signature, start + 4)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is packed by method 97, expected it stored"):
        open_checkpoint(path)


def test_a_stored_entry_of_two_sizes(tmp_path: Path, torch_writer):
    path = tmp_path / "weights.pt"
    huge = LazyTensor(np.dtype("u1"), (2000,), lambda: np.zeros(1000, "u1"))
    torch_writer.write_torch_zip(path, {"a": huge})
    claim_size(path, "archive/data/0", 2000)
    with pytest.raises(
        ValueError, match="stored as it is, yet has 1000 bytes in the file and 2000"
    ):
        open_checkpoint(path)


def test_storage_of_another_size(tmp_path: Path, torch_writer):
    path = tmp_path / "weights.pt"
    torch_writer.write_torch_zip(path, TENSORS)
    rewrite(path, {"archive/data/0": bytes(11_999)})
    with pytest.raises(ValueError, match=r"expected 12000 bytes in 'archive/data/0', found 11999"):
        open_checkpoint(path)
    rewrite(path, {"archive/data/0": None})
    with pytest.raises(ValueError, match="lacks 'archive/data/0'"):
        open_checkpoint(path)


def test_big_endian_is_refused(tmp_path: Path, torch_writer):
    path = tmp_path / "weights.pt"
    torch_writer.write_torch_zip(path, TENSORS, byteorder=b"big")
    with pytest.raises(ValueError, match=r"weights\.pt: expected byte order little, found big"):
        open_checkpoint(path)
    rewrite(path, {"archive/byteorder": None})
    assert set(open_checkpoint(path).tensors) == set(TENSORS)


def test_zip_files_that_are_no_checkpoint(tmp_path: Path, torch_writer):
    path = tmp_path / "videos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("video.mp4", b"x")
    with pytest.raises(ValueError, match=r"found 0 \(video\.mp4"):
        open_checkpoint(path)
    torch_writer.write_torch_zip(path, TENSORS)
    rewrite(path, {"second/data.pkl": b"\x80\x02}."})
    with pytest.raises(ValueError, match=r"expected one <name>/data\.pkl.*found 2"):
        open_checkpoint(path)


def test_entries_that_share_a_name(tmp_path: Path, torch_writer):
    path = tmp_path / "weights.pt"
    torch_writer.write_torch_zip(path, TENSORS)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(ValueError, match="share a name"):
        open_checkpoint(path)


def test_encrypted_entries(tmp_path: Path, torch_writer):
    path = tmp_path / "weights.pt"
    torch_writer.write_torch_zip(path, TENSORS)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="encrypted"):
        open_checkpoint(path)


def test_description_too_large(tmp_path: Path, torch_writer, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "weights.pt"
    torch_writer.write_torch_zip(path, TENSORS)
    monkeypatch.setattr("vtr_jax.convert.torch_zip.MAX_PICKLE_BYTES", 50)
    with pytest.raises(ValueError, match="expected a description of at most 50"):
        open_checkpoint(path)


def test_one_storage_described_as_two_types(tmp_path: Path, torch_writer):
    def tensor(kind: str) -> object:
        encoder = torch_writer.Encoder()
        type_name = torch_writer.Raw(torch_writer.global_name("torch", kind))
        reference = encoder.encode(("storage", type_name, "0", "cpu", 1)) + b"Q"
        rebuild = torch_writer.global_name("torch._utils", "_rebuild_tensor_v2")
        ordered = torch_writer.Raw(torch_writer.ORDERED)
        arguments = (torch_writer.Raw(reference), 0, (1,), (1,), False, ordered)
        return torch_writer.Raw(rebuild + encoder.encode(arguments) + b"R")

    path = tmp_path / "weights.pt"
    torch_writer.write_torch_zip(path, {"a": tensor("FloatStorage"), "b": tensor("IntStorage")})
    rewrite(path, {"archive/data/0": bytes(4)})
    with pytest.raises(ValueError, match="described in two ways"):
        open_checkpoint(path)


def test_damaged_numbers_are_noticed_on_reading(tmp_path: Path, torch_writer):
    path = tmp_path / "weights.pt"
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        torch_writer.write_torch_zip(path, TENSORS, compression=compression)
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo("archive/data/0").header_offset
        content = bytearray(path.read_bytes())
        content[start + 500] ^= 0x55
        path.write_bytes(content)
        tensor = open_checkpoint(path).tensors["a"]
        with pytest.raises(ValueError, match=r"weights\.pt: ") as error:
            tensor.read()
        assert "download" in str(error.value)


def test_reading_needs_the_memory_of_one_tensor(tmp_path: Path, torch_writer):
    """96 MiB in 24 tensors, read one after another in a process that is allowed 32 MiB more."""
    block = np.zeros(2**20, np.float32)
    tensors = {
        f"w{index}": LazyTensor(block.dtype, block.shape, lambda: block) for index in range(24)
    }
    path = tmp_path / "large.pt"
    torch_writer.write_torch_zip(path, tensors)
    assert path.stat().st_size > 96 * 2**20
    program = (
        "import resource, sys\n"
        "from vtr_jax.convert.checkpoint_file import open_checkpoint\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "file = open_checkpoint(sys.argv[1])\n"
        "assert sum(tensor.read().nbytes for tensor in file.tensors.values()) == 96 * 2**20\n"
        "print(peak() - before)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(result.stdout) * unit < 32 * 2**20
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
