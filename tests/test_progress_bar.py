"""Progress bars on a terminal and in a log file."""

from __future__ import annotations

import io
import sys
import types

import pytest

from vtr_jax import progress_bar as module
from vtr_jax.progress_bar import LOG_SECONDS, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock of the log's own, which the test sets."""
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.seconds)
    return now


@pytest.mark.parametrize("wait", [0.0, LOG_SECONDS])
def test_a_log_gets_at_most_one_line_per_ten_seconds(monkeypatch, clock, wait):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    bar = progress_bar(range(1000), wait=wait, desc="work", unit=" clips")
    for _ in bar:
        clock.seconds += 0.125
        bar.refresh()
    lines = log.getvalue().splitlines()
    assert len(lines) == 1000 * 0.125 // LOG_SECONDS + (1 if wait == 0 else 0)
    assert all(line.startswith("work: ") for line in lines)
    assert "\r" not in log.getvalue()


def test_a_quick_bar_that_waits_writes_nothing(monkeypatch, clock):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert list(progress_bar(range(5), wait=LOG_SECONDS)) == list(range(5))
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar_that_moves(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    list(progress_bar(range(5), desc="work"))
    assert "\rwork: 100%" in terminal.getvalue()
