"""Whole files that are malicious, cut off or changed: one clear error, and nothing done."""

from __future__ import annotations

import random
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vtr_jax.convert.checkpoint_file import open_checkpoint, read_torch_object
from vtr_jax.convert.huggingface_names import openai_names

WHOLE = (
    "tiny-openai-clip.pt",
    "tiny-clip-zip.bin",
    "tiny-clip-legacy.bin",
    "awkward-zip.bin",
    "awkward-legacy.bin",
    "tiny-hf-clip/model.safetensors",
)


@pytest.fixture(autouse=True)
def no_marker():
    """The malicious files touch this marker if anything in them is run."""
    marker = Path(tempfile.gettempdir()) / "vtr_pwned"
    assert not marker.exists(), f"remove {marker}, which something else left"
    yield
    assert not marker.exists()


def read_all(path: Path) -> None:
    for tensor in openai_names(open_checkpoint(path)).tensors.values():
        tensor.read()


@pytest.mark.parametrize("name", ["malicious-zip.bin", "malicious-legacy.bin"])
@pytest.mark.parametrize("opener", [open_checkpoint, read_torch_object])
def test_malicious_files_are_refused_by_name(name: str, opener, checkpoint_files: Path):
    with pytest.raises(ValueError, match=r"posix\.system.*nothing was executed") as error:
        opener(checkpoint_files / name)
    assert str(error.value).startswith(f"{checkpoint_files / name}: ")


@pytest.mark.parametrize("opener", [open_checkpoint, read_torch_object])
def test_a_plain_pickle_is_refused(opener, checkpoint_files: Path):
    with pytest.raises(ValueError, match=r"malicious-plain\.pkl: .*a plain Python pickle"):
        opener(checkpoint_files / "malicious-plain.pkl")


def test_a_cut_off_archive_is_refused(checkpoint_files: Path, tmp_path: Path):
    content = (checkpoint_files / "tiny-openai-clip.pt").read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(content[: int(0.6 * len(content))])
    message = f"found {path.stat().st_size} bytes.*cut off.*download it again"
    with pytest.raises(ValueError, match=message) as error:
        open_checkpoint(path)
    assert str(error.value).startswith(f"{path}: ")


def test_recorded_cut_off_files_are_refused(checkpoint_files: Path):
    paths = sorted(checkpoint_files.glob("*-truncated.*"))
    if not paths:
        pytest.skip("no cut off file in this copy of the golden files")
    for path in paths:
        with pytest.raises(ValueError, match="cut off"):
            open_checkpoint(path)


def test_a_legacy_file_cut_off_names_both_sizes(checkpoint_files: Path, tmp_path: Path):
    content = (checkpoint_files / "tiny-clip-legacy.bin").read_bytes()
    path = tmp_path / "cut.bin"
    path.write_bytes(content[: int(0.6 * len(content))])
    message = f"expected {len(content)} bytes, found {int(0.6 * len(content))}: the file is cut off"
    with pytest.raises(ValueError, match=message):
        open_checkpoint(path)


def test_a_zip_file_cut_off_names_both_sizes(checkpoint_files: Path, tmp_path: Path):
    content = (checkpoint_files / "tiny-clip-zip.bin").read_bytes()
    path = tmp_path / "cut.bin"
    path.write_bytes(content[: len(content) // 2])
    message = rf"expected more than \d+ bytes, found {len(content) // 2}: the file is cut off"
    with pytest.raises(ValueError, match=message):
        open_checkpoint(path)


@pytest.mark.parametrize("name", WHOLE)
def test_any_cut_is_a_value_error_with_the_path(name: str, checkpoint_files: Path, tmp_path: Path):
    source = checkpoint_files / name
    content = source.read_bytes()
    path = tmp_path / source.name
    cuts = {0, 1, 2, 7, 8, 9, 15, 21, 30, 137, 700, len(content) - 1, len(content) - 22}
    cuts |= {len(content) * step // 12 for step in range(1, 12)}
    for cut in sorted(cuts):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError) as error:
            open_checkpoint(path)
        assert str(error.value).startswith(f"{path}: "), cut


@pytest.mark.parametrize("name", ["awkward-legacy.bin", "awkward-zip.bin", "malicious-legacy.bin"])
def test_any_changed_byte_is_a_value_error_or_harmless(
    name: str, checkpoint_files: Path, tmp_path: Path
):
    content = (checkpoint_files / name).read_bytes()
    path = tmp_path / name
    rng = random.Random(7)
    refused = 0
    for _ in range(300):
        changed = bytearray(content)
        changed[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(changed)
        try:
            read_all(path)
        except ValueError:
            refused += 1
    assert refused > 100


def test_a_changed_description_never_survives_unnoticed(checkpoint_files: Path, tmp_path: Path):
    """The archive's checksum covers the description, so every change to it is refused."""
    source = checkpoint_files / "awkward-zip.bin"
    content = source.read_bytes()
    with zipfile.ZipFile(source) as archive:
        described = archive.read("awkward-zip/data.pkl")
    start = content.index(described)
    path = tmp_path / "changed.bin"
    for position in range(start, start + len(described), 29):
        changed = bytearray(content)
        changed[position] ^= 0x20
        path.write_bytes(changed)
        with pytest.raises(ValueError):
            open_checkpoint(path)


@pytest.mark.parametrize("form", ["write_torch_zip", "write_torch_legacy"])
def test_a_call_hidden_beside_good_weights(form: str, tmp_path: Path, torch_writer):
    path = tmp_path / "weights.pt"
    call = torch_writer.global_name("os", "system") + b"X\x04\x00\x00\x00true\x85R"
    weights = {"w": np.ones(3, np.float32)}
    value = {"state_dict": weights, "hook": torch_writer.Raw(call)}
    getattr(torch_writer, form)(path, value)
    with pytest.raises(ValueError, match=r"'os\.system'.*refused"):
        open_checkpoint(path)
    getattr(torch_writer, form)(path, {"state_dict": weights, "hook": None})
    assert set(open_checkpoint(path).tensors) == {"w"}


@pytest.mark.parametrize("form", ["write_torch_zip", "write_torch_legacy"])
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5,), (1,)), (4, (1,), (1,)), (0, (2,), (4,)), (0, (2**40, 2**10), (0, 0))],
)
def test_views_outside_their_storage(form, offset, shape, strides, tmp_path: Path, torch_writer):
    path = tmp_path / "weights.pt"
    view = torch_writer.View(np.ones(4, np.float32), offset, shape, strides)
    getattr(torch_writer, form)(path, {"w": view})
    with pytest.raises(ValueError, match="of a storage of 4|repeats a storage of 4"):
        open_checkpoint(path)
