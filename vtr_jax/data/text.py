"""Captions to CLIP token ids, equal to the original Python tokeniser and much faster.

token_ids, token_mask = tokenize(["a dog runs", "a cat sleeps"], max_words=32)
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vtr_jax.vocabulary import EOT_ID, SOT_ID

if TYPE_CHECKING:
    from instant_clip_tokenizer import Tokenizer

MIN_MAX_WORDS = 3  # start of text, one word piece, end of text

_SPECIAL_IDS = {"<|startoftext|>": SOT_ID, "<|endoftext|>": EOT_ID}
# The original pattern tries the special strings first at each place it reaches, and a run of
# punctuation swallows a "<" that follows it. So a special string counts only at the start, or
# after white space, a letter, a number or another special string.
_SPECIAL = re.compile(r"(?:^|(?<=[\s])|(?<=[^\W_]))((?:<\|(?:start|end)oftext\|>)+)")
_ONE_SPECIAL = re.compile(r"<\|(?:start|end)oftext\|>")


def tokenize(texts: Sequence[str], max_words: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Turn captions into CLIP token ids and their mask.

    A row is SOT, the first `max_words - 2` word pieces, EOT, then zeros, so a caption that is cut
    keeps its EOT. Cleaning (ftfy, HTML entities, white space, lower case), ids and mask equal
    those of CLIP's and CLIP4Clip's own tokenisers.

    Args:
        texts: T captions.
        max_words: L, the tokens of a row, SOT and EOT included; at least 3.

    Returns:
        token_ids int32 [T, L] and token_mask int32 [T, L] (1 on SOT, words and EOT).

    Raises:
        ValueError: `texts` is a single string, an entry is no string, or `max_words` is below 3.
    """
    if max_words < MIN_MAX_WORDS:
        raise ValueError(
            f"max_words is {max_words}, expected at least {MIN_MAX_WORDS}: start of text, one word "
            "piece and end of text"
        )
    cleaned = [_clean(text) for text in _checked(texts)]
    token_ids = _tokenizer().tokenize_batch(cleaned, context_length=max_words).astype(np.int32)
    for row, text in enumerate(cleaned):
        if "<|" in text:
            words = _encode(text)[: max_words - 2]
            token_ids[row] = 0
            token_ids[row, : len(words) + 2] = [SOT_ID, *words, EOT_ID]
    return token_ids, _mask_up_to_last_end(token_ids)


def count_tokens(texts: Sequence[str]) -> np.ndarray:
    """Count the tokens each caption would need uncut, SOT and EOT included.

    Captions with more than `max_words` of them are cut by `tokenize`.

    Returns:
        int64 [T].

    Raises:
        ValueError: as `tokenize`.
    """
    return np.array([len(_encode(_clean(text))) + 2 for text in _checked(texts)], dtype=np.int64)


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise ValueError("texts is a single string, expected a list of captions: pass [text]")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"texts[{position}] is {type(text).__name__}, expected a caption (a string)"
            )
    return list(texts)


def _clean(text: str) -> str:
    return repair(text) if needs_repair(text) else text


def needs_repair(text: str) -> bool:
    """Say whether `repair` could change anything but case and white space.

    Repairing costs more than tokenising. Printable ASCII without "&" has nothing to repair.
    """
    return not text.isascii() or not text.isprintable() or "&" in text or "<|" in text


def repair(text: str) -> str:
    """Clean a caption as CLIP does: ftfy, HTML entities twice, single spaces, lower case."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _encode(cleaned: str) -> list[int]:
    """Word piece ids of one cleaned caption, uncut, without SOT and EOT at the ends."""
    ids: list[int] = []
    for part in _SPECIAL.split(cleaned):
        special = _ONE_SPECIAL.findall(part) if _SPECIAL.fullmatch(part) else []
        ids += [_SPECIAL_IDS[name] for name in special] if special else _tokenizer().encode(part)
    return ids


def _mask_up_to_last_end(token_ids: np.ndarray) -> np.ndarray:
    # Not "id != 0": id 0 is also a word piece ("!" inside a longer run).
    length = token_ids.shape[1]
    last_end = length - 1 - np.argmax(token_ids[:, ::-1] == EOT_ID, axis=1)
    return (np.arange(length) <= last_end[:, None]).astype(np.int32)


@functools.cache
def _tokenizer() -> Tokenizer:
    from instant_clip_tokenizer import Tokenizer

    return Tokenizer()
