"""Annotation files that several splits share, read and parsed once.

with each_file_parsed_once():
    splits = [read_split("vatex", folder, name) for name in ("train", "val", "test")]
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

Content = TypeVar("Content")

_PARSED: ContextVar[dict[Hashable, Any] | None] = ContextVar("parsed", default=None)


@contextlib.contextmanager
def each_file_parsed_once() -> Iterator[None]:
    """Keep the content of every annotation file that is parsed inside, until the outermost end."""
    if _PARSED.get() is not None:
        yield
        return
    token = _PARSED.set({})
    try:
        yield
    finally:
        _PARSED.reset(token)


def parsed_once(parse: Callable[..., Content]) -> Callable[..., Content]:
    """Decorate a parser of (path, *options) so that each_file_parsed_once applies to it.

    Callers must not change the content that they get. Errors are not kept.
    """

    @functools.wraps(parse)
    def parse_once(path: str | os.PathLike[str], *options: Hashable) -> Content:
        parsed = _PARSED.get()
        if parsed is None:
            return parse(path, *options)
        key = (parse, os.fspath(path), options)
        if key not in parsed:
            parsed[key] = parse(path, *options)
        return parsed[key]

    return parse_once
