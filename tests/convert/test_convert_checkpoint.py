"""Checkpoint files to retriever directories: every format, what is recorded, what is refused."""

from __future__ import annotations

import hashlib
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import vtr_jax
import vtr_jax.convert.convert_checkpoint as convert_module
from vtr_jax.checkpoint import read_description
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.huggingface_names import huggingface_names

HEADS = {"vision_heads": 2, "text_heads": 2}
SEQ_TRANSF = {"sim_header": "seqTransf"}
SCALARS = {"input_resolution": 16, "context_length": 12, "vocab_size": 64}


@pytest.fixture(scope="module")
def clip(tiny_retriever):
    return tiny_retriever("clip")


@pytest.fixture(scope="module")
def clip_dict(clip):
    return vtr_jax.to_state_dict(clip)


@pytest.fixture(scope="module")
def trained(tiny_retriever):
    return tiny_retriever("clip4clip", **SEQ_TRANSF)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def openai_archive(writer, path, tensors):
    scalars = {name: np.array(value) for name, value in SCALARS.items()}
    writer.write_torch_zip(path, writer.script_tree({**tensors, **scalars}), script=True)


def wrapped(tensors):
    return {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in tensors.items()}}


FORMATS = {
    "TorchScript archive": openai_archive,
    "torch.save (zip)": lambda writer, path, tensors: writer.write_torch_zip(path, tensors),
    "torch.save (legacy)": lambda writer, path, tensors: writer.write_torch_legacy(path, tensors),
    "safetensors": lambda writer, path, tensors: save_file(tensors, path),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_weights(kind, clip, clip_dict, torch_writer, tmp_path):
    FORMATS[kind](torch_writer, tmp_path / "weights", clip_dict)
    report = convert_checkpoint(tmp_path / "weights", tmp_path / "out", **HEADS)
    assert report.format == kind
    loaded = vtr_jax.load_retriever(tmp_path / "out")
    assert loaded.config == clip.config
    assert_equal(loaded.params, clip.params)


def test_wrapped_and_prefixed_files(clip, clip_dict, torch_writer, tmp_path):
    torch_writer.write_torch_zip(tmp_path / "weights", wrapped(clip_dict))
    report = convert_checkpoint(tmp_path / "weights", tmp_path / "out", **HEADS)
    assert "took the weights from the entry 'state_dict'" in report.notes
    assert "removed the prefix 'module.' from every name" in report.notes
    assert_equal(vtr_jax.load_retriever(tmp_path / "out").params, clip.params)


def test_clip_under_a_prefix(clip, clip_dict, tmp_path):
    save_file({f"clip.{key}": value for key, value in clip_dict.items()}, tmp_path / "w")
    report = convert_checkpoint(tmp_path / "w", tmp_path / "out", **HEADS)
    assert "removed the prefix 'clip.' from every name" in report.notes
    assert_equal(vtr_jax.load_retriever(tmp_path / "out").params, clip.params)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_dtypes_become_float32_exactly(dtype, clip_dict, torch_writer, tmp_path):
    stored = {key: value.astype(dtype) for key, value in clip_dict.items()}
    torch_writer.write_torch_zip(tmp_path / "w", stored)
    convert_checkpoint(tmp_path / "w", tmp_path / "out", **HEADS)
    loaded = vtr_jax.to_state_dict(vtr_jax.load_retriever(tmp_path / "out"))
    for key, array in loaded.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, stored[key].astype(np.float32), err_msg=key)


def test_a_trained_retriever(trained, torch_writer, tmp_path):
    torch_writer.write_torch_zip(tmp_path / "w", vtr_jax.to_state_dict(trained))
    report = convert_checkpoint(tmp_path / "w", tmp_path / "out", "clip4clip", **HEADS)
    loaded = vtr_jax.load_retriever(tmp_path / "out")
    assert loaded.config == report.config == trained.config
    assert_equal(loaded.params, trained.params)
    assert not any("start" in note for note in report.notes)


def test_the_towers_of_a_trained_mean_pooling_retriever_are_a_clip(clip, tiny_retriever, tmp_path):
    """Such a file holds nothing but CLIP, under a prefix that the note says was removed."""
    save_file(vtr_jax.to_state_dict(tiny_retriever("clip4clip")), tmp_path / "w")
    report = convert_checkpoint(tmp_path / "w", tmp_path / "out", "clip", **HEADS)
    assert "removed the prefix 'clip.' from every name" in report.notes
    assert_equal(vtr_jax.load_retriever(tmp_path / "out").params, clip.params)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SEQ_TRANSF, "trained retriever; name its recipe .e.g. --recipe=clip4clip"),
        ({"linear_patch": "3d"}, "w: recipe clip: a 3d patch embedding is CLIP4Clip's"),
    ],
)
def test_other_trained_retrievers_are_no_clip(options, words, tiny_retriever, tmp_path):
    save_file(vtr_jax.to_state_dict(tiny_retriever("clip4clip", **options)), tmp_path / "w")
    with pytest.raises(ValueError, match=words):
        convert_checkpoint(tmp_path / "w", tmp_path / "out", "clip", **HEADS)
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize("options", [{}, SEQ_TRANSF, {**SEQ_TRANSF, "linear_patch": "3d"}])
def test_clip_weights_start_a_clip4clip(options, clip, checkpoint_file, tmp_path):
    report = convert_checkpoint(checkpoint_file, tmp_path / "o", "clip4clip", **options, **HEADS)
    assert "CLIP weights start a clip4clip; what they lack is drawn from seed 0" in report.notes
    loaded = vtr_jax.load_retriever(tmp_path / "o")
    assert loaded.config.recipe == "clip4clip"
    assert {**dict(loaded.config.options), **options} == dict(loaded.config.options)
    assert_equal(loaded.params["text"], clip.params["text"])
    assert ("aggregation" in loaded.params) == ("sim_header" in options)
    assert ("patch_embedding_3d" in loaded.params["visual"]) == ("linear_patch" in options)


def test_what_is_drawn_follows_the_seed(checkpoint_file, tmp_path):
    """The text tower's three layers seed three of the four temporal ones."""

    def converted(name, seed):
        options = {**SEQ_TRANSF, **HEADS}
        convert_checkpoint(checkpoint_file, tmp_path / name, "clip4clip", seed=seed, **options)
        temporal = vtr_jax.load_retriever(tmp_path / name).params["aggregation"]
        return np.asarray(temporal["transformer"]["blocks"]["mlp"]["fc"]["kernel"])

    one, same, other = converted("a", 5), converted("b", 5), converted("c", 6)
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(one[:3], other[:3])
    assert not np.allclose(one[3], other[3])


def test_the_directory_remembers_where_it_comes_from(checkpoint_file, tmp_path):
    report = convert_checkpoint(checkpoint_file, tmp_path / "out", vision_heads=2)
    description = read_description(tmp_path / "out")
    sha256 = hashlib.sha256(checkpoint_file.read_bytes()).hexdigest()
    source = {"file": "tiny-clip.safetensors", "format": "safetensors", "sha256": sha256}
    assert description["source"] == source
    assert description["assumed"] == list(report.assumed)
    activation, heads, epsilon, pooling, *preprocessing = report.assumed
    assert activation.startswith("activation quick_gelu")
    assert heads.startswith("1 text heads = width / 64")
    assert epsilon.startswith("LayerNorm epsilon 1e-05")
    assert pooling.startswith("texts pooled at their largest token id")
    assert len(preprocessing) == 5
    assert vtr_jax.load_retriever(tmp_path / "out").config.assumed == report.assumed
    assert report.parameters == sum(
        leaf.size for leaf in jax.tree.leaves(vtr_jax.load_retriever(tmp_path / "out").params)
    )


def test_what_is_given_is_recorded_and_not_called_assumed(checkpoint_file, tmp_path):
    given = {"activation": "gelu", "layer_norm_eps": 1e-6, "end_of_text_id": 63, **HEADS}
    given |= {"tokenizer": "clip", "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
    given |= {"resize_mode": "squash", "interpolation": "bilinear"}
    given |= {"max_frames": 3, "framerate": 2, "frame_rule": "decord"}
    report = convert_checkpoint(checkpoint_file, tmp_path / "out", **given)
    assert report.assumed == ()
    rules = "activation gelu, LayerNorm epsilon 1e-06, texts pooled at their first token 63"
    assert rules in str(report)
    retriever = vtr_jax.load_retriever(tmp_path / "out")
    assert retriever.preprocessing.mean == (0.5, 0.5, 0.5)
    assert retriever.preprocessing.resize_mode == "squash"
    assert retriever.preprocessing.frame_rule == "decord"
    clip = retriever.config.clip
    assert clip.vision.activation == clip.text.activation == "gelu"


@pytest.mark.parametrize(
    ("recipe", "told", "option", "words"),
    [
        (
            "clip4clip",
            {"sim_header": "tightTransf"},
            {"cross_num_attention_heads": 4},
            "8 heads in the cross-encoder",
        ),
        ("internvideo", {}, {"return_list": (0, 1)}, "layers feed the temporal token"),
    ],
)
def test_what_is_assumed_of_a_recipes_own_modules(
    recipe, told, option, words, tiny_retriever, tmp_path
):
    save_file(vtr_jax.to_state_dict(tiny_retriever(recipe, **told)), tmp_path / "w")
    report = convert_checkpoint(tmp_path / "w", tmp_path / "out", recipe, **HEADS)
    assert words in report.assumed[-1]
    report = convert_checkpoint(tmp_path / "w", tmp_path / "two", recipe, **option, **HEADS)
    assert not any(words in assumption for assumption in report.assumed)


def test_the_report_says_it_in_words(checkpoint_file, tmp_path):
    lines = str(convert_checkpoint(checkpoint_file, tmp_path / "out")).splitlines()
    words = [line.split()[0] for line in lines]
    assert words[:6] == ["read", "recipe", "vision", "text", "joint", "rules"]
    assert set(words[6:]) == {"note", "assumed"}
    assert "tiny-clip.safetensors" in lines[0]
    assert "2 layers, width 32, 1 heads, patch 8 (2d), 16 pixels" in lines[2]
    assert "3 layers, width 32, 1 heads, 12 tokens, vocabulary 64" in lines[3]
    assert (
        "activation quick_gelu, LayerNorm epsilon 1e-05, texts pooled at their largest" in lines[5]
    )
    assert "vocabulary of 64, the tokeniser has 49408" in lines[6]


def assumed_of_towers(report):
    """The assumptions that are not about preprocessing."""
    preprocessing = ("CLIP's tokenizer", "pixels", "pictures", "bicubic", "protocol")
    return [sentence for sentence in report.assumed if not sentence.startswith(preprocessing)]


def huggingface_folder(folder, tensors, **text):
    shared = {"num_attention_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-6}
    config = {
        "model_type": "clip",
        "vision_config": shared,
        "text_config": {**shared, "eos_token_id": 63, **text},
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(huggingface_names(tensors), folder / "model.safetensors")
    return folder


def test_huggingface_config_decides(clip, clip_dict, tmp_path):
    report = convert_checkpoint(huggingface_folder(tmp_path / "hf", clip_dict), tmp_path / "out")
    assert not assumed_of_towers(report)
    loaded = vtr_jax.load_retriever(tmp_path / "out")
    vision, text = loaded.config.clip.vision, loaded.config.clip.text
    assert (vision.heads, text.heads) == (2, 2)
    assert vision.activation == text.activation == "gelu"
    assert vision.layer_norm_eps == text.layer_norm_eps == 1e-6
    assert text.end_of_text_id == 63
    assert_equal(loaded.params, clip.params)


def test_the_old_end_of_text_rule_of_huggingface(clip_dict, tmp_path):
    folder = huggingface_folder(tmp_path / "hf", clip_dict, eos_token_id=2)
    report = convert_checkpoint(folder, tmp_path / "out")
    assert report.config.clip.text.end_of_text_id is None
    assert not assumed_of_towers(report)


@pytest.mark.parametrize(
    ("option", "said"),
    [({"activation": "quick_gelu"}, "gelu"), ({"text_heads": 4}, "2"), ({"vision_heads": 1}, "2")],
)
def test_an_option_against_the_huggingface_config_is_refused(option, said, clip_dict, tmp_path):
    folder = huggingface_folder(tmp_path / "hf", clip_dict)
    with pytest.raises(ValueError, match=f"contradicts its config.json, which says {said}"):
        convert_checkpoint(folder, tmp_path / "out", **option)
    assert convert_checkpoint(folder, tmp_path / "out", text_heads=2).config.clip.text.heads == 2


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_other_normalization_of_pictures_is_applied(whole, clip_dict, tmp_path):
    folder = huggingface_folder(tmp_path / "hf", clip_dict)
    settings = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.5, 0.5], "do_rescale": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    convert_checkpoint(folder if whole else folder / "model.safetensors", tmp_path / "out")
    preprocessing = vtr_jax.load_retriever(tmp_path / "out").preprocessing
    assert preprocessing.mean == (0.5, 0.4, 0.3)
    assert preprocessing.std == (0.5, 0.5, 0.5)
    assert preprocessing.rescale == 1


@pytest.mark.parametrize(
    ("settings", "key"), [({"image_std": "wide"}, "image_std"), ({"do_resize": False}, "do_resize")]
)
@pytest.mark.parametrize("nested", [True, False])
def test_image_settings_that_cannot_be_applied_are_named(
    nested, settings, key, clip_dict, tmp_path
):
    folder = huggingface_folder(tmp_path / "hf", clip_dict)
    name = "processor_config.json" if nested else "preprocessor_config.json"
    content = {"image_processor": settings} if nested else settings
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{name}.*{key}"):
        convert_checkpoint(folder, tmp_path / "out")


def test_processors_that_disagree_are_an_error(clip_dict, tmp_path):
    folder = huggingface_folder(tmp_path / "hf", clip_dict)
    (folder / "preprocessor_config.json").write_text('{"resample": 2}')
    (folder / "processor_config.json").write_text('{"image_processor": {"resample": 3}}')
    with pytest.raises(ValueError, match="interpolation is bilinear and bicubic"):
        convert_checkpoint(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("image_mean", (0.5, 0.5, 0.5)),
        ("resize_mode", "squash"),
        ("interpolation", "bicubic"),
        ("rescale", 1.0),
    ],
)
def test_option_that_contradicts_a_configuration_is_an_error(option, value, clip_dict, tmp_path):
    folder = huggingface_folder(tmp_path / "hf", clip_dict)
    (folder / "preprocessor_config.json").write_text('{"resample": 2}')
    with pytest.raises(ValueError, match=option):
        convert_checkpoint(folder, tmp_path / "out", **{option: value})


def test_protocol_is_a_choice(clip_dict, tmp_path):
    folder = huggingface_folder(tmp_path / "hf", clip_dict)
    for recipe, limit in (("clip", 12), ("clip4clip", 12)):
        convert_checkpoint(folder, tmp_path / recipe, recipe)
        assert vtr_jax.load_retriever(tmp_path / recipe).preprocessing.max_words == limit
    options = {"max_words": 7, "max_frames": 4, "slice_framepos": 0}
    report = convert_checkpoint(folder, tmp_path / "out", "clip4clip", **options)
    preprocessing = vtr_jax.load_retriever(tmp_path / "out").preprocessing
    assert (preprocessing.max_words, preprocessing.max_frames) == (7, 4)
    assert preprocessing.slice_framepos == 0
    assert not any("tokens per caption" in sentence for sentence in report.assumed)


def test_openais_normalisation_of_pictures_is_accepted(clip_dict, tmp_path):
    folder = huggingface_folder(tmp_path / "hf", clip_dict)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    settings = json.dumps({"image_mean": mean, "image_std": std})
    (folder / "preprocessor_config.json").write_text(settings)
    assert convert_checkpoint(folder, tmp_path / "out").config.recipe == "clip"


def test_huggingface_weights_start_a_clip4clip(clip_dict, tmp_path):
    folder = huggingface_folder(tmp_path / "hf", clip_dict)
    report = convert_checkpoint(folder, tmp_path / "out", "clip4clip", **SEQ_TRANSF)
    assert report.config.clip.text.activation == "gelu"
    assert vtr_jax.load_retriever(tmp_path / "out").config == report.config


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def resnet(writer, path, tensors):
    towers = {key: value for key, value in tensors.items() if not key.startswith("visual.")}
    towers["visual.layer1.0.conv1.weight"] = np.zeros((4, 4, 1, 1), np.float32)
    openai_archive(writer, path, towers)


def halved(writer, path, tensors):
    openai_archive(writer, path, tensors)
    cut_in_half(path)


def unnamed(writer, path, tensors):
    writer.write_torch_zip(path, {**tensors, "head.weight": np.zeros(3, np.float32)})


REFUSED = {
    "resnet": (resnet, "a ResNet image tower .visual.layer1"),
    "halved": (halved, "download it again"),
    "unnamed": (unnamed, "head.weight|1 unexpected"),
}


@pytest.mark.parametrize("recipe", ["clip", "clip4clip"])
@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_do_not_fit_leave_nothing(kind, recipe, clip_dict, torch_writer, tmp_path):
    write, words = REFUSED[kind]
    write(torch_writer, tmp_path / "w", clip_dict)
    with pytest.raises(ValueError, match=words) as caught:
        convert_checkpoint(tmp_path / "w", tmp_path / "out", recipe, **HEADS)
    assert str(tmp_path / "w") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sim_header": "meanP"}, "recipe clip has no option 'sim_header'"),
        ({"text_head": 2}, "no option 'text_head'.*did you mean text_heads"),
        ({"recipe": "drl2"}, "expected one of clip, clip4clip.*, got 'drl2'"),
        ({"recipe": "clip4clip", "linear_patch": "5d"}, "linear_patch: expected one of 2d, 3d"),
        ({"recipe": "clip4clip", "sim_header": "maxP"}, "sim_header: expected one of meanP"),
    ],
)
def test_options_that_cannot_be_leave_nothing(options, words, checkpoint_file, tmp_path):
    with pytest.raises(ValueError, match=words):
        convert_checkpoint(checkpoint_file, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pt: no such file"):
        convert_checkpoint(tmp_path / "nowhere.pt", tmp_path / "out")


def test_a_full_directory_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    monkeypatch.setattr(convert_module, "open_checkpoint", lambda path: pytest.fail("was read"))
    with pytest.raises(FileExistsError, match="out exists already"):
        convert_checkpoint(tmp_path / "w", tmp_path / "out")
