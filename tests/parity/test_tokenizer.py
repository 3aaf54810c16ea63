"""Token ids and masks against those of the original tokenisers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vtr_jax.data.text import count_tokens, tokenize
from vtr_jax.parity.cases import system_cases
from vtr_jax.vocabulary import EOT_ID, SOT_ID, TOKENISER_VOCABULARY


@pytest.fixture(scope="module")
def recorded(golden_dir) -> list[dict]:
    found = [json.loads(path.read_text()) for path in system_cases(golden_dir, "tokenizer")]
    if not found:
        pytest.skip(
            f"no case of tokenizer below {golden_dir}: its captions are not copied here "
            "(set VTR_GOLDEN_DIR)"
        )
    return found


def texts_of(recorded) -> list[dict]:
    return [case for record in recorded for case in record["cases"]]


def test_special_ids(recorded):
    for meta in (record["meta"] for record in recorded):
        assert (meta["sot"], meta["eot"], meta["vocab"]) == (SOT_ID, EOT_ID, TOKENISER_VOCABULARY)


def test_every_text(recorded):
    lengths = {name for case in texts_of(recorded) for name in case if name[3:].isdigit()}
    assert lengths
    for name in lengths:
        cases, max_words = [c for c in texts_of(recorded) if name in c], int(name[3:])
        token_ids, token_mask = tokenize([case["text"] for case in cases], max_words)
        expected = np.array([case[f"padded{max_words}"] for case in cases])
        wrong = np.flatnonzero((token_ids != expected).any(axis=1))
        assert not wrong.size, [cases[row]["text"] for row in wrong]
        counted = np.array([case[name] for case in cases])
        np.testing.assert_array_equal(token_mask, np.arange(max_words) < counted[:, None])


def test_uncut_lengths(recorded):
    cases = texts_of(recorded)
    counted = count_tokens([case["text"] for case in cases])
    assert counted.tolist() == [len(case["ids"]) + 2 for case in cases]
