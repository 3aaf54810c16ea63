"""Being asked to stop: a scheduler's SIGTERM, or Ctrl-C, ends a run behind its next step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

_FIRST_WORDS = "saving behind the step that runs; sent again, it ends the run at once"
# Schedulers start a job again that ends with 75, EX_TEMPFAIL: try again later.
EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


class Interrupted(SystemExit):
    """The run was asked to stop and has saved what it did; its code is the process's exit code."""


class StopRequest:
    """Whether somebody has asked this run to stop; made by `stop_requests`."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def reached(self, step: int) -> bool:
        """Whether to stop behind this step; all processes of a run get the same answer."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None

    def interruption(self, step: int) -> Interrupted:
        """What to raise once everything up to a step is saved."""
        number = self.signal or signal.SIGTERM
        done = f"saved after step {step}" if step else "before the first step"
        print(f"{number.name}: {done}; the same command goes on from there", flush=True)
        return Interrupted(EXIT_CODES[number])


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Notes SIGTERM and SIGINT while it is open, instead of ending at once.

    The second such signal does end the process at once. Signals stay as they are in a thread that
    is not the main one, and where several processes train together: JAX listens to them there.
    """
    request = StopRequest()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in EXIT_CODES}

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal = signal.Signals(number)
        for each in EXIT_CODES:
            signal.signal(each, signal.SIG_DFL)
        # print is not allowed here: the signal may have come in the middle of one.
        os.write(2, f"{request.signal.name}: {_FIRST_WORDS}\n".encode())

    for number in EXIT_CODES:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
