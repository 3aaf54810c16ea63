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
        from vtr_jax.training.progress import say

        number = self.signal or signal.SIGTERM
        done = f"saved after step {step}" if step else "before the first step"
        say(f"{number.name}: {done}; {_GOES_ON}")
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
    _tell(f"{number.name}: nothing was left to save; {_GOES_ON}")
    return Interrupted(EXIT_CODES[number])


def _tell(line: str) -> None:
    # print is not allowed in a signal's handler: it may have come in the middle of one.
    with contextlib.suppress(OSError):  # nobody may read it any more
        os.write(2, f"{line}\n".encode())


def end_before_the_run() -> None:
    """Let SIGTERM end this process with the code of a run that has nothing to save.

    For programs that will train: to be called before anything is begun. Behind a run that came to
    its end, SIGTERM ends the process with 0: a scheduler must not start the job again.
    """
    signal.signal(signal.SIGTERM, _end_before_the_run)


def _end_before_the_run(number: int, frame: FrameType | None) -> None:
    del frame
    # No exception: libraries that are being loaded would make others of it.
    os._exit(_interrupted(signal.Signals(number)).code)


def _end_behind_the_run(number: int, frame: FrameType | None) -> None:
    del number, frame
    os._exit(0)


@contextlib.contextmanager
def ended_while_it_waits() -> Iterator[None]:
    """Inside, SIGTERM and SIGINT end the process though its main thread waits in a C function.

    A handler in Python would have to wait for that function, but Python's own writes the number
    into a file at once, and another thread reads it there. Only signals with a handler in Python
    are read; whoever replaces that below Python, as JAX does when processes have joined, gets them
    instead. Does nothing in a thread that is not the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    reader = threading.Thread(target=_end_when_told, args=(reading,), daemon=True)
    reader.start()
    before = signal.set_wakeup_fd(writing)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)  # the reader comes to the end of the file
        reader.join()
        os.close(reading)


def _end_when_told(reading: int) -> None:
    while number := os.read(reading, 1):
        if number[0] in EXIT_CODES:
            os._exit(_interrupted(signal.Signals(number[0])).code)


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
        _tell(f"{request.signal.name}: {_FIRST_WORDS}")

    for number in EXIT_CODES:
        signal.signal(number, note)
    finished = False
    try:
        yield request
        finished = True
    finally:
        for number, handler in before.items():
            ends = finished and handler is _end_before_the_run
            signal.signal(number, _end_behind_the_run if ends else handler)
