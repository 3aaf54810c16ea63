"""CLIP's own tokenizer.json is recognized whatever the file is called; others are not."""

from __future__ import annotations

import gzip
import json

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from vtr_jax.convert.tokenizer_settings import tokenizer_of_file
from vtr_jax.data.clip_tokenizer import MERGES_FILE, _vocabulary
from vtr_jax.data.tokenizer_file import TokenizerFile, is_clip_tokenizer
from vtr_jax.vocabulary import EOT_ID, SOT_ID

START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture(scope="module")
def clip_json() -> bytes:
    """CLIP's tokenizer as Hugging Face writes it."""
    lines = gzip.decompress(MERGES_FILE.read_bytes()).decode().splitlines()
    merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    vocabulary = {**_vocabulary(merges), START: SOT_ID, END: EOT_ID}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, SOT_ID), (END, EOT_ID)]
    )
    tokenizer.add_special_tokens([AddedToken(START, normalized=True), AddedToken(END)])
    return tokenizer.to_str().encode()


def test_clips_own_file_is_clip(clip_json, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(clip_json)
    assert tokenizer_of_file(tmp_path / "tokenizer.json", "words") == "clip"


def _other_merges(values):
    merges = values["model"]["merges"]
    merges[100], merges[3000] = merges[3000], merges[100]


def _other_ids(values):
    vocabulary = values["model"]["vocab"]
    vocabulary["dog</w>"], vocabulary["cat</w>"] = vocabulary["cat</w>"], vocabulary["dog</w>"]


def _without_end(values):
    values["post_processor"] = None


@pytest.mark.parametrize("change", [_other_merges, _other_ids, _without_end])
def test_similar_file_is_another_tokenizer(change, clip_json):
    values = json.loads(clip_json)
    change(values)
    assert not is_clip_tokenizer(json.dumps(values).encode())


def test_equal_files_are_equal_tokenizers(clip_json):
    one, other = TokenizerFile(clip_json, "one"), TokenizerFile(bytes(clip_json), "other")
    assert one == other and hash(one) == hash(other)
    assert one != TokenizerFile(clip_json, "one", pad_id=1)
    assert one != TokenizerFile(clip_json, "one", clean="lower")
