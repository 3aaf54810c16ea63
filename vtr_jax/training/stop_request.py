"""Being asked to stop: a scheduler's SIGTERM, or Ctrl-C, ends a run behind its next step.

JAX is imported where it is needed: the command line listens before that, which takes a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_FIRST_WORDS = "saving behind the step that runs; sent again, it ends the run at once"
_GOES_ON = "the same command goes on from there"
# Schedulers start a job again that ends with 75, EX_TEMPFAIL: try again later.
EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


class Interrupted(SystemExit):
    """The run was asked to stop and has saved what it did; its code is the process's exit code."""

    code: int


class StopRequest:
    """Whether somebody has asked this run to stop; made by `stop_requests`."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.ends_at_once = False

    def reached(self, step: int) -> bool:
        """Whether to stop behind this step; all processes of a run get the same answer."""
        if _many_processes():
            from jax.experimental import multihost_utils

            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None

    def interruption(self, step: int) -> Interrupted:
        """What to raise once everything up to a step is saved."""
        from vtr_jax.cluster import is_first

        number = self.signal or signal.SIGTERM
        done = f"saved after step {step}" if step else "before the first step"
        if is_first():
            print(f"{number.name}: {done}; {_GOES_ON}", flush=True)
        return Interrupted(EXIT_CODES[number])

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """While nothing is left to save: being asked to stop raises Interrupted at that very place.

        Of one process that trains alone; many agree on a step first.
        """
        self.ends_at_once = True
        try:
            if self.signal:
                raise _interrupted(self.signal)
            yield
        finally:
            self.ends_at_once = False


def _many_processes() -> bool:
    import jax

    return jax.process_count() > 1


def _interrupted(number: signal.Signals) -> Interrupted:
    # print is not allowed in a signal's handler: it may have come in the middle of one.
    os.write(2, f"{number.name}: nothing was left to save; {_GOES_ON}\n".encode())
    return Interrupted(EXIT_CODES[number])


def end_before_the_run() -> None:
    """Let SIGTERM end this process with the code of a run that has nothing to save.

    For programs that will train, and only until then: to be called before anything is begun.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        # No exception: libraries that are being loaded would make others of it.
        os._exit(_interrupted(signal.Signals(number)).code)

    signal.signal(signal.SIGTERM, end)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Notes SIGTERM and SIGINT while it is open, instead of being ended by them.

    The second such signal does end the process. Signals stay as they are in a thread that
    is not the main one, and where several processes train together: JAX listens to them there.
    """
    request = StopRequest()
    if _many_processes() or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in EXIT_CODES}

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal = signal.Signals(number)
        for each in EXIT_CODES:
            signal.signal(each, signal.SIG_DFL)
        if request.ends_at_once:
            raise _interrupted(request.signal)
        os.write(2, f"{request.signal.name}: {_FIRST_WORDS}\n".encode())

    for number in EXIT_CODES:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
