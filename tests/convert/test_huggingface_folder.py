from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from vtr_jax.convert.checkpoint_file import open_checkpoint

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4, dtype=np.float16),
    "c": np.asarray(7, np.int64),
}
SHARDS = {"model-1-of-2.safetensors": ("a", "c"), "model-2-of-2.safetensors": ("b",)}


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A folder whose weights lie in two files."""
    weight_map = {}
    for file, names in SHARDS.items():
        save_file({name: TENSORS[name] for name in names}, tmp_path / file)
        weight_map |= dict.fromkeys(names, file)
    write_index(tmp_path, weight_map)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    return tmp_path


def write_index(folder: Path, weight_map: object) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_are_one_checkpoint(sharded: Path):
    file = open_checkpoint(sharded)
    assert file.format == "safetensors (Hugging Face folder)"
    assert file.config == {"model_type": "clip"}
    assert set(file.tensors) == set(TENSORS)
    for name, expected in TENSORS.items():
        found = file.tensors[name].read()
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    lines = [
        f"{hashlib.sha256((sharded / name).read_bytes()).hexdigest()}  {name}\n" for name in SHARDS
    ]
    assert file.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_oversized_config(sharded: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vtr_jax.convert.huggingface_folder._MAX_JSON_BYTES", 10)
    with pytest.raises(ValueError, match=r"expected a small JSON file, found \d+ bytes"):
        open_checkpoint(sharded)


def test_folder_with_pytorch_weights_only(tmp_path: Path, torch_writer):
    torch_writer.write_torch_zip(tmp_path / "pytorch_model.bin", TENSORS)
    file = open_checkpoint(tmp_path)
    assert file.format == "torch.save (zip) (Hugging Face folder)"
    assert file.config is None
    np.testing.assert_array_equal(file.tensors["a"].read(), TENSORS["a"])


def test_safetensors_are_preferred(tmp_path: Path, torch_writer):
    torch_writer.write_torch_zip(tmp_path / "pytorch_model.bin", {"other": TENSORS["a"]})
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert set(open_checkpoint(tmp_path).tensors) == set(TENSORS)


def clip_tensors(torch_writer, width: int = 8) -> dict[str, np.ndarray]:
    """A small CLIP by OpenAI's names."""
    shapes = torch_writer.openai_shapes(
        embed_dim=8,
        resolution=8,
        patch=4,
        vision_width=width,
        vision_layers=1,
        text_width=width,
        text_layers=1,
        vocab=16,
        context=8,
    )
    return {name: tensor.read() for name, tensor in torch_writer.random_tensors(shapes).items()}


def write_config(folder: Path, width: int) -> None:
    model = {"vision_cfg": {"width": width}, "text_cfg": {"width": width}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))


@pytest.mark.parametrize("name", ["other.safetensors", "model.fp16.safetensors", "epoch_3.pt"])
def test_a_config_next_to_any_file_is_read_if_its_sizes_fit(
    name: str, tmp_path: Path, torch_writer
):
    tensors = clip_tensors(torch_writer)
    if name.endswith(".pt"):
        torch_writer.write_torch_zip(tmp_path / name, tensors)
    else:
        save_file(tensors, tmp_path / name)
    write_config(tmp_path, 8)
    for path in (tmp_path / name, tmp_path):
        file = open_checkpoint(path)
        assert file.config is not None and "model_cfg" in file.config
    assert (
        "used open_clip_config.json from the same folder" in open_checkpoint(tmp_path / name).notes
    )
    write_config(tmp_path, 16)
    assert open_checkpoint(tmp_path / name).config is None


def test_a_config_of_another_model_counts_next_to_usual_names_only(tmp_path: Path):
    for name in ("model.safetensors", "other.safetensors"):
        save_file(TENSORS, tmp_path / name)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert open_checkpoint(tmp_path / "model.safetensors").config == {"model_type": "bert"}
    assert open_checkpoint(tmp_path / "other.safetensors").config is None


def test_the_file_with_a_clip_is_chosen(tmp_path: Path, torch_writer):
    """model.safetensors of a timm repository has the image tower alone."""
    save_file(TENSORS, tmp_path / "model.safetensors")
    save_file(clip_tensors(torch_writer), tmp_path / "open_clip_model.safetensors")
    file = open_checkpoint(tmp_path)
    assert "visual.proj" in file.tensors
    assert any("open_clip_model.safetensors" in note for note in file.notes)


def test_one_of_many_files_is_chosen_by_content_or_asked_for(tmp_path: Path, torch_writer):
    save_file(TENSORS, tmp_path / "head.safetensors")
    torch_writer.write_torch_zip(tmp_path / "optimizer.pt", {"state": TENSORS})
    clip = clip_tensors(torch_writer)
    torch_writer.write_torch_zip(tmp_path / "epoch_1.pt", {"state_dict": clip})
    assert "visual.proj" in open_checkpoint(tmp_path).tensors
    torch_writer.write_torch_zip(tmp_path / "epoch_2.pt", clip)
    with pytest.raises(ValueError, match=r"epoch_1\.pt, epoch_2\.pt"):
        open_checkpoint(tmp_path)


def test_prefixes_are_removed_from_shards_together(sharded: Path):
    for file, names in SHARDS.items():
        save_file({f"model.{name}": TENSORS[name] for name in names}, sharded / file)
    shards = {f"model.{name}": file for file, names in SHARDS.items() for name in names}
    write_index(sharded, shards)
    assert set(open_checkpoint(sharded).tensors) == set(TENSORS)


def test_an_index_file_opens_its_shards(sharded: Path):
    assert set(open_checkpoint(sharded / "model.safetensors.index.json").tensors) == set(TENSORS)


def test_sentence_transformers_folder_opens_its_clip(tmp_path: Path):
    inner = tmp_path / "0_CLIPModel"
    inner.mkdir()
    save_file(TENSORS, inner / "model.safetensors")
    modules = [{"path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    file = open_checkpoint(tmp_path)
    assert set(file.tensors) == set(TENSORS) and "0_CLIPModel" in file.notes[0]
    modules[0]["type"] = "sentence_transformers.models.Transformer"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=r"sentence_transformers\.models\.Transformer"):
        open_checkpoint(tmp_path)


def test_folder_without_readable_weights(tmp_path: Path):
    with pytest.raises(ValueError, match="found nothing"):
        open_checkpoint(tmp_path)
    (tmp_path / "flax_model.msgpack").write_bytes(b"x")
    (tmp_path / "tf_model.h5").write_bytes(b"x")
    with pytest.raises(
        ValueError,
        match=r"expected one of model\.safetensors.*found flax_model\.msgpack, tf_model\.h5; Flax",
    ):
        open_checkpoint(tmp_path)


def test_missing_shard(sharded: Path):
    (sharded / "model-2-of-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing here \(model-2-of-2\.safetensors\)"):
        open_checkpoint(sharded)


@pytest.mark.parametrize("shard", ["../up.safetensors", "/etc/passwd", "a/b", "..", "", 3, None])
def test_shards_outside_the_folder_are_refused(sharded: Path, shard: object):
    write_index(sharded, {"a": shard})
    with pytest.raises(ValueError, match="expected plain file names"):
        open_checkpoint(sharded)


def test_shards_that_differ_from_the_index(sharded: Path):
    index = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    write_index(sharded, index)
    with pytest.raises(ValueError, match=r"model-1-of-2.*expected the 1 tensors.*found 2; c stand"):
        open_checkpoint(sharded)
    write_index(sharded, {**index, "c": "model-1-of-2.safetensors", "d": index["a"]})
    with pytest.raises(ValueError, match=r"found 2; d stand"):
        open_checkpoint(sharded)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"weight_map": []}', "[" * 100_000, "\xff"])
def test_damaged_index_and_config(sharded: Path, text: str):
    (sharded / "model.safetensors.index.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"index\.json: "):
        open_checkpoint(sharded)
    (sharded / "model.safetensors.index.json").unlink()
    save_file(TENSORS, sharded / "model.safetensors")
    (sharded / "config.json").write_text(text, encoding="latin-1")
    if text.startswith("{") and text.endswith("}"):
        assert open_checkpoint(sharded).config == {"weight_map": []}
        return
    with pytest.raises(ValueError, match=r"config\.json: "):
        open_checkpoint(sharded)
