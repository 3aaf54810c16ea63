"""Retriever directories back to files of the original programs, complete or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open
from safetensors.numpy import load_file

import vtr_jax
from vtr_jax.checkpoint import write_description, write_retriever
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.write_back import original_state_dict, write_back, write_back_warnings
from vtr_jax.convert.write_huggingface import write_huggingface
from vtr_jax.lock import only_process
from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.retriever import initial_state
from vtr_jax.parity.cases import find_cases, load_case
from vtr_jax.parity.kinds import kind_of
from vtr_jax.parity.systems import SYSTEMS
from vtr_jax.training.checkpoints import RunCheckpoints

FOLDER = Path(os.environ.get("VTR_GOLDEN_DIR", Path(__file__).parents[1] / "parity" / "golden"))


@pytest.fixture(scope="module")
def clip_directory(tiny_retriever, tmp_path_factory):
    directory = tmp_path_factory.mktemp("back") / "clip"
    retriever = tiny_retriever("clip")
    write_retriever(directory, retriever.config, retriever.params)
    return directory


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.shape == other[name].shape, name
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_every_system_comes_back_as_it_went(variant, tiny_retriever, tmp_path):
    recipe, options = variant
    retriever = tiny_retriever(recipe, **options)
    state = initial_state(retriever.config, jax.random.key(0))
    write_retriever(tmp_path / "r", retriever.config, retriever.params, state)
    shapes = write_back(tmp_path / "r", tmp_path / "o.safetensors", recipe)
    written = load_file(tmp_path / "o.safetensors")
    assert_same(written, vtr_jax.to_state_dict(retriever))
    assert shapes == {name: array.shape for name, array in written.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.safetensors", "r"]


def test_the_file_is_read_again_as_what_it_is(variant, tiny_retriever, tmp_path):
    """Also where other systems have the same names."""
    recipe, options = variant
    retriever = tiny_retriever(recipe, **options)
    state = initial_state(retriever.config, jax.random.key(0))
    write_retriever(tmp_path / "r", retriever.config, retriever.params, state)
    write_back(tmp_path / "r", tmp_path / "o.safetensors", recipe)
    untold = {name: options[name] for name in ("interaction", "cdcr") if "cdcr" in options}
    given = {**untold, "vision_heads": 2, "text_heads": 2}
    report = convert_checkpoint(tmp_path / "o.safetensors", tmp_path / "again", None, **given)
    assert report.config.recipe == recipe
    assert f"recognised as {recipe}: the file says so itself" in str(report)


def test_the_file_says_what_it_is(clip_directory, tmp_path):
    write_back(clip_directory, tmp_path / "new" / "o.safetensors", "clip")
    with safe_open(tmp_path / "new" / "o.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert (metadata["format"], metadata["system"]) == ("pt", "clip")
    assert {"towers", "preprocessing"} <= json.loads(metadata["vtr_jax"]).keys()
    assert json.loads(metadata["vtr_jax"])["towers"]["activation"] == "quick_gelu"


@pytest.mark.parametrize("header", ["meanP", "seqTransf"])
def test_the_towers_of_any_retriever_are_a_clip(header, tiny_retriever):
    retriever = tiny_retriever("clip4clip", sim_header=header)
    towers = original_state_dict(retriever, "clip")
    trained = vtr_jax.to_state_dict(retriever)
    prefixed = {f"clip.{name}": array for name, array in towers.items()}
    assert_same(prefixed, {name: trained[name] for name in trained if name.startswith("clip.")})


def test_towers_that_clip_cannot_hold_are_refused(tiny_retriever):
    retriever = tiny_retriever("clip4clip", linear_patch="3d")
    with pytest.raises(ValueError, match="more than CLIP's .*patch_embedding_3d.*--to=clip4clip"):
        original_state_dict(retriever, "clip")


def test_another_system_is_refused(clip_directory, tmp_path):
    with pytest.raises(ValueError, match="clip: this is a retriever of clip, .*--to=clip"):
        write_back(clip_directory, tmp_path / "o.safetensors", "clip4clip")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_no_other_format_written(clip_directory, tmp_path):
    (tmp_path / "o.safetensors").write_text("mine")
    with pytest.raises(FileExistsError, match="o.safetensors exists already"):
        write_back(clip_directory, tmp_path / "o.safetensors", "clip")
    with pytest.raises(ValueError, match="o.bin: expected a file name that ends in .safetensors"):
        write_back(clip_directory, tmp_path / "o.bin", "clip")
    assert (tmp_path / "o.safetensors").read_text() == "mine"


def test_a_write_that_fails_leaves_nothing(clip_directory, tmp_path, monkeypatch):
    def full_disk(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_back(clip_directory, tmp_path / "o.safetensors", "clip")
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_is_overwritten_and_removed(clip_directory, tmp_path):
    left = tmp_path / ".o.safetensors.partial"
    left.mkdir()
    (left / "o.safetensors").write_bytes(b"half")
    write_back(clip_directory, tmp_path / "o.safetensors", "clip")
    assert [path.name for path in tmp_path.iterdir()] == ["o.safetensors"]
    assert "visual.proj" in load_file(tmp_path / "o.safetensors")


def test_two_writers_of_one_file(clip_directory, tmp_path):
    with (
        only_process(tmp_path / ".o.safetensors.partial", "writing it"),
        pytest.raises(BlockingIOError, match="process .* is writing .*; wait for it or stop it"),
    ):
        write_back(clip_directory, tmp_path / "o.safetensors", "clip")
    assert not (tmp_path / "o.safetensors").exists()


@pytest.fixture(scope="module")
def gelu_directory(tiny_retriever, tmp_path_factory):
    """A CLIP of which nothing is as OpenAI's: activation, heads, epsilon, pooling, pictures."""
    retriever = tiny_retriever("clip", activation="gelu")
    clip = retriever.config.clip
    vision = dataclasses.replace(clip.vision, layer_norm_eps=1e-6, heads=1)
    text = dataclasses.replace(clip.text, layer_norm_eps=1e-6, end_of_text_id=63, heads=1)
    config = dataclasses.replace(
        retriever.config,
        clip=ClipConfig(vision, text),
        preprocessing=retriever.preprocessing.replace(
            resize_mode="squash", mean=(0.5, 0.5, 0.5), interpolation="bilinear", max_frames=7
        ),
        assumed=("the weather",),
    )
    directory = tmp_path_factory.mktemp("gelu") / "clip"
    write_retriever(directory, config, retriever.params)
    return directory, config


def test_what_names_cannot_say_comes_back(gelu_directory, tmp_path):
    directory, config = gelu_directory
    write_back(directory, tmp_path / "o.safetensors", "clip")
    report = convert_checkpoint(tmp_path / "o.safetensors", tmp_path / "again", None)
    assert report.config == config
    assert "the weather" in vtr_jax.load_retriever(tmp_path / "again").config.assumed
    with pytest.raises(ValueError, match="activation=quick_gelu contradicts its metadata"):
        convert_checkpoint(tmp_path / "o.safetensors", tmp_path / "no", activation="quick_gelu")


def test_programs_that_hard_code_other_rules_are_named(gelu_directory, clip_directory):
    warnings = " ".join(write_back_warnings(gelu_directory[0], "clip"))
    for fact in ("activation=gelu", "layer_norm_eps=1e-06", "end_of_text_id=63", "squash", "0.5"):
        assert fact in warnings
    assert not any("gelu" in warning for warning in write_back_warnings(clip_directory, "clip"))


# Names and shapes of CLIPModel's state_dict in transformers 5.24 for the towers of tiny_clip.
HUGGING_FACE_LAYER = {
    "layer_norm1.bias": ("w",),
    "layer_norm1.weight": ("w",),
    "layer_norm2.bias": ("w",),
    "layer_norm2.weight": ("w",),
    "mlp.fc1.bias": ("4w",),
    "mlp.fc1.weight": ("4w", "w"),
    "mlp.fc2.bias": ("w",),
    "mlp.fc2.weight": ("w", "4w"),
    **{
        f"self_attn.{part}.{kind}": ("w",) if kind == "bias" else ("w", "w")
        for part in ("k_proj", "out_proj", "q_proj", "v_proj")
        for kind in ("bias", "weight")
    },
}


def huggingface_shapes(clip) -> dict[str, tuple[int, ...]]:
    vision, text, joint = clip.vision, clip.text, clip.embed_dim
    shapes = {
        "logit_scale": (),
        "text_model.embeddings.position_embedding.weight": (text.context_length, text.width),
        "text_model.embeddings.token_embedding.weight": (text.vocab_size, text.width),
        "text_model.final_layer_norm.bias": (text.width,),
        "text_model.final_layer_norm.weight": (text.width,),
        "text_projection.weight": (joint, text.width),
        "vision_model.embeddings.class_embedding": (vision.width,),
        "vision_model.embeddings.patch_embedding.weight": (
            *(vision.width, 3),
            *(vision.patch_size, vision.patch_size),
        ),
        "vision_model.embeddings.position_embedding.weight": (vision.patches + 1, vision.width),
        "vision_model.post_layernorm.bias": (vision.width,),
        "vision_model.post_layernorm.weight": (vision.width,),
        "vision_model.pre_layrnorm.bias": (vision.width,),
        "vision_model.pre_layrnorm.weight": (vision.width,),
        "visual_projection.weight": (joint, vision.width),
    }
    for tower, sizes in (("text_model", text), ("vision_model", vision)):
        axes = {"w": sizes.width, "4w": 4 * sizes.width}
        for layer in range(sizes.layers):
            for name, letters in HUGGING_FACE_LAYER.items():
                key = f"{tower}.encoder.layers.{layer}.{name}"
                shapes[key] = tuple(axes[letter] for letter in letters)
    return shapes


def test_a_huggingface_folder_has_what_clip_model_expects(gelu_directory, tmp_path):
    directory, config = gelu_directory
    shapes = write_huggingface(directory, tmp_path / "hf")
    assert shapes == huggingface_shapes(config.clip)
    written = load_file(tmp_path / "hf" / "model.safetensors")
    assert {name: array.shape for name, array in written.items()} == shapes
    names = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    assert {path.name for path in (tmp_path / "hf").iterdir()} == names
    described = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert described["text_config"]["eos_token_id"] == 63
    assert described["vision_config"]["hidden_act"] == "gelu"
    pictures = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert pictures["resample"] == 2 and not pictures["do_center_crop"]


def test_a_huggingface_folder_comes_back_as_it_went(gelu_directory, tmp_path):
    directory, config = gelu_directory
    write_huggingface(directory, tmp_path / "hf")
    report = convert_checkpoint(tmp_path / "hf", tmp_path / "again", None)
    assert report.config == config
    again = vtr_jax.load_retriever(tmp_path / "again")
    assert_same(
        vtr_jax.to_state_dict(again), vtr_jax.to_state_dict(vtr_jax.load_retriever(directory))
    )
    # Without the metadata, the configurations state the same towers and pictures.
    plain = load_file(tmp_path / "hf" / "model.safetensors")
    safetensors.numpy.save_file(plain, tmp_path / "hf" / "model.safetensors")
    report = convert_checkpoint(tmp_path / "hf", tmp_path / "plain", None)
    assert report.config.clip == config.clip
    assert report.config.preprocessing.resize == config.preprocessing.resize
    assert report.config.preprocessing.mean == config.preprocessing.mean


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_a_configuration_changed_after_the_weights_is_an_error(file, gelu_directory, tmp_path):
    write_huggingface(gelu_directory[0], tmp_path / "hf")
    path = tmp_path / "hf" / file
    path.write_text(path.read_text().replace('"gelu"', '"quick_gelu"').replace("0.5", "0.4"))
    with pytest.raises(ValueError, match=r"gelu|0\.4"):
        convert_checkpoint(tmp_path / "hf", tmp_path / "again", None)


def test_a_huggingface_folder_is_written_complete_or_not_at_all(
    clip_directory, tmp_path, monkeypatch
):
    def full_disk(tensors, path, metadata):
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_huggingface(clip_directory, tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "mine").touch()
    with pytest.raises(FileExistsError, match="hf exists already"):
        write_huggingface(clip_directory, tmp_path / "hf")


@pytest.mark.parametrize(("step", "expected"), [(None, 2.0), (1, 1.0), (3, 3.0)])
def test_any_checkpoint_of_a_run_can_be_written_back(step, expected, tiny_retriever, tmp_path):
    """The best of them if none is asked for; logit_scale tells them apart."""
    retriever = tiny_retriever("clip")
    (tmp_path / "run").mkdir()
    write_description(tmp_path / "run", retriever.config, {"selection": {"metric": "t2v R@1"}})
    checkpoints = RunCheckpoints(tmp_path / "run", keep_last=3, metric="t2v R@1")
    for saved, recall in ((1, 10.0), (2, 30.0), (3, 20.0)):
        params = {**retriever.params, "logit_scale": np.array(saved, np.float32)}
        state = {"params": params, "state": {}, "opt_state": {"count": np.array(saved)}}
        checkpoints.save(saved, state)
        checkpoints.add_scores(saved, {"t2v R@1": recall})
    checkpoints.close()
    write_back(tmp_path / "run", tmp_path / "o.safetensors", "clip", step=step)
    assert load_file(tmp_path / "o.safetensors")["logit_scale"] == expected


MODELS = [path for path in find_cases(FOLDER) if kind_of(path) == "model"]
SCALARS = ("input_resolution", "context_length", "vocab_size")


@pytest.mark.parametrize("path", MODELS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_names_and_shapes_are_the_originals(path, tmp_path):
    """As the recorded state dict of the PyTorch program lists them, to the last one."""
    case = load_case(path)
    shapes = {
        name: tuple(entry["shape"] if isinstance(entry, dict) else entry)
        for name, entry in case.record["keys"].items()
    }
    rng = np.random.default_rng(0)
    tensors = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
    options = SYSTEMS[case.system].options(case.config)
    convert_checkpoint(tmp_path / "w.safetensors", tmp_path / "r", case.system, **options)
    write_back(tmp_path / "r", tmp_path / "o.safetensors", case.system)
    written = load_file(tmp_path / "o.safetensors")
    kept = {name: value for name, value in tensors.items() if name.split(".")[-1] not in SCALARS}
    assert_same(written, kept)


def test_names_of_some_case_were_compared():
    assert MODELS, f"no recorded case of a system below {FOLDER}"
