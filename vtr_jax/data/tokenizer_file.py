"""A tokenizer.json as open_clip's HFTokenizer and Hugging Face's fast tokenizers apply it.

tokenizer = TokenizerFile(Path("tokenizer.json").read_bytes(), "facebook/xlm-v-base", pad_id=1)
token_ids, token_mask = tokenizer.tokenize(["a dog runs"], max_words=77)
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
# How a caption is cleaned before it reaches the tokenizer; source: open_clip's get_clean_fn.
CLEANINGS = ("none", "whitespace", "lower")
_PROBE = "a dog runs along the beach"


@dataclasses.dataclass(frozen=True)
class TokenizerFile:
    """The tokenizer of a tokenizer.json; hashable, equal by sha256, padding and cleaning.

    Attributes:
        content: the file's bytes.
        name: what the configuration calls it, for messages.
        pad_id: id of the padding after the last token.
        clean: one of CLEANINGS.

    Raises:
        ValueError: the file cannot be read as a tokenizer, or a setting is out of its range.
    """

    content: bytes = dataclasses.field(repr=False, compare=False)
    name: str = dataclasses.field(default=TOKENIZER_FILE, compare=False)
    pad_id: int = 0
    clean: str = "none"
    sha256: str = dataclasses.field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.content).hexdigest())
        if self.clean not in CLEANINGS:
            raise ValueError(
                f"tokenizer {self.name}: clean: expected one of {', '.join(CLEANINGS)}; "
                f"got {self.clean!r}"
            )
        _tokenizer(self, None)  # a damaged file is an error now

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:16]}...)"

    def tokenize(self, texts: Sequence[str], max_words: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and mask, int32 [T, L] each; special tokens survive where texts are cut.

        Raises:
            ValueError: `max_words` leaves no room for a word between the special tokens.
        """
        if max_words <= self.special_tokens:
            raise ValueError(
                f"max_words is {max_words}, expected more than {self.special_tokens}: so many "
                f"special tokens does the tokenizer {self.name} add"
            )
        encoded = _tokenizer(self, max_words).encode_batch([self._cleaned(text) for text in texts])
        token_ids = np.full((len(texts), max_words), self.pad_id, np.int32)
        token_mask = np.zeros((len(texts), max_words), np.int32)
        for row, encoding in enumerate(encoded):
            token_ids[row, : len(encoding.ids)] = encoding.ids
            token_mask[row, : len(encoding.ids)] = 1
        return token_ids, token_mask

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Return the tokens that each text needs uncut, special tokens included; int64 [T]."""
        encoded = _tokenizer(self, None).encode_batch([self._cleaned(text) for text in texts])
        return np.array([len(encoding.ids) for encoding in encoded], np.int64)

    @property
    def special_tokens(self) -> int:
        """Special tokens that are added to every text."""
        return int(_tokenizer(self, None).num_special_tokens_to_add(False))

    @property
    def vocabulary(self) -> int:
        """One more than the largest id."""
        return 1 + max(_tokenizer(self, None).get_vocab(with_added_tokens=True).values())

    @property
    def pad_token(self) -> str | None:
        """The token of the padding, None if the vocabulary has no such id."""
        token: str | None = _tokenizer(self, None).id_to_token(self.pad_id)
        return token

    def emits_at_the_end(self, token_id: int) -> bool:
        """Whether every text ends with this id."""
        return bool(_tokenizer(self, None).encode(_PROBE).ids[-1:] == [token_id])

    def to_json(self) -> dict[str, Any]:
        """Return everything but the file's content as plain JSON values."""
        return {
            "file": TOKENIZER_FILE,
            "sha256": self.sha256,
            "name": self.name,
            "pad_id": self.pad_id,
            "clean": self.clean,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], directory: Path | None) -> TokenizerFile:
        """Return the tokenizer that `to_json` described, its file read from a directory.

        Raises:
            FileNotFoundError: the directory has no such file.
            ValueError: the file is not the one that was described.
        """
        path = Path(directory or ".") / TOKENIZER_FILE
        if directory is None or not path.is_file():
            raise FileNotFoundError(
                f"{path}: expected the tokenizer {values.get('name')} of this retriever, found no "
                "such file; copy the directory again or restore this file"
            )
        read = cls(path.read_bytes(), values["name"], values["pad_id"], values["clean"])
        if read.sha256 != values["sha256"]:
            raise ValueError(
                f"{path}: expected sha256 {values['sha256'][:16]}..., found {read.sha256[:16]}...: "
                "another tokenizer; copy the directory again or restore this file"
            )
        return read

    def _cleaned(self, text: str) -> str:
        if self.clean == "none":
            return text
        import ftfy

        text = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
        return text.lower() if self.clean == "lower" else text


@functools.lru_cache(maxsize=8)
def _tokenizer(file: TokenizerFile, max_words: int | None) -> Tokenizer:
    """Return the tokenizer of a file, cutting texts at max_words; one instance per limit."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(file.content)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{file.name}: not a readable tokenizer.json ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if max_words is not None:
        tokenizer.enable_truncation(max_words)
    return tokenizer


def is_clip_tokenizer(content: bytes) -> bool:
    """Whether a tokenizer.json has CLIP's vocabulary and merges.

    The words of its vocabulary and special tokens must become the ids that CLIP's own tokenizer
    gives; cleaning (ftfy, HTML entities) is CLIP's own afterwards.
    """
    from tokenizers import Tokenizer

    from vtr_jax.data.text import tokenize
    from vtr_jax.vocabulary import EOT_ID, SOT_ID, TOKENISER_VOCABULARY

    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception:  # the library raises plain Exception
        return False
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if len(vocabulary) != TOKENISER_VOCABULARY or vocabulary.get("<|endoftext|>") != EOT_ID:
        return False
    tokenizer.no_padding()
    tokenizer.no_truncation()
    words = sorted(
        word.removesuffix("</w>")
        for word in vocabulary
        if word.endswith("</w>") and word.removesuffix("</w>").isascii() and word[:1].isalpha()
    )
    for start in range(0, len(words), 500):
        text = " ".join(words[start : start + 500])
        ours = tokenize([text], max_words=2000)
        theirs = tokenizer.encode(text).ids
        if theirs[:1] != [SOT_ID] or ours[0][0][ours[1][0] == 1].tolist() != theirs:
            return False
    return True


def token_id(content: bytes, token: str) -> int | None:
    """Return the id of a token in a tokenizer.json, None if it has no such token."""
    vocabulary = json.loads(content)
    added = {entry["content"]: entry["id"] for entry in vocabulary.get("added_tokens", ())}
    if token in added:
        return int(added[token])
    from tokenizers import Tokenizer

    return Tokenizer.from_buffer(content).token_to_id(token)
