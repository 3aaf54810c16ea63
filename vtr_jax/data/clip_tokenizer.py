"""CLIP's tokenizer: cleaning, byte pair encoding and special ids, equal to the original.

The encoding is done by the `tokenizers` library with CLIP's merges, which are installed beside
this file.
"""

from __future__ import annotations

import functools
import gzip
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vtr_jax.vocabulary import EOT_ID, SOT_ID

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MERGES_FILE = Path(__file__).parent / "clip_vocabulary" / "merges.txt.gz"

_END_OF_WORD = "</w>"
# The original's pattern without its special strings. Its re.IGNORECASE reads "'\u017f" as "'s", and
# drops U+0345, a mark whose capital is a letter.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"
_SPECIAL_IDS = {"<|startoftext|>": SOT_ID, "<|endoftext|>": EOT_ID}
# The original pattern tries the special strings first at each place it reaches, and a run of
# punctuation swallows a "<" that follows it. So a special string counts only at the start, or
# after white space, a letter, a number or another special string.
_SPECIAL = re.compile(r"(?:^|(?<=[\s])|(?<=[^\W_]))((?:<\|(?:start|end)oftext\|>)+)")
_ONE_SPECIAL = re.compile(r"<\|(?:start|end)oftext\|>")


def encode(texts: Sequence[str], max_words: int | None = None) -> list[list[int]]:
    """Clean and encode captions.

    Args:
        texts: T captions.
        max_words: the most tokens of a caption, start and end of text included; None for no limit.

    Returns:
        T lists of token ids without padding: start of text, word pieces, end of text. A caption
        that is cut keeps its end of text.
    """
    cleaned = [clean(text) for text in texts]
    limit = None if max_words is None else max_words - 2
    pieces = _encode(cleaned)
    for row, text in enumerate(cleaned):
        if "<|" in text:
            pieces[row] = _encode_with_specials(text)
    return [[SOT_ID, *ids[:limit], EOT_ID] for ids in pieces]


def clean(text: str) -> str:
    """Clean a caption, with the slow repair only if it could change anything."""
    return repair(text) if needs_repair(text) else text.lower()


def needs_repair(text: str) -> bool:
    """Return whether `repair` could change anything but case and white space.

    Repairing costs more than tokenizing. Printable ASCII without "&" has nothing to repair.
    """
    return not text.isascii() or not text.isprintable() or "&" in text or "<|" in text


def repair(text: str) -> str:
    """Clean a caption as CLIP does: ftfy, HTML entities twice, single spaces, lower case."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _encode(cleaned: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in _byte_pairs().encode_batch_fast(cleaned)]


def _encode_with_specials(cleaned: str) -> list[int]:
    """Encode one caption in which "<|startoftext|>" and "<|endoftext|>" stand for their ids."""
    ids: list[int] = []
    for part in _SPECIAL.split(cleaned):
        if _SPECIAL.fullmatch(part):
            ids += [_SPECIAL_IDS[name] for name in _ONE_SPECIAL.findall(part)]
        else:
            ids += _encode([part])[0]
    return ids


@functools.cache
def _byte_pairs() -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    lines = gzip.decompress(MERGES_FILE.read_bytes()).decode().splitlines()
    merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    model = models.BPE(_vocabulary(merges), merges, end_of_word_suffix=_END_OF_WORD)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return the id of each word piece: bytes, bytes that end a word, merges in their order."""
    # Bytes are written as printable characters: those that are printable in Latin-1 come first as
    # themselves, the others follow as the characters from U+0100 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = [chr(code) for code in (*printable, *range(256, 512 - len(printable)))]
    ends = [character + _END_OF_WORD for character in characters]
    pieces = [*characters, *ends, *(first + second for first, second in merges)]
    return {piece: token_id for token_id, piece in enumerate(pieces)}
