"""open_clip's layouts against what open_clip computed, and its other architectures by name.

Recorded by tests/convert/open_clip/record.py.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import vtr_jax
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.open_clip import open_clip_facts
from vtr_jax.convert.sizes import infer_clip_config

HERE = Path(__file__).parent / "open_clip"
RECORDED = json.loads((HERE / "cases.json").read_text())
HEADS = {"vision_heads": 4, "text_heads": 2}
# What the options say instead of a configuration file.
OPTIONS = {
    "gelu": {"activation": "gelu", **HEADS},
    "quick_gelu": HEADS,
    "custom_text": {"activation": "gelu", "layer_norm_eps": 1e-3, "end_of_text_id": 7, **HEADS},
}


@pytest.fixture(scope="module")
def recorder():
    spec = importlib.util.spec_from_file_location("record_open_clip", HERE / "record.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def outputs():
    with np.load(HERE / "outputs.npz") as file:
        return dict(file)


def weights_of(case, recorder, changes=None):
    tensors = {name: recorder.fill(name, tuple(s)) for name, s in case["shapes"].items()}
    return {**tensors, **(changes or {})}


def assert_computes(directory, name, recorder, outputs):
    """Features and logits as recorded: 1e-5 is what float32 keeps of features of size 1 to 5."""
    retriever = vtr_jax.load_retriever(directory)
    arrays = recorder.inputs()
    token_ids = arrays["token_ids"].astype(np.int32)
    frames = np.moveaxis(arrays["images"], 1, -1)[:, None]
    text = retriever.encode_text(token_ids, (token_ids != 0).astype(np.int32))
    video = retriever.encode_video(frames, np.ones((len(frames), 1), np.int32))
    logits_tv = retriever.similarity(text, video)
    np.testing.assert_allclose(video.frames[:, 0], outputs[f"{name}/image"], atol=1e-5)
    np.testing.assert_allclose(text.sentence, outputs[f"{name}/text"], atol=1e-5)
    spread = np.ptp(outputs[f"{name}/logits"])
    np.testing.assert_allclose(logits_tv, outputs[f"{name}/logits"], atol=1e-5 * spread)


@pytest.mark.parametrize("name", RECORDED["cases"])
def test_towers_compute_what_open_clip_computes(name, recorder, outputs, tmp_path):
    save_file(weights_of(RECORDED["cases"][name], recorder), tmp_path / "w.safetensors")
    report = convert_checkpoint(tmp_path / "w.safetensors", tmp_path / "out", None, **OPTIONS[name])
    assert report.config.recipe == "clip"
    assert ("prefix 'text.'" in str(report)) == (name == "custom_text")
    assert_computes(tmp_path / "out", name, recorder, outputs)


def hub_folder(folder, name, recorder, **changes):
    """As open_clip's models lie on the hub."""
    case = RECORDED["cases"][name]
    folder.mkdir()
    save_file(weights_of(case, recorder), folder / "open_clip_model.safetensors")
    config = {"model_cfg": case["model_cfg"], **changes}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
@pytest.mark.parametrize("name", RECORDED["cases"])
def test_its_configuration_decides(whole, name, recorder, outputs, tmp_path):
    source = hub_folder(tmp_path / "hub", name, recorder)
    report = convert_checkpoint(
        source if whole else source / "open_clip_model.safetensors", tmp_path / "out"
    )
    assert not any("activation" in s or "heads" in s or "pooled" in s for s in report.assumed)
    assert_computes(tmp_path / "out", name, recorder, outputs)


def test_an_option_against_the_configuration_is_refused(recorder, tmp_path):
    source = hub_folder(tmp_path / "hub", "gelu", recorder)
    with pytest.raises(ValueError, match="contradicts its open_clip_config.json, which says gelu"):
        convert_checkpoint(source, tmp_path / "out", activation="quick_gelu")


def test_image_settings_are_applied(recorder, tmp_path):
    settings = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash"}
    source = hub_folder(tmp_path / "hub", "gelu", recorder, preprocess_cfg=settings)
    report = convert_checkpoint(source, tmp_path / "out")
    preprocessing = vtr_jax.load_retriever(tmp_path / "out").preprocessing
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)
    assert preprocessing.resize_mode == "squash"
    assert [s for s in report.assumed if not s.startswith("protocol")] == [
        "bicubic interpolation (or: --interpolation=bilinear)"
    ]


@pytest.mark.parametrize("section", ["model_cfg", "vision_cfg", "text_cfg"])
def test_unknown_settings_are_named(section, recorder, tmp_path):
    source = hub_folder(tmp_path / "hub", "gelu", recorder)
    config = json.loads((source / "open_clip_config.json").read_text())
    part = config["model_cfg"] if section == "model_cfg" else config["model_cfg"][section]
    part["flux_capacitor"] = 1.21
    (source / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="flux_capacitor"):
        convert_checkpoint(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("kwargs", "activation"),
    [
        (({"approximate": "tanh"},) * 2, "gelu_tanh"),
        (({"approximate": "none"},) * 2, "gelu"),
        (({}, None), "gelu"),
        (({"approximate": "tanh"}, None), None),
        (({"approximate": "erf"},) * 2, None),
        (({"inplace": True},) * 2, None),
    ],
)
def test_arguments_of_the_activation(kwargs, activation, recorder, tmp_path):
    source = hub_folder(tmp_path / "hub", "gelu", recorder)
    config = json.loads((source / "open_clip_config.json").read_text())
    for section, value in zip(("vision_cfg", "text_cfg"), kwargs, strict=True):
        config["model_cfg"][section]["act_kwargs"] = value
    (source / "open_clip_config.json").write_text(json.dumps(config))
    if activation is None:
        with pytest.raises(ValueError, match="act_kwargs"):
            convert_checkpoint(source, tmp_path / "out")
        return
    convert_checkpoint(source, tmp_path / "out")
    clip = vtr_jax.load_retriever(tmp_path / "out").config.clip
    assert clip.vision.activation == clip.text.activation == activation


NAMED = {
    "attentional pooler": "visual.attn_pool.* belongs to an attentional pooler .CoCa",
    "layer scale": "resblocks.0.ls_1.gamma belongs to layer scale",
    "no first norm": "visual.ln_pre.weight is missing: .* .CLIPA",
    "wide MLP": "mlp.c_fc.weight makes 216 numbers of 48; only MLPs of four times",
    "text class token": "text.cls_emb belongs to a text tower with a class token",
}


@pytest.mark.parametrize("name", RECORDED["refused"])
def test_other_architectures_are_refused_by_name(name, recorder, tmp_path):
    save_file(weights_of(RECORDED["refused"][name], recorder), tmp_path / "w")
    with pytest.raises(ValueError, match=NAMED[name]) as caught:
        convert_checkpoint(tmp_path / "w", tmp_path / "out", **HEADS)
    assert str(tmp_path / "w") in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", RECORDED["refused"])
def test_other_architectures_are_refused_by_their_configuration(name, tmp_path):
    config = {"model_cfg": RECORDED["refused"][name]["model_cfg"]}
    with pytest.raises(ValueError, match=r"hub: (vision|text)_cfg has .*another tower than CLIP"):
        open_clip_facts(config, tmp_path / "hub")


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ("visual.trunk.blocks.0.attn.qkv.weight", "an image tower of timm"),
        ("clip.visual.trunk.stem.weight", "an image tower of timm"),
        ("text_decoder.resblocks.0.ln_1.weight", "CoCa's text decoder"),
        ("text.transformer.embeddings.word_embeddings.weight", "a text tower of transformers"),
        ("transformer.resblocks.0.attn.ln_q.weight", "scaled attention"),
        ("logit_bias", "a sigmoid loss .SigLIP"),
    ],
)
def test_parts_of_other_models_are_named(tensor, words, recorder, tmp_path):
    extra = {tensor: np.zeros(3, np.float32)}
    save_file(weights_of(RECORDED["cases"]["gelu"], recorder, extra), tmp_path / "w")
    with pytest.raises(ValueError, match=f"{tensor} belongs to {words}"):
        convert_checkpoint(tmp_path / "w", tmp_path / "out", **HEADS)


def test_a_logit_scale_with_an_axis_is_the_same_number(recorder, outputs, tmp_path):
    changes = {"logit_scale": np.full((1,), 2.5, np.float32)}
    save_file(weights_of(RECORDED["cases"]["gelu"], recorder, changes), tmp_path / "w")
    convert_checkpoint(tmp_path / "w", tmp_path / "out", **OPTIONS["gelu"])
    assert_computes(tmp_path / "out", "gelu", recorder, outputs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text_cfg": {"pool_type": "last"}}, "pool_type='last'; only argmax and eos"),
        ({"text_cfg": {"heads": "two"}}, "expected heads like 8 in open_clip_config.json"),
        ({"vision_cfg": {"head_width": 0}}, "expected head_width like 64"),
        ({"vision_cfg": {"norm_kwargs": {"eps": 0.1}}}, "expected one eps for both towers"),
        ({"vision_cfg": None}, "expected an object vision_cfg"),
    ],
)
def test_configurations_that_cannot_be(change, words, tmp_path):
    model = {"vision_cfg": {}, "text_cfg": {}, **change}
    with pytest.raises(ValueError, match=words):
        open_clip_facts({"model_cfg": model}, tmp_path)


def test_defaults_are_open_clips(tmp_path):
    facts = open_clip_facts({"model_cfg": {"vision_cfg": {}, "text_cfg": {}}}, tmp_path)
    assert (facts.vision_heads, facts.text_heads) == (12, 8)
    assert (facts.activation, facts.layer_norm_eps, facts.eos_rule) == ("gelu", 1e-5, "argmax")


def test_heads_of_vit_h_are_80_wide(torch_writer):
    shapes = torch_writer.openai_shapes(
        embed_dim=1024,
        resolution=224,
        patch=14,
        vision_width=1280,
        vision_layers=32,
        text_width=1024,
        text_layers=24,
    )
    assert infer_clip_config(shapes).vision.heads == 16
    assert infer_clip_config(shapes, vision_heads=20).vision.heads == 20
    shapes["visual.positional_embedding"] = (259, 1280)
    with pytest.raises(ValueError, match="has 259 rows, expected one and a square grid"):
        infer_clip_config(shapes)


def test_outputs_of_the_cases_differ(outputs):
    """Activation, epsilon and pooling each matter here, so that no test passes by chance."""
    assert not np.allclose(outputs["gelu/image"], outputs["quick_gelu/image"], atol=1e-3)
    assert not np.allclose(outputs["gelu/text"], outputs["custom_text/text"], atol=1e-3)
    assert all(np.isfinite(array).all() for array in outputs.values())
