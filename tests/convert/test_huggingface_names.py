from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from vtr_jax.convert.checkpoint_file import CheckpointFacts, CheckpointFile, open_checkpoint
from vtr_jax.convert.huggingface_names import huggingface_names, openai_names
from vtr_jax.convert.lazy_tensor import LazyTensor


@pytest.fixture
def openai_state(torch_writer) -> dict[str, np.ndarray]:
    """A small CLIP under OpenAI's names, towers of different width and depth."""
    shapes = torch_writer.openai_shapes(
        embed_dim=5,
        resolution=8,
        patch=4,
        vision_width=6,
        vision_layers=2,
        text_width=4,
        text_layers=3,
        vocab=11,
        context=7,
    )
    return {name: tensor.read() for name, tensor in torch_writer.random_tensors(shapes).items()}


def checkpoint(tensors: dict[str, np.ndarray], config: dict | None = None) -> CheckpointFile:
    lazy = {
        name: LazyTensor(array.dtype, array.shape, lambda array=array: array.copy())
        for name, array in tensors.items()
    }
    return CheckpointFile(Path("clip.bin"), "test", lazy, config, (), "0")


def assert_equal(found: CheckpointFile, expected: dict[str, np.ndarray]) -> None:
    assert set(found.tensors) == set(expected)
    for name, array in expected.items():
        tensor = found.tensors[name]
        read = tensor.read()
        assert tensor.shape == array.shape
        assert tensor.dtype == read.dtype == array.dtype
        assert read.flags.c_contiguous
        np.testing.assert_array_equal(read, array, err_msg=name)


def test_recorded_folder_has_the_recorded_openai_weights(checkpoint_files: Path):
    facts = json.loads((checkpoint_files / "tiny-hf-clip.json").read_text())
    openai = json.loads((checkpoint_files / "tiny-openai-clip.json").read_text())
    numbers = np.load(checkpoint_files / "tiny-hf-clip.npz")
    source = open_checkpoint(checkpoint_files / "tiny-hf-clip")
    file = openai_names(source)

    scalars = {"input_resolution", "context_length", "vocab_size"}
    assert set(file.tensors) == set(openai["keys"]) - scalars
    assert facts["config"] == openai["config"]
    for name, tensor in file.tensors.items():
        assert tensor.shape == tuple(openai["keys"][name]["shape"])
    layer = "visual.transformer.resblocks.1.attn.in_proj_weight"
    theirs = "vision_model.encoder.layers.1.self_attn"
    joined = file.tensors[layer].read()
    for start, part in ((0, "q"), (64, "k"), (128, "v")):
        head = joined[start].reshape(-1)[:8]
        np.testing.assert_array_equal(head, numbers[f"head/{theirs}.{part}_proj.weight"])
    projection = file.tensors["visual.proj"].read()
    np.testing.assert_array_equal(
        projection[:8, 0], numbers["head/visual_projection.weight"].reshape(-1)
    )
    assert file.facts == CheckpointFacts(1, 1, "quick_gelu", 1e-5, "argmax", 2)
    assert "Hugging Face names and layout turned into OpenAI's" in file.notes
    assert (file.sha256, file.format) == (source.sha256, source.format)


@pytest.mark.parametrize("prefix", ["", "clip.", "model.clip."])
def test_round_trip(prefix: str, openai_state: dict[str, np.ndarray]):
    theirs = huggingface_names(openai_state)
    assert theirs["text_projection.weight"].shape == (5, 4)
    assert theirs["vision_model.encoder.layers.0.self_attn.k_proj.bias"].shape == (6,)
    positions = {"text_model.embeddings.position_ids": np.arange(7)[None]}
    file = checkpoint({prefix + name: array for name, array in (theirs | positions).items()})
    assert_equal(openai_names(file), openai_state)


def test_round_trip_through_a_folder(tmp_path: Path, openai_state: dict[str, np.ndarray]):
    save_file(huggingface_names(openai_state), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"text_config": {"eos_token_id": 9}}')
    file = openai_names(open_checkpoint(tmp_path))
    assert_equal(file, openai_state)
    assert (file.facts.eos_rule, file.facts.eos_token_id) == ("first_eos", 9)


def test_scalars_of_released_archives_are_left_out(openai_state: dict[str, np.ndarray]):
    scalars = {"input_resolution": np.asarray(8), "context_length": np.asarray(7)}
    assert set(huggingface_names(openai_state | scalars)) == set(huggingface_names(openai_state))


def test_openai_layout_passes_through(openai_state: dict[str, np.ndarray]):
    file = checkpoint(openai_state)
    assert openai_names(file) == file
    config = {"vision_config": {"num_attention_heads": 3}, "text_config": {}}
    with_config = dataclasses.replace(file, config=config)
    assert openai_names(with_config).tensors == file.tensors
    assert openai_names(with_config).facts.vision_heads == 3


def test_tensors_that_are_not_clips_are_kept(openai_state: dict[str, np.ndarray]):
    theirs = {f"clip.{name}": array for name, array in huggingface_names(openai_state).items()}
    others = {"head.weight": np.ones((2, 2), np.float32)}
    inner = {"clip.vision_model.new_norm.weight": np.ones(6, np.float32)}
    found = openai_names(checkpoint(theirs | others | inner))
    assert_equal(found, openai_state | others | {"vision_model.new_norm.weight": np.ones(6, "f4")})
    assert "removed the prefix 'clip.' from CLIP's names" in found.notes
    with pytest.raises(ValueError, match=r"stand twice: logit_scale"):
        openai_names(checkpoint(theirs | {"logit_scale": np.asarray(1.0)}))


def test_one_tower_alone_is_refused(openai_state: dict[str, np.ndarray]):
    theirs = huggingface_names(openai_state)
    vision = {name: array for name, array in theirs.items() if name.startswith("vision_model")}
    with pytest.raises(ValueError, match=r"clip\.bin: expected one text tower"):
        openai_names(checkpoint(vision))


def test_incomplete_and_unequal_attention_weights(openai_state: dict[str, np.ndarray]):
    theirs = huggingface_names(openai_state)
    key = "text_model.encoder.layers.2.self_attn.k_proj.weight"
    without = {name: array for name, array in theirs.items() if name != key}
    message = r"clip\.bin: k_proj of transformer\.resblocks\.2\.attn\.in_proj_weight missing"
    with pytest.raises(ValueError, match=message):
        openai_names(checkpoint(without))
    for other in (np.ones((4, 3), np.float16), theirs[key].astype(np.float32)):
        with pytest.raises(ValueError, match="of equal type and shape, found float16"):
            openai_names(checkpoint(theirs | {key: other}))


def test_names_without_a_place_are_listed():
    state = {"visual.layer1.0.conv1.weight": np.ones(1), "transformer.resblocks.0.x": np.ones(1)}
    with pytest.raises(ValueError, match=r"2 names have no place.*visual\.layer1\.0"):
        huggingface_names(state)
