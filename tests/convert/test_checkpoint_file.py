from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from vtr_jax.convert.checkpoint_file import open_checkpoint, read_torch_object, strip_prefix
from vtr_jax.convert.lazy_tensor import LazyTensor

SUMMARISED = {
    "tiny-openai-clip": ("tiny-openai-clip.pt", "TorchScript archive"),
    "tiny-clip-zip": ("tiny-clip-zip.bin", "torch.save (zip)"),
    "tiny-clip-legacy": ("tiny-clip-legacy.bin", "torch.save (legacy)"),
    "tiny-clip-wrapped": ("tiny-clip-wrapped.bin", "torch.save (zip)"),
    "tiny-hf-clip": ("tiny-hf-clip", "safetensors (Hugging Face folder)"),
    "clip4clip-meanP-pytorch_model": ("clip4clip-meanP-pytorch_model.bin.0", "torch.save (zip)"),
    "clip4clip-seqTransf-pytorch_model": (
        "clip4clip-seqTransf-pytorch_model.bin.0",
        "torch.save (zip)",
    ),
}
# A GPU run's file_wti_fp16 weights are not the fill, see the golden README.
FILLED = {
    "backbone_tvr.json": "backbone_tvr.bin",
    "drl-wti.json": "drl-wti.bin",
    "eercf-pytorch_model.bin.0.json": "eercf-pytorch_model.bin.0",
    "emcl.bin.json": "emcl.bin",
}
IDENTITY_PLUS = ("global_mat_weight", "frame_logit_weight")


def fill(salt: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The rule of the golden README: a weight as a function of its name."""
    seed = zlib.crc32(f"{salt}/{name}".encode())
    x = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if name.endswith("logit_scale"):
        return np.asarray(2.6592, np.float32)
    if len(shape) <= 1:
        return np.float32(1) + np.float32(0.1) * x if leaf == "weight" else np.float32(0.1) * x
    return (0.5 * x.astype(np.float64) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def require(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        pytest.skip(f"{name} is not in this copy of the golden files")
    return path


def some_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "visual.proj": rng.standard_normal((3, 4), np.float32),
        "logit_scale": np.asarray(4.5, np.float32),
        "ln_final.bias": rng.standard_normal(5).astype(np.float16),
    }


def assert_same_tensors(found: dict[str, LazyTensor], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        read = found[name].read()
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("case", SUMMARISED)
def test_recorded_file_is_read_exactly(case: str, checkpoint_files: Path):
    name, words = SUMMARISED[case]
    facts = json.loads((checkpoint_files / f"{case}.json").read_text())
    numbers = np.load(checkpoint_files / f"{case}.npz")
    file = open_checkpoint(checkpoint_files / name)

    assert file.format == words
    prefix = "module." if case == "tiny-clip-wrapped" else ""
    assert {prefix + key for key in file.tensors} == set(facts["keys"])
    for key, tensor in file.tensors.items():
        described = facts["keys"][prefix + key]
        array = tensor.read()
        assert tensor.dtype.name == array.dtype.name == described["dtype"]
        assert tensor.shape == array.shape == tuple(described["shape"])
        assert array.flags.c_contiguous and array.flags.writeable
        head = array.reshape(-1)[:8]
        np.testing.assert_array_equal(head, numbers[f"head/{prefix}{key}"].astype(head.dtype))
        total = array.astype(np.float64).sum()
        np.testing.assert_allclose(total, numbers[f"sum/{prefix}{key}"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", ["awkward-zip", "awkward-legacy"])
def test_views_of_shared_storages_are_read_exactly(case: str, checkpoint_files: Path):
    facts = json.loads((checkpoint_files / f"{case}.json").read_text())
    numbers = np.load(checkpoint_files / f"{case}.npz")
    file = open_checkpoint(checkpoint_files / f"{case}.bin")

    assert set(file.tensors) == set(facts["keys"])
    for key, described in facts["keys"].items():
        array = file.tensors[key].read()
        assert array.dtype.name == described["dtype"]
        assert array.shape == file.tensors[key].shape == tuple(described["shape"])
        assert array.flags.c_contiguous
        expected = numbers[f"value/{key}"].astype(array.dtype)
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("description", FILLED)
def test_trained_files_of_every_system_hold_the_recorded_weights(
    description: str, checkpoint_files: Path
):
    facts = json.loads(require(checkpoint_files, description).read_text())
    file = open_checkpoint(require(checkpoint_files, FILLED[description]))

    assert {key: tensor.dtype.name for key, tensor in file.tensors.items()} == facts["dtypes"]
    for key, tensor in file.tensors.items():
        if "shapes" in facts:
            assert tensor.shape == tuple(facts["shapes"][key])
        array = tensor.read()
        expected = fill(facts["salt"], key, tensor.shape)
        if key in IDENTITY_PLUS:
            expected = np.eye(len(expected), dtype="f4") + np.float32(0.05) * expected
        np.testing.assert_array_equal(array, expected.astype(array.dtype), err_msg=key)


@pytest.mark.parametrize("name", ["drl-wti-fp16", "backbone_tvr-fp16"])
def test_files_of_a_gpu_run_keep_their_mixed_types(name: str, checkpoint_files: Path):
    facts = json.loads(require(checkpoint_files, f"{name}.json").read_text())
    file = open_checkpoint(require(checkpoint_files, f"{name}.bin"))

    assert {key: tensor.dtype.name for key, tensor in file.tensors.items()} == facts["dtypes"]
    assert all(np.isfinite(tensor.read()).all() for tensor in file.tensors.values())


def test_internvideo_files(checkpoint_files: Path):
    facts = json.loads(require(checkpoint_files, "internvideo-files.json").read_text())
    for name, keys in facts["keys"].items():
        file = open_checkpoint(require(checkpoint_files, name))
        found = {key: [t.dtype.name, *t.shape] for key, t in file.tensors.items()}
        assert found == keys
        assert sum(tensor.read().nbytes for tensor in file.tensors.values()) > 500_000


def test_optimizer_file(checkpoint_files: Path):
    facts = json.loads((checkpoint_files / "clip4clip-pytorch_opt.json").read_text())
    numbers = np.load(checkpoint_files / "clip4clip-pytorch_opt.npz")
    value = read_torch_object(checkpoint_files / "clip4clip-pytorch_opt.bin.2")

    assert (value["epoch"], value["loss"]) == (facts["epoch"], facts["loss"])
    optimizer = value["optimizer_state_dict"]
    assert optimizer["param_groups"] == facts["param_groups"]
    assert optimizer["state"]
    for index, state in optimizer["state"].items():
        key = facts["order_of_indices"][index]
        np.testing.assert_array_equal(state["next_m"].read(), numbers[f"m/{key}"])
        np.testing.assert_array_equal(state["next_v"].read(), numbers[f"v/{key}"])
        assert state["step"] == numbers[f"count/{key}"]


def test_optimizer_file_is_refused_as_weights(checkpoint_files: Path):
    with pytest.raises(ValueError, match=r"state of an optimizer.*give the model's file"):
        open_checkpoint(checkpoint_files / "clip4clip-pytorch_opt.bin.2")


def test_hash_is_that_of_the_file(checkpoint_files: Path):
    path = checkpoint_files / "tiny-clip-zip.bin"
    assert open_checkpoint(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("form", ["zip", "legacy", "script", "safetensors"])
def test_written_and_read_back(form: str, tmp_path: Path, torch_writer):
    tensors = some_tensors()
    path = tmp_path / "weights.anything"
    if form == "zip":
        torch_writer.write_torch_zip(path, tensors)
    elif form == "legacy":
        torch_writer.write_torch_legacy(path, tensors)
    elif form == "script":
        torch_writer.write_torch_zip(path, torch_writer.script_tree(tensors), script=True)
    else:
        save_file(tensors, path)

    file = open_checkpoint(str(path))
    assert_same_tensors(file.tensors, tensors)
    assert (file.path, file.config, file.notes) == (path, None, ())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "module", "my_clip"])
def test_wrapped_weights_are_found_and_noted(key: str, tmp_path: Path, torch_writer):
    path = tmp_path / "wrapped.pt"
    value = {"epoch": 3, key: some_tensors(), "optimizer": {"state": {}, "param_groups": []}}
    torch_writer.write_torch_zip(path, value)

    file = open_checkpoint(path)
    assert_same_tensors(file.tensors, some_tensors())
    assert file.notes == (
        f"took the weights from the entry {key!r}",
        "ignored the entries beside it: epoch, optimizer",
    )


def test_wrapper_in_a_wrapper_beside_a_tensor(tmp_path: Path, torch_writer):
    path = tmp_path / "wrapped.pt"
    value = {"best": np.zeros((), np.float32), "model": {"state_dict": some_tensors()}}
    torch_writer.write_torch_zip(path, value)
    assert_same_tensors(open_checkpoint(path).tensors, some_tensors())


def test_state_dict_is_preferred_to_its_average(tmp_path: Path, torch_writer):
    path = tmp_path / "wrapped.pt"
    average = {key: 0 * array for key, array in some_tensors().items()}
    torch_writer.write_torch_zip(path, {"ema": average, "state_dict": some_tensors()})
    file = open_checkpoint(path)
    assert_same_tensors(file.tensors, some_tensors())
    assert "ignored the entries beside it: ema" in file.notes


def test_entries_without_tensors_are_noted(tmp_path: Path, torch_writer):
    path = tmp_path / "weights.pt"
    torch_writer.write_torch_zip(path, {**some_tensors(), "version": 2})
    file = open_checkpoint(path)
    assert_same_tensors(file.tensors, some_tensors())
    assert file.notes == ("ignored entries that are no tensors: version",)


def test_module_prefix_is_removed_only_where_every_name_has_it(tmp_path: Path, torch_writer):
    tensors = some_tensors()
    path = tmp_path / "parallel.pt"
    torch_writer.write_torch_zip(path, {f"module.{key}": a for key, a in tensors.items()})
    file = open_checkpoint(path)
    assert_same_tensors(file.tensors, tensors)
    assert file.notes == ("removed the prefix 'module.' from every name",)

    mixed = {"module.proj": tensors["visual.proj"], "logit_scale": tensors["logit_scale"]}
    torch_writer.write_torch_zip(path, mixed)
    assert_same_tensors(open_checkpoint(path).tensors, mixed)


def test_clip_prefix_is_left_to_strip_prefix(tmp_path: Path, torch_writer):
    path = tmp_path / "clip.pt"
    torch_writer.write_torch_zip(path, {f"clip.{key}": a for key, a in some_tensors().items()})
    file = open_checkpoint(path)
    assert all(key.startswith("clip.") for key in file.tensors)

    stripped = strip_prefix(file, "clip.")
    assert_same_tensors(stripped.tensors, some_tensors())
    assert stripped.notes == ("removed the prefix 'clip.' from every name",)
    assert stripped.sha256 == file.sha256
    with pytest.raises(ValueError, match=r"expected every name to begin with 'clip\.'.*found 3"):
        strip_prefix(stripped, "clip.")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "expected a state_dict, found a list"),
        ({"epoch": 1}, "found no tensors under any of state_dict"),
        ({}, "found no tensors"),
        ({"a": some_tensors(), "b": some_tensors()}, "several entries hold tensors"),
        ({0: np.zeros(2, np.float32)}, "numbered, not named"),
        ({"model": {"net": {"model": {"net": some_tensors()}}}}, "too many layers"),
    ],
)
def test_files_without_clear_weights_are_refused(
    value: object, message: str, tmp_path: Path, torch_writer
):
    path = tmp_path / "other.pt"
    torch_writer.write_torch_zip(path, value)
    with pytest.raises(ValueError, match=message) as error:
        open_checkpoint(path)
    assert str(error.value).startswith(f"{path}: ")


def test_script_module_without_parameters_is_refused(tmp_path: Path, torch_writer):
    path = tmp_path / "empty.pt"
    torch_writer.write_torch_zip(path, torch_writer.script_tree({}), script=True)
    with pytest.raises(ValueError, match="no parameters"):
        open_checkpoint(path)


def test_script_module_with_unnamed_parts_is_refused(tmp_path: Path, torch_writer):
    path = tmp_path / "unnamed.pt"
    script = torch_writer.Script("__torch__.A", {3: np.zeros(2, np.float32)})
    torch_writer.write_torch_zip(path, script, script=True)
    with pytest.raises(ValueError, match="root has unnamed parts"):
        open_checkpoint(path)


def test_script_modules_that_contain_each_other_end(tmp_path: Path, torch_writer):
    # Memo slot 7 holds a module whose attribute is that module twice.
    new = torch_writer.global_name("__torch__", "A") + b")\x81q\x07"
    code = new + b"}(X\x01\x00\x00\x00ah\x07X\x01\x00\x00\x00bh\x07ub"
    path = tmp_path / "circle.pt"
    torch_writer.write_torch_zip(path, torch_writer.Raw(code), script=True)
    with pytest.raises(ValueError, match="nested without end"):
        open_checkpoint(path)


def test_absent_empty_and_foreign_files(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pt: no such file or folder"):
        open_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        read_torch_object(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="found a folder"):
        read_torch_object(tmp_path)
    for content, words in (
        (b"", "found 0 bytes"),
        (b"epoch 1: loss 0.3\nepoch 2", "a text file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n\0\0\0", "HDF5"),
        (b"\x80\x04\x95\x10\0\0\0\0\0\0\0}.", "a plain Python pickle"),
        (b"\xde\xad\xbe\xef" * 20, "no file of a known form"),
        (b"PK\x03\x04 not really", "complete zip archive"),
    ):
        path = tmp_path / "file.bin"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words) as error:
            open_checkpoint(path)
        assert str(error.value).startswith(f"{path}: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="found a folder or device"):
        open_checkpoint(path)


def test_lazy_tensor_checks_what_it_promised():
    tensor = LazyTensor(np.dtype(np.float32), (2,), lambda: np.zeros(3, np.float32))
    assert tensor.nbytes == 8
    with pytest.raises(ValueError, match="changed while it was open"):
        tensor.read()


def test_bfloat16_from_every_format(tmp_path: Path, torch_writer):
    expected = {"w": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)}
    torch_writer.write_torch_zip(tmp_path / "a.pt", expected)
    torch_writer.write_torch_legacy(tmp_path / "b.pt", expected)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}})
    start = len(header).to_bytes(8, "little") + header.encode()
    (tmp_path / "c.safetensors").write_bytes(start + expected["w"].tobytes())
    for name in ("a.pt", "b.pt", "c.safetensors"):
        assert_same_tensors(open_checkpoint(tmp_path / name).tensors, expected)
