"""Files, folders and state dicts that are recognized and rejected by name."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from vtr_jax.convert.checkpoint_file import open_checkpoint
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.from_state_dict import to_state_dict

ONE = np.ones(2, np.float32)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 605\n"
FILES = {
    "model.safetensors": (POINTER, "git lfs pull"),
    "pytorch_model.bin": (POINTER, "git lfs pull"),
    "page.safetensors": (b"<!DOCTYPE html><html><body>Login</body></html>" * 20, "a web page"),
    "page.pt": (b"\n  <html>", "a web page"),
    "weights.pt": (b"\x1f\x8b\x08\0\0\0\0\0", "a gzip file; unpack it"),
    "weights.bin": (b"7z\xbc\xaf\x27\x1c\0\0", "a 7-Zip archive; unpack it"),
    "weights.xz": (b"\xfd7zXZ\0\0\0", "an xz file; unpack it"),
    "weights.zst": (b"\x28\xb5\x2f\xfd\0\0", "a Zstandard file; unpack it"),
    "weights.tar": (b"a" * 257 + b"ustar" + b"\0" * 300, "a tar archive; unpack it"),
    "model.onnx": (b"\x08\x07\x12\x07pytorch\x1a", "an ONNX model"),
    "export.bin": (b"\x08\x07\x12\x07pytorch\x1a", "an ONNX model"),
    "flax_model.msgpack": (b"\x83\xa6params", "Flax weights"),
    "tf_model.h5": (b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file"),
    "saved_model.pb": (b"\x08\x01\x12\x0a", "a TensorFlow graph"),
    "model.gguf": (b"GGUF\x03\0\0\0", "a GGUF file"),
    "__0_0.distcp": (b"PK\x03\x04", "dcp_to_torch"),
    "config.json": (b'{"model_type": "clip"}', "a JSON file"),
    "notes.txt": (b"epoch 1: loss 3", "a text file"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_kinds_are_named(name: str, tmp_path: Path):
    content, words = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        open_checkpoint(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["clip/model.safetensors"], "unpack it and give that file"),
        (["a.npy", "b.npy"], "a NumPy archive"),
        (["config.json", "model.weights.h5"], "a Keras model"),
        (["model/code/__torch__.py", "model/version"], "code without parameters"),
        (["readme"], "no PyTorch checkpoint"),
    ],
)
def test_zip_archives_of_other_kinds_are_named(names, words, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    with pytest.raises(ValueError, match=words):
        open_checkpoint(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([".metadata", "__0_0.distcp"], "dcp_to_torch"),
        (["adapter_config.json", "adapter_model.safetensors"], "merge_and_unload"),
        (["zero_pp_rank_0_mp_rank_00_model_states.pt"], "zero_to_fp32"),
        (["bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt", "latest"], "zero_to_fp32"),
        (["retriever.json"], "retriever directory of vtr_jax already"),
    ],
)
def test_folders_of_other_kinds_are_named(names, words, tmp_path: Path):
    for name in names:
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ValueError, match=words) as error:
        open_checkpoint(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: ")


def test_a_pointer_among_the_configurations_is_named(tmp_path: Path):
    save_file({"w": ONE}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"config\.json: this is a Git LFS pointer"):
        open_checkpoint(tmp_path)


def ema_object(torch_writer) -> Any:
    new = torch_writer.global_name("mylib.ema", "ModelEma") + b")\x81}X\x01\x00\x00\x00a"
    meta = torch_writer.global_name("torch._utils", "_rebuild_meta_tensor_no_storage") + b")R"
    return torch_writer.Raw(new + meta + b"sb")


def test_objects_with_tensors_are_errors_unless_an_entry_is_chosen(tmp_path: Path, torch_writer):
    path = tmp_path / "a.pt"
    ema = ema_object(torch_writer)
    torch_writer.write_torch_zip(path, {"model": {"w.x": ONE}, "ema": ema})
    with pytest.raises(ValueError, match=r"mylib\.ema\.ModelEma with 1 tensors.*--entry=model"):
        open_checkpoint(path)
    assert set(open_checkpoint(path, entry="model").tensors) == {"w.x"}
    torch_writer.write_torch_zip(path, ema)
    with pytest.raises(ValueError, match=r"mylib\.ema\.ModelEma"):
        open_checkpoint(path)
    with pytest.raises(ValueError, match="entries with weights: none"):
        open_checkpoint(path, entry="model")


def special(torch_writer, module: str, name: str, arguments: bytes = b")") -> Any:
    return torch_writer.Raw(torch_writer.global_name(module, name) + arguments + b"R")


@pytest.mark.parametrize(
    ("module", "name", "arguments", "words"),
    [
        ("torch._utils", "_rebuild_qtensor", b")", "quantized"),
        ("torch._utils", "_rebuild_sparse_tensor", b")", "sparse"),
        ("torch._utils", "_rebuild_nested_tensor", b")", "nested"),
        ("torch._utils", "_rebuild_meta_tensor_no_storage", b")", "meta tensor"),
        ("torch._utils", "_rebuild_tensor_v3", b")", "type unknown"),
        (
            "torch._utils",
            "_rebuild_wrapper_subclass",
            b"ctorch.distributed.tensor\nDTensor\n\x85",
            "full_state_dict=True",
        ),
    ],
)
def test_tensors_that_are_not_plain_numbers(
    module, name, arguments, words, tmp_path: Path, torch_writer
):
    tensor = special(torch_writer, module, name, arguments)
    path = tmp_path / "a.pt"
    torch_writer.write_torch_zip(path, {"state_dict": {"visual.proj": tensor, "b": ONE}})
    with pytest.raises(ValueError, match=words) as error:
        open_checkpoint(path)
    assert "visual.proj" in str(error.value)
    torch_writer.write_torch_zip(path, {"state_dict": {"b": ONE}, "aside": tensor})
    assert set(open_checkpoint(path).tensors) == {"b"}


def test_tensor_subclasses_and_parameters_with_attributes_are_tensors(tmp_path: Path, torch_writer):
    encoder = torch_writer.Encoder()
    plain = encoder.encode(ONE)
    start = len(torch_writer.global_name("torch._utils", "_rebuild_tensor_v2"))
    function, arguments = plain[:start], plain[start:-1]
    subclass = torch_writer.global_name("mylib.types", "Image")
    wrapped = torch_writer.global_name("torch._tensor", "_rebuild_from_type_v2")
    code = wrapped + b"(" + function + subclass + arguments + b"}tR"
    path = tmp_path / "a.pt"
    torch_writer.write_torch_zip(path, {"first": ONE, "w": torch_writer.Raw(code)})
    np.testing.assert_array_equal(open_checkpoint(path).tensors["w"].read(), ONE)


def test_deepspeed_files(tmp_path: Path, torch_writer):
    path = tmp_path / "mp_rank_00_model_states.pt"
    common = {"param_shapes": [{"w": (2,)}], "ds_version": "0.15.4", "mp_world_size": 1}
    torch_writer.write_torch_zip(path, {"module": {"w": ONE}, **common, "optimizer": None})
    assert set(open_checkpoint(path).tensors) == {"w"}
    torch_writer.write_torch_zip(path, {"module": {"w": np.zeros(0, np.float32)}, **common})
    with pytest.raises(ValueError, match=r"ZeRO-3.*zero_to_fp32"):
        open_checkpoint(path)
    torch_writer.write_torch_zip(path, {"module": {"w": ONE}, **common, "mp_world_size": 4})
    with pytest.raises(ValueError, match="one of 4 parts of a model-parallel"):
        open_checkpoint(path)
    groups = {"zero_stage": 2, "partition_count": 1, "single_partition_of_fp32_groups": [ONE]}
    torch_writer.write_torch_zip(path, {"optimizer_state_dict": groups, "ds_config": {}})
    with pytest.raises(ValueError, match=r"ZeRO.*zero_to_fp32"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("base_model.model.q_proj.lora_A.default.weight", "merge_and_unload"),
        ("visual.transformer.resblocks.0.attn.lora_B.weight", "merge_and_unload"),
        ("vision_model.layers.0.q_proj.base_layer.weight", "merge_and_unload"),
        ("text_model.layers.0.q_proj.qweight", "GPTQ or AWQ"),
        ("text_model.layers.0.q_proj.SCB", "bitsandbytes"),
        ("text_model.q_proj.weight.quant_state.bitsandbytes__nf4", "bitsandbytes"),
    ],
)
def test_adapters_and_quantized_weights_are_named(name: str, words: str, tmp_path: Path):
    save_file({name: ONE, "logit_scale": ONE}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=words) as error:
        open_checkpoint(tmp_path / "w.safetensors")
    assert "logit_scale" not in str(error.value)


RELATIVES = {
    "X-CLIP": ["local_mat_weight", "word_logit_weight", "frame_mat_weight2"],
    "X-Pool": ["pool_frames.cross_attn.q_proj.weight"],
    "HBI": ["banzhafmodel.cnn1.weight", "t_ctm0.score.weight"],
    "TS2-Net": ["visual_token_selector.score_predictor.in_conv.0.weight"],
    "CLIP-ViP": ["clipmodel.vision_model.embeddings.added_cls"],
    "LongCLIP": ["positional_embedding_res"],
    "AlphaCLIP": ["visual.conv1_alpha.weight"],
    "CenterCLIP": ["clip.visual.transformer.resblocks.6.cluster_inter.cluster_embed"],
    "prompts": ["prompt_learner.ctx"],
}


@pytest.mark.parametrize("prefix", ["", "clip.", "model."])
@pytest.mark.parametrize("relative", RELATIVES)
def test_relatives_are_rejected_by_name(relative, prefix, tiny_retriever, tmp_path: Path):
    """Also with ignore_unknown, which would make another model of them."""
    tensors = to_state_dict(tiny_retriever("clip"))
    tensors = {f"{prefix}{name}": np.ascontiguousarray(x) for name, x in tensors.items()}
    outer = "model." if prefix == "model." else ""
    tensors |= {f"{outer}{name}": ONE for name in RELATIVES[relative]}
    tensors = {name: x.reshape(np.shape(x)) for name, x in tensors.items()}
    save_file(tensors, tmp_path / "w.safetensors")
    for options in ({}, {"ignore_unknown": True}):
        with pytest.raises(ValueError, match=relative) as error:
            convert_checkpoint(tmp_path / "w.safetensors", tmp_path / "r", None, **options)
        assert "ignore_unknown" not in str(error.value)
        assert RELATIVES[relative][0] in str(error.value)


def test_one_uncertain_mark_is_not_enough(tiny_retriever, tmp_path: Path):
    tensors = {**to_state_dict(tiny_retriever("clip")), "mit.weight": ONE}
    save_file({k: np.asarray(v, order="C") for k, v in tensors.items()}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="1 unexpected"):
        convert_checkpoint(tmp_path / "w.safetensors", tmp_path / "r")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("scorer.weight", False), ("visual.extra", False), ("norm.num_batches_tracked", True)],
)
def test_ignoring_is_offered_only_if_no_score_can_depend_on_it(
    name, hint, tiny_retriever, tmp_path: Path
):
    tensors = {
        **to_state_dict(tiny_retriever("clip4clip", sim_header="meanP")),
        f"clip.{name}": ONE,
    }
    save_file({k: np.asarray(v, order="C") for k, v in tensors.items()}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError) as error:
        convert_checkpoint(tmp_path / "w.safetensors", tmp_path / "r", "clip4clip")
    assert name in str(error.value)
    assert ("ignore_unknown" in str(error.value)) == hint


def test_numpy_weights_are_named(tmp_path: Path, torch_writer):
    array = torch_writer.Raw(
        torch_writer.global_name("numpy.core.multiarray", "_reconstruct") + b")R"
    )
    for value in ({"w": array, "v": array}, {"epoch": 3, "state_dict": {"w": array, "v": array}}):
        torch_writer.write_torch_zip(tmp_path / "a.pt", value)
        with pytest.raises(ValueError, match="its 2 weights are NumPy arrays"):
            open_checkpoint(tmp_path / "a.pt")


def open_clip_run(torch_writer, path: Path, tiny_retriever, name: str) -> None:
    weights = {f"module.{k}": v for k, v in to_state_dict(tiny_retriever("clip")).items()}
    value = {"epoch": 3, "name": name, "state_dict": weights, "optimizer": {}}
    torch_writer.write_torch_zip(path, value)


@pytest.mark.parametrize(
    ("model", "activation"),
    [("ViT-B-32", "gelu"), ("ViT-B-32-quickgelu", "quick_gelu"), ("ViT-L-14-336", "gelu")],
)
def test_a_training_file_of_open_clip_names_its_model(
    model, activation, tiny_retriever, tmp_path: Path, torch_writer
):
    run = f"2026_01_01-12_00_00-model_{model}-lr_1e-05-b_256-j_8-p_amp"
    open_clip_run(torch_writer, tmp_path / "epoch_3.pt", tiny_retriever, run)
    report = convert_checkpoint(tmp_path / "epoch_3.pt", tmp_path / "r", None)
    assert report.config.clip.vision.activation == activation
    assert any(model in sentence for sentence in report.assumed)
    other = convert_checkpoint(tmp_path / "epoch_3.pt", tmp_path / "q", None, activation="gelu")
    assert other.config.clip.vision.activation == "gelu"
    assert not any(model in sentence for sentence in other.assumed)


def test_a_training_file_of_open_clip_without_its_model_asks(
    tiny_retriever, tmp_path: Path, torch_writer
):
    open_clip_run(torch_writer, tmp_path / "epoch_3.pt", tiny_retriever, "my-run")
    with pytest.raises(ValueError, match=r"open_clip.*'my-run'.*--activation=gelu"):
        convert_checkpoint(tmp_path / "epoch_3.pt", tmp_path / "r", None)
    model = {"embed_dim": 32, "vision_cfg": {}, "text_cfg": {}}
    described = tiny_retriever("clip").config.clip
    model["vision_cfg"] = {"width": described.vision.width, "head_width": 16}
    model["text_cfg"] = {"width": described.text.width, "heads": 2}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    report = convert_checkpoint(tmp_path / "epoch_3.pt", tmp_path / "r", None)
    assert report.config.clip.vision.activation == "gelu"
