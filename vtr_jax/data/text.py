"""Captions to CLIP token ids and their mask.

token_ids, token_mask = tokenize(["a dog runs", "a cat sleeps"], max_words=32)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vtr_jax.data.clip_tokenizer import encode

MIN_MAX_WORDS = 3  # start of text, one word piece, end of text


def tokenize(texts: Sequence[str], max_words: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Turn captions into CLIP token ids and their mask.

    A row is SOT, the first `max_words - 2` word pieces, EOT, then zeros, so a
    caption that is cut keeps its EOT. Cleaning (ftfy, HTML entities, white space, lower case), ids
    and mask equal those of CLIP's and CLIP4Clip's own tokenizers.

    Args:
        texts: T captions.
        max_words: L, the tokens of a row, SOT and EOT included; at least 3.

    Returns:
        token_ids int32 [T, L] and token_mask int32 [T, L] (1 on SOT, words and EOT).

    Raises:
        ValueError: `texts` is a single string, an entry is not a string, or `max_words` is below 3.
    """
    if max_words < MIN_MAX_WORDS:
        raise ValueError(
            f"max_words is {max_words}, expected at least {MIN_MAX_WORDS}: start of text, one word "
            "piece and end of text"
        )
    rows = encode(_checked(texts), max_words)
    token_ids = np.zeros((len(rows), max_words), np.int32)
    token_mask = np.zeros_like(token_ids)
    for row, ids in enumerate(rows):
        token_ids[row, : len(ids)] = ids
        token_mask[row, : len(ids)] = 1
    return token_ids, token_mask


def count_tokens(texts: Sequence[str]) -> np.ndarray:
    """Count the tokens each caption would need uncut, SOT and EOT included.

    Captions with more than `max_words` of them are cut by `tokenize`.

    Returns:
        int64 [T].

    Raises:
        ValueError: as `tokenize`.
    """
    return np.array([len(ids) for ids in encode(_checked(texts))], dtype=np.int64)


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise ValueError("texts is a single string, expected a list of captions: pass [text]")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"texts[{position}] is {type(text).__name__}, expected a caption (a string)"
            )
    return list(texts)
