"""Pickles of plain dicts, lists and texts, read without the power to run anything.

A pickle is a program, and Python's own reader runs it. Here the standard library first lists its
instructions, and any that could name a function, build an object or claim memory is refused.
"""

from __future__ import annotations

import functools
import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

MAX_BYTES = 256 * 2**20
_TEXTS = {
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_CONTAINERS = {
    *("MARK", "EMPTY_LIST", "APPEND", "APPENDS", "LIST"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_MEMO = {*_PUTS, "MEMOIZE", "GET", "BINGET", "LONG_BINGET"}
_HARMLESS = {*_TEXTS, *_CONTAINERS, *_MEMO, "PROTO", "FRAME", "STOP"}


class _NoNames(pickle.Unpickler):
    """A second lock: even an instruction that passed finds nothing to call."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists and texts, of any protocol and either Python.

    The caller must not change what it gets: the last file read is kept.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no pickle, is damaged, holds anything else, or is beyond 256 MiB.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation file")
    status = path.stat()
    if status.st_size > MAX_BYTES:
        raise ValueError(f"{path}: {status.st_size} bytes, expected at most {MAX_BYTES}")
    return _read(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read(path: Path, size: int, changed: int) -> Any:
    del size, changed  # a file that changed is read again
    content = path.read_bytes()
    try:
        _check_harmless(content)
        return _NoNames(io.BytesIO(content), encoding="utf-8").load()
    except (ValueError, TypeError, LookupError, EOFError, AttributeError, RecursionError) as error:
        raise _refusal(path, error) from error
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error


def _check_harmless(content: bytes) -> None:
    """Raise a ValueError at the first instruction that does more than dicts, lists and texts."""
    puts = 0
    for opcode, argument, position in pickletools.genops(content):
        if opcode.name not in _HARMLESS:
            raise ValueError(f"instruction {opcode.name} at byte {position}")
        if opcode.name in _PUTS:
            # Memory is claimed up to the number, so it must not run ahead of what was put.
            if not 0 <= int(argument or 0) <= 2 * puts + 64:
                raise ValueError(f"entry {argument} at byte {position}")
            puts += 1


def _refusal(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: expected a pickle of nothing but dicts, lists and texts, found: "
        f"{str(error)[:120] or type(error).__name__}; nothing in it was run"
    )
