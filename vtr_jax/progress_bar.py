"""Progress bars: one line that moves on a terminal, few lines in a log file."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

LOG_SECONDS = 10.0


class _LogLines(io.TextIOBase):
    """A stream for tqdm that passes on at most one full line per `LOG_SECONDS`."""

    def __init__(self, stream: TextIO, wait: float) -> None:
        self._stream = stream
        self._next = time.monotonic() + wait

    def write(self, text: str) -> int:
        # tqdm redraws its line after \r and ends it with \n; a log keeps every line.
        line = text.strip("\r\n ")
        now = time.monotonic()
        if line and now >= self._next:
            self._stream.write(f"{line}\n")
            self._stream.flush()
            self._next = now + LOG_SECONDS
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def progress_bar(iterable: Iterable[Any], *, wait: float = 0.0, **options: Any) -> tqdm:
    """Return tqdm's bar over `iterable`, drawn on the standard error.

    Where the standard error is not a terminal, each bar writes its first line after `wait` seconds
    and further ones at least `LOG_SECONDS` apart.

    Args:
        iterable: items to count.
        wait: seconds; `LOG_SECONDS` for a bar that follows another one.
        **options: tqdm's options (desc, total, initial, unit, ...).
    """
    if sys.stderr.isatty():
        return tqdm(iterable, mininterval=0.5, **options)
    log: Any = _LogLines(sys.stderr, wait)
    return tqdm(iterable, mininterval=1.0, ascii=True, ncols=80, file=log, **options)
