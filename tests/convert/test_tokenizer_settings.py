"""Foreign tokenizers: applied as their own program applies them, or rejected by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import vtr_jax
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.tokenizer_settings import check_tokenizer, tokenizer_of_file
from vtr_jax.data.tokenizer_file import TokenizerFile
from vtr_jax.models.clip import TextConfig

WORDS = ["a", "dog", "cat", "runs", "sleeps", "on", "the", "beach", "sofa", "and"]
START, PAD, END, UNKNOWN = 0, 1, 2, 3


def write_tokenizer(folder: Path, vocabulary: int = 14, pad: str | None = "<pad>") -> Path:
    """A word tokenizer in the manner of XLM: <s> words </s>, padding <pad>."""
    names = ["<s>", "<pad>", "</s>", "<unk>", *WORDS]
    names += [f"word{i}" for i in range(len(names), vocabulary)]
    tokenizer = Tokenizer(
        models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", START), ("</s>", END)]
    )
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    if pad is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": pad}))
    return folder / "tokenizer.json"


def open_clip_folder(folder: Path, retriever, **text_cfg) -> Path:
    """The weights of a retriever as a folder of open_clip with another tokenizer."""
    text = retriever.config.clip.text
    config = {
        "model_cfg": {
            "embed_dim": 32,
            "quick_gelu": True,
            "vision_cfg": {"width": 32, "head_width": 16, "layers": 2, "patch_size": 8},
            "text_cfg": {
                "heads": 2,
                "vocab_size": text.vocab_size,
                "hf_tokenizer_name": "example/words",
                **text_cfg,
            },
        }
    }
    folder.mkdir(exist_ok=True)
    save_file(vtr_jax.to_state_dict(retriever), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def tokenizer(tmp_path) -> TokenizerFile:
    return tokenizer_of_file(write_tokenizer(tmp_path), "words", "whitespace")


def test_ids_are_the_tokenizers_own(tokenizer):
    ids, mask = tokenizer.tokenize(["A  dog\n runs", "the &amp; xyzzy", ""], 8)
    assert ids.dtype == mask.dtype == np.int32
    assert ids.tolist() == [
        [START, 4, 5, 7, END, PAD, PAD, PAD],
        [START, 10, UNKNOWN, UNKNOWN, END, PAD, PAD, PAD],
        [START, END, PAD, PAD, PAD, PAD, PAD, PAD],
    ]
    assert (mask == (ids != PAD)).all()


def test_special_tokens_survive_a_cut(tokenizer):
    texts = ["a dog and a cat runs on the beach"]
    ids, mask = tokenizer.tokenize(texts, 5)
    assert ids.tolist() == [[START, 4, 5, 13, END]]
    assert mask.all()
    assert tokenizer.count_tokens(texts).tolist() == [11]


def test_limits_do_not_disturb_each_other(tokenizer):
    texts = ["a dog and a cat"]
    for limit in (4, 7, 4, 20):
        assert tokenizer.tokenize(texts, limit)[0].shape == (1, limit)
    assert tokenizer.count_tokens(texts).tolist() == [7]


def test_limit_without_room_for_a_word_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="max_words is 2"):
        tokenizer.tokenize(["a dog"], 2)


def test_foreign_tokenizer_goes_with_the_retriever(tiny_retriever, tmp_path):
    folder = open_clip_folder(tmp_path / "hub", tiny_retriever("clip"), pool_type="eos", eos_id=2)
    write_tokenizer(folder)
    report = convert_checkpoint(folder, tmp_path / "out")
    assert "example/words" in str(report)
    assert not any("tokenizer" in sentence for sentence in report.assumed)
    retriever = vtr_jax.load_retriever(tmp_path / "out")
    ids, mask = retriever.tokenize(["a dog runs", "the cat sleeps"])
    assert ids.shape == (2, 12)
    assert ids[0, :5].tolist() == [START, 4, 5, 7, END]
    one, other = retriever.encode_text(ids, mask).sentence
    assert np.abs(one - other).max() > 1e-3
    assert report.config.preprocessing == retriever.preprocessing


def test_damaged_or_missing_tokenizer_of_a_retriever_is_an_error(tiny_retriever, tmp_path):
    folder = open_clip_folder(tmp_path / "hub", tiny_retriever("clip"), pool_type="eos", eos_id=2)
    stored = tmp_path / "out" / "tokenizer.json"
    write_tokenizer(folder)
    convert_checkpoint(folder, tmp_path / "out")
    stored.write_bytes(stored.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"tokenizer\.json.*sha256"):
        vtr_jax.load_retriever(tmp_path / "out")
    stored.unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json.*example/words"):
        vtr_jax.load_retriever(tmp_path / "out")


def test_missing_file_names_the_tokenizer(tiny_retriever, tmp_path):
    folder = open_clip_folder(tmp_path / "hub", tiny_retriever("clip"), pool_type="eos", eos_id=2)
    with pytest.raises(ValueError, match=r"tokenizer\.json.*example/words.*--tokenizer"):
        convert_checkpoint(folder, tmp_path / "out")
    other = write_tokenizer(tmp_path / "elsewhere")
    convert_checkpoint(folder, tmp_path / "out", tokenizer=str(other))
    retriever = vtr_jax.load_retriever(tmp_path / "out")
    assert isinstance(retriever.preprocessing.tokenizer, TokenizerFile)


@pytest.mark.parametrize("eos_id", [3, 63, 500])
def test_end_that_the_tokenizer_never_emits_is_an_error(eos_id, tiny_retriever, tmp_path):
    folder = open_clip_folder(
        tmp_path / "hub", tiny_retriever("clip"), pool_type="eos", eos_id=eos_id
    )
    write_tokenizer(folder)
    with pytest.raises(ValueError, match=f"token {eos_id}"):
        convert_checkpoint(folder, tmp_path / "out")


@pytest.mark.parametrize("vocabulary", [49408, 50000])
def test_end_that_clips_tokenizer_never_emits_is_an_error(vocabulary):
    text = TextConfig(77, vocabulary, 32, 2, 2, 32, end_of_text_id=2)
    with pytest.raises(ValueError, match="token 2"):
        check_tokenizer("clip", text, Path("folder"))
    check_tokenizer("clip", dataclasses.replace(text, end_of_text_id=49407), Path("folder"))
    check_tokenizer("clip", dataclasses.replace(text, end_of_text_id=None), Path("folder"))


def test_vocabulary_beyond_the_tower_is_an_error(tiny_retriever, tmp_path):
    folder = open_clip_folder(tmp_path / "hub", tiny_retriever("clip"))
    write_tokenizer(folder, vocabulary=65)
    with pytest.raises(ValueError, match=r"up to 64.*64 entries"):
        convert_checkpoint(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("text_cfg", "word"),
    [
        ({"tokenizer_kwargs": {"strip_sep_token": True}}, "strip_sep_token"),
        ({"tokenizer_kwargs": {"clean": "canonicalize"}}, "canonicalize"),
        ({"tokenizer_kwargs": {"language": "fr"}}, "language"),
        ({"tokenizer_mode": "clips"}, "tokenizer_mode"),
        ({"hf_tokenizer_name": None, "tokenizer_kwargs": {"clean": "whitespace"}}, "clean"),
        ({"tokenizer_flavor": "x"}, "tokenizer_flavor"),
    ],
)
def test_arguments_that_cannot_be_applied_are_named(text_cfg, word, tiny_retriever, tmp_path):
    folder = open_clip_folder(tmp_path / "hub", tiny_retriever("clip"), **text_cfg)
    write_tokenizer(folder)
    with pytest.raises(ValueError, match=word):
        convert_checkpoint(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"padding_side": "left", "pad_token": "<pad>"}, "padding_side"),
        ({"truncation_side": "left", "pad_token": "<pad>"}, "truncation_side"),
        ({"pad_token": "[PAD]"}, r"\[PAD\]"),
        ({}, "pad_token"),
    ],
)
def test_tokenizer_settings_that_cannot_be_applied_are_named(settings, word, tmp_path):
    path = write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=word):
        tokenizer_of_file(path, "words")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"model": {"type": "Magic"}}'])
def test_damaged_tokenizer_is_named(content, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content)
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "<pad>"}')
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        tokenizer_of_file(tmp_path / "tokenizer.json", "words")


def test_tokenizer_goes_through_write_back(tiny_retriever, tmp_path):
    from vtr_jax.convert.write_back import write_back

    folder = open_clip_folder(tmp_path / "hub", tiny_retriever("clip"), pool_type="eos", eos_id=2)
    write_tokenizer(folder)
    convert_checkpoint(folder, tmp_path / "out", max_frames=5)
    write_back(tmp_path / "out", tmp_path / "back" / "clip.safetensors", "clip")
    convert_checkpoint(tmp_path / "back" / "clip.safetensors", tmp_path / "again")
    first, second = (vtr_jax.load_retriever(tmp_path / name) for name in ("out", "again"))
    assert first.config == second.config
    assert second.preprocessing.max_frames == 5


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu"])
def test_preprocessing_goes_through_a_hugging_face_folder(activation, tiny_retriever, tmp_path):
    from vtr_jax.convert.write_huggingface import write_huggingface

    retriever = tiny_retriever("clip", activation=activation)
    save_file(vtr_jax.to_state_dict(retriever), tmp_path / "clip.safetensors")
    write_tokenizer(tmp_path / "words")
    stated = {
        "activation": activation,
        "tokenizer": str(tmp_path / "words"),
        "image_mean": (0.5, 0.4, 0.3),
        "rescale": 1 / 128,
        "resize_mode": "squash",
        "resized_side": 20,
        "crop_offset": "down",
        "interpolation": "lanczos",
    }
    convert_checkpoint(
        tmp_path / "clip.safetensors", tmp_path / "out", vision_heads=2, text_heads=2, **stated
    )
    write_huggingface(tmp_path / "out", tmp_path / "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "again")
    first, second = (vtr_jax.load_retriever(tmp_path / name) for name in ("out", "again"))
    assert first.config == second.config


def test_end_that_transformers_would_misread_is_an_error(tiny_retriever, tmp_path):
    from vtr_jax.convert.write_huggingface import write_huggingface

    folder = open_clip_folder(tmp_path / "hub", tiny_retriever("clip"), pool_type="eos", eos_id=2)
    write_tokenizer(folder)
    convert_checkpoint(folder, tmp_path / "out")
    with pytest.raises(ValueError, match="eos_token_id=2"):
        write_huggingface(tmp_path / "out", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
