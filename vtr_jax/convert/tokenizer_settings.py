"""The tokenizer of a checkpoint folder: CLIP's own, that of a tokenizer.json, or an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtr_jax.convert.huggingface_folder import read_config
from vtr_jax.data.tokenizer_file import (
    TOKENIZER_FILE,
    TokenizerFile,
    is_clip_tokenizer,
    token_id,
)
from vtr_jax.models.clip import TextConfig
from vtr_jax.preprocessing import CLIP_TOKENIZER
from vtr_jax.vocabulary import EOT_ID, TOKENISER_VOCABULARY

Chosen = str | TokenizerFile
_MAX_BYTES = 256 * 2**20
# Arguments of open_clip's HFTokenizer that leave the ids as they are.
_NO_EFFECT = {"use_fast": None, "tokenizer_mode": None, "strip_sep_token": False, "language": None}


def open_clip_tokenizer(text_cfg: Mapping[str, Any], folder: Path, path: Path) -> Chosen:
    """Return the tokenizer that open_clip would use for a model of this text_cfg.

    folder: where a tokenizer.json may be. path: of the checkpoint, for messages. Raises
    ValueError for a tokenizer whose file is missing and for arguments that cannot be applied.
    """
    name = text_cfg.get("hf_tokenizer_name")
    arguments = dict(text_cfg.get("tokenizer_kwargs") or {})
    if text_cfg.get("tokenizer_mode"):
        arguments["tokenizer_mode"] = text_cfg["tokenizer_mode"]
    clean = arguments.pop("clean", "whitespace" if name else "lower")
    for argument, value in arguments.items():
        if value not in (None, False, _NO_EFFECT.get(argument)):
            raise ValueError(
                f"{path}: tokenizer_kwargs has {argument}={str(value)[:60]!r}, which cannot be "
                "applied; only checkpoints without it can be converted"
            )
    if not name:
        if clean != "lower":
            raise ValueError(
                f"{path}: tokenizer_kwargs has clean={clean!r}; with CLIP's tokenizer only 'lower' "
                "can be applied"
            )
        return CLIP_TOKENIZER
    if not (folder / TOKENIZER_FILE).is_file() and str(name).startswith("openai/clip-vit-"):
        return CLIP_TOKENIZER
    return tokenizer_of_file(folder / TOKENIZER_FILE, str(name), clean)


def huggingface_tokenizer(folder: Path) -> Chosen | None:
    """Return the tokenizer of a Hugging Face folder, None if it has no tokenizer files.

    Raises ValueError for files that are not a readable tokenizer.json.
    """
    if (folder / TOKENIZER_FILE).is_file():
        settings = read_config(folder, "tokenizer_config.json") or {}
        name = settings.get("name_or_path") or settings.get("tokenizer_class") or folder.name
        return tokenizer_of_file(folder / TOKENIZER_FILE, str(name), "none")
    if not (folder / "vocab.json").is_file():
        for name in ("vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"):
            if (folder / name).is_file():
                raise ValueError(_needs_file(folder / TOKENIZER_FILE, f"the tokenizer of {name}"))
        return None
    vocabulary = read_config(folder, "vocab.json") or {}
    is_clip = (
        len(vocabulary) == TOKENISER_VOCABULARY
        and vocabulary.get("<|endoftext|>") == EOT_ID
        and vocabulary.get("dog</w>") == _CLIP_DOG
    )
    if is_clip:
        return CLIP_TOKENIZER
    raise ValueError(
        _needs_file(folder / TOKENIZER_FILE, f"vocab.json of {len(vocabulary)} entries")
    )


_CLIP_DOG = 1929  # "dog" in CLIP's vocabulary


def tokenizer_of_file(path: Path, name: str, clean: str = "none") -> Chosen:
    """Return the tokenizer of a tokenizer.json: "clip" if it is CLIP's own.

    Padding is read from the files next to it. Raises ValueError if the file is missing or cannot
    be applied exactly.
    """
    if not path.is_file():
        raise ValueError(_needs_file(path, f"the tokenizer {name}"))
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path}: expected a tokenizer.json, found {path.stat().st_size} bytes")
    content = path.read_bytes()
    if is_clip_tokenizer(content):
        return CLIP_TOKENIZER
    if clean not in ("none", "whitespace", "lower"):
        raise ValueError(f"{path}: tokenizer_kwargs has clean={clean!r}, which cannot be applied")
    try:
        stated = json.loads(content)
        if not isinstance(stated, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        raise ValueError(f"{path}: not a readable tokenizer.json ({error})") from error
    settings = read_config(path.parent, "tokenizer_config.json") or {}
    for side in ("padding_side", "truncation_side"):
        if settings.get(side, "right") != "right":
            raise ValueError(
                f"{path.parent / 'tokenizer_config.json'}: {side}: expected right, found "
                f"{settings[side]!r}, which cannot be applied"
            )
    _check_case(stated, settings, path)
    try:
        pad_id = _pad_id(content, stated, settings, path)
        return TokenizerFile(content, name, pad_id, clean)
    except ValueError as error:
        message = str(error)
        raise ValueError(
            message if str(path.parent) in message else f"{path}: {message}"
        ) from error


def check_tokenizer(tokenizer: Chosen, text: TextConfig, path: Path) -> None:
    """Raise ValueError if the text tower cannot read the ids, or waits for an id in vain."""
    if isinstance(tokenizer, TokenizerFile):
        if tokenizer.vocabulary > text.vocab_size:
            raise ValueError(
                f"{path}: the tokenizer {tokenizer.name} has ids up to {tokenizer.vocabulary - 1}, "
                f"but the text tower has {text.vocab_size} entries; give the tokenizer.json that "
                "the checkpoint was trained with"
            )
        fits = text.end_of_text_id is None or tokenizer.emits_at_the_end(text.end_of_text_id)
    else:
        # Small vocabularies fold CLIP's ids, so that any of theirs may come up.
        folded = text.vocab_size < TOKENISER_VOCABULARY
        possible = range(text.vocab_size) if folded else (EOT_ID,)
        fits = text.end_of_text_id is None or text.end_of_text_id in possible
    if not fits:
        name = tokenizer if isinstance(tokenizer, str) else tokenizer.name
        raise ValueError(
            f"{path}: texts are pooled at token {text.end_of_text_id}, which the tokenizer {name} "
            "never puts at the end of a text: every caption would get the same feature. Give the "
            "tokenizer that the checkpoint was trained with (--tokenizer=tokenizer.json), or the "
            "end-of-text id of this one (--end_of_text_id=N)"
        )


def _pad_id(
    content: bytes, stated: Mapping[str, Any], settings: Mapping[str, Any], path: Path
) -> int:
    special = read_config(path.parent, "special_tokens_map.json") or {}
    token = settings.get("pad_token") or special.get("pad_token")
    if isinstance(token, Mapping):
        token = token.get("content")
    if isinstance(token, str):
        found = token_id(content, token)
        if found is None:
            raise ValueError(f"{path}: the padding token {token!r} is not in its vocabulary")
        return found
    padding = stated.get("padding")
    if isinstance(padding, Mapping) and isinstance(padding.get("pad_id"), int):
        return int(padding["pad_id"])
    raise ValueError(
        f"{path}: no padding token is stated; add tokenizer_config.json or "
        "special_tokens_map.json with pad_token"
    )


def _check_case(stated: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> None:
    """Raise ValueError if tokenizer_config.json and tokenizer.json disagree about lower case."""
    normalizer = stated.get("normalizer") or {}
    lower, wanted = normalizer.get("lowercase"), settings.get("do_lower_case")
    if isinstance(lower, bool) and isinstance(wanted, bool) and lower != wanted:
        raise ValueError(
            f"{path}: lowercase is {lower} in its normalizer, but do_lower_case is {wanted} in "
            "tokenizer_config.json; save the tokenizer again with one of them"
        )


def _needs_file(path: Path, what: str) -> str:
    return (
        f"{path}: missing, and the checkpoint was trained with {what} instead of CLIP's tokenizer; "
        "put that tokenizer's tokenizer.json (and tokenizer_config.json) there, or give it as "
        "--tokenizer=FILE"
    )
