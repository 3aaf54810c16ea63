"""The tokeniser: ids, masks, special strings, cleaning, cutting and refusals."""

from __future__ import annotations

import csv
import random

import numpy as np
import pytest

from vtr_jax.data.clip_tokenizer import needs_repair, repair
from vtr_jax.data.text import count_tokens, tokenize
from vtr_jax.vocabulary import EOT_ID, SOT_ID, TOKENISER_VOCABULARY

MAN, PLAYS, DOG = 786, 5134, 1929


def ids_of(text: str, max_words: int = 32) -> list[int]:
    token_ids, token_mask = tokenize([text], max_words)
    return token_ids[0][token_mask[0] == 1].tolist()


def test_rows():
    token_ids, token_mask = tokenize(["a man plays", ""], max_words=8)
    assert token_ids.dtype == token_mask.dtype == np.int32
    assert token_ids.tolist() == [
        [SOT_ID, 320, MAN, PLAYS, EOT_ID, 0, 0, 0],
        [SOT_ID, EOT_ID, 0, 0, 0, 0, 0, 0],
    ]
    assert token_mask.tolist() == [[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]


def test_a_cut_caption_keeps_its_end():
    for words in (1, 5, 6, 7, 30):
        token_ids, token_mask = tokenize(["dog " * words], max_words=8)
        kept = min(words, 6)
        expected = [SOT_ID, *[DOG] * kept, EOT_ID]
        assert token_ids[0].tolist() == expected + [0] * (8 - len(expected))
        assert token_mask[0].sum() == len(expected)


def test_count_is_uncut():
    texts = ["", "dog", "dog " * 200, "a <|endoftext|> b"]
    counted = count_tokens(texts)
    assert counted.tolist() == [2, 3, 202, 5]
    assert np.issubdtype(counted.dtype, np.integer)


def test_no_texts():
    token_ids, token_mask = tokenize([], max_words=16)
    assert token_ids.shape == token_mask.shape == (0, 16)
    assert count_tokens([]).shape == (0,)


def test_the_mask_counts_word_pieces_with_id_zero():
    token_ids, token_mask = tokenize(["!ⓧ"], max_words=8)
    inside = token_ids[0][token_mask[0] == 1]
    assert 0 in inside.tolist()
    assert inside[-1] == EOT_ID


@pytest.mark.parametrize(
    "text, expected",
    [
        ("<|startoftext|>", [SOT_ID]),
        ("<|ENDOFTEXT|>", [EOT_ID]),
        ("&lt;|endoftext|&gt;", [EOT_ID]),
        ("dog<|endoftext|>dog", [DOG, EOT_ID, DOG]),
        ("dog <|endoftext|><|startoftext|> dog", [DOG, EOT_ID, SOT_ID, DOG]),
        ("7<|endoftext|>", [278, EOT_ID]),
    ],
)
def test_special_strings_become_special_ids(text, expected):
    assert ids_of(text) == [SOT_ID, *expected, EOT_ID]


@pytest.mark.parametrize(
    "text", ["!<|endoftext|>", "<|endoftext>", "<endoftext>", "'<|endoftext|>"]
)
def test_special_strings_inside_punctuation_are_spelt_out(text):
    assert not {SOT_ID, EOT_ID} & set(ids_of(text)[1:-1])


def test_special_strings_are_cut_like_words():
    token_ids, token_mask = tokenize(["<|startoftext|> " + "dog " * 9], max_words=5)
    assert token_ids[0].tolist() == [SOT_ID, SOT_ID, DOG, DOG, EOT_ID]
    token_ids, token_mask = tokenize(["<|endoftext|> dog"], max_words=6)
    assert token_ids[0].tolist() == [SOT_ID, EOT_ID, DOG, EOT_ID, 0, 0]
    assert token_mask[0].tolist() == [1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    "text, plain",
    [
        ("A Man  PLAYS\t", "a man plays"),
        ("it’s “fine”", 'it\'s "fine"'),
        ("a &amp;amp; b", "a & b"),
        ("ﬁre ＡＢＣ", "fire abc"),
        ("schön â€™", "schön '"),
        ("a\u00a0b\nc", "a b c"),
        ("a\x00b\x07", "ab"),
        ("\x1b[31mred", "red"),
    ],
)
def test_cleaning(text, plain):
    assert repair(text) == plain
    assert ids_of(text) == ids_of(plain)


def test_lone_surrogates_are_no_obstacle():
    assert ids_of("dog \ud83d")[:2] == [SOT_ID, DOG]


def test_skipping_repair_changes_nothing():
    """Texts that are not repaired get the ids that they would get repaired."""
    rng = random.Random(0)
    printable = [chr(code) for code in range(32, 127)]
    texts = ["".join(rng.choices(printable, k=rng.randint(1, 40))) for _ in range(3000)]
    skipped = [text for text in texts if not needs_repair(text)]
    assert len(skipped) > 1000
    for max_words in (32, 77):
        as_is = tokenize(skipped, max_words)
        repaired = tokenize([repair(text) for text in skipped], max_words)
        np.testing.assert_array_equal(as_is, repaired)


@pytest.mark.parametrize("text", ["a\x07b", "a\tb", "café", "a &amp; b", "x <|endoftext|>", "\x7f"])
def test_what_is_never_skipped(text):
    assert needs_repair(text)


def test_real_captions_are_the_same_with_and_without_repair(shared_dir):
    path = shared_dir / "annotations" / "msrvtt" / "MSRVTT_JSFUSION_test.csv"
    with path.open(newline="", encoding="utf-8") as file:
        captions = [row["sentence"] for row in csv.DictReader(file)]
    assert len(captions) == 1000
    np.testing.assert_array_equal(
        tokenize(captions), tokenize([repair(caption) for caption in captions])
    )
    assert tokenize(captions)[0].max() < TOKENISER_VOCABULARY


@pytest.mark.parametrize("max_words", [2, 0, -1])
def test_too_few_words(max_words):
    with pytest.raises(ValueError, match=f"max_words is {max_words}, expected at least 3"):
        tokenize(["dog"], max_words)


@pytest.mark.parametrize("function", [tokenize, count_tokens])
def test_refuses_what_is_no_list_of_captions(function):
    with pytest.raises(ValueError, match=r"pass \[text\]"):
        function("a dog")
    with pytest.raises(ValueError, match=r"texts\[1\] is NoneType, expected a caption"):
        function(["a dog", None])
