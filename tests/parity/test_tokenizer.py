"""Token ids and masks against those of the original tokenisers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vtr_jax.data.text import EOT_ID, SOT_ID, count_tokens, tokenize
from vtr_jax.vocabulary import TOKENISER_VOCABULARY


@pytest.fixture(scope="module")
def recorded(golden_dir) -> dict:
    path = golden_dir / "tokenizer" / "clip_bpe.json"
    if not path.is_file():
        pytest.skip(f"no {path}: its captions are not copied here (set VTR_GOLDEN_DIR)")
    return json.loads(path.read_text())


def test_special_ids(recorded):
    meta = recorded["meta"]
    assert (meta["sot"], meta["eot"], meta["vocab"]) == (SOT_ID, EOT_ID, TOKENISER_VOCABULARY)


@pytest.mark.parametrize("max_words", [32, 77])
def test_every_text(recorded, max_words):
    cases = recorded["cases"]
    token_ids, token_mask = tokenize([case["text"] for case in cases], max_words)
    expected = np.array([case[f"padded{max_words}"] for case in cases])
    wrong = np.flatnonzero((token_ids != expected).any(axis=1))
    assert not wrong.size, [cases[row]["text"] for row in wrong]
    lengths = np.array([case[f"len{max_words}"] for case in cases])
    np.testing.assert_array_equal(token_mask, np.arange(max_words) < lengths[:, None])


def test_uncut_lengths(recorded):
    cases = recorded["cases"]
    counted = count_tokens([case["text"] for case in cases])
    assert counted.tolist() == [len(case["ids"]) + 2 for case in cases]
