"""Times of several programs, or functions of one program, that take turns.

Taking turns spreads over all of them what else the machine does. Programs are processes of their
own, which keeps thread pools and allocators apart; such a side waits on its standard input between
turns and uses no processor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Measurement = Callable[[], dict[str, Any]]


def machine() -> str:
    """The processor's name and its number of cores, as a benchmark's result should carry it."""
    name = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.exists():
        names = re.findall(r"model name\s*: (.+)", described.read_text())
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores"


def add_whole_numbers(parser: argparse.ArgumentParser, **defaults: int) -> None:
    """An option --NAME for each of some whole numbers."""
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)


class Timed(NamedTuple):
    """A result, the seconds it took and the processor seconds of this process on all cores."""

    result: Any
    seconds: float
    processor: float


def timed(function: Callable[[], Any]) -> Timed:
    """One run of a function, which returns when its result is there."""
    start, start_processor = time.perf_counter(), time.process_time()
    result = function()
    return Timed(result, time.perf_counter() - start, time.process_time() - start_processor)


def functions_in_turns(functions: Sequence[Callable[[], Any]], rounds: int) -> list[list[Timed]]:
    """Each function's runs, turn by turn; a first one, uncounted, compiles."""
    for function in functions:
        function()
    turns = [[timed(function) for function in functions] for _ in range(rounds)]
    return [list(runs) for runs in zip(*turns, strict=True)]


def bind_to_cores(count: int) -> None:
    """Let this process and its threads run on that many cores alone, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def serve(measurements: dict[str, Measurement]) -> None:
    """The side's half: for each name read, run that measurement and write what it gives."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measurements[line.strip()]()), flush=True)


class Side:
    """One program among those compared; it imports nothing of the others."""

    def __init__(
        self,
        name: str,
        script: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{self.name} ended with exit code {self._process.wait()}, see above")

    def measure(self, what: str) -> dict[str, Any]:
        """Run one measurement there and return what it gives."""
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._answer()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *error: object) -> None:
        """End the program, whatever it is doing."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def sides_of(
    script: str, arguments: argparse.Namespace, names: Sequence[str]
) -> Iterator[list[Side]]:
    """A script started again once a side, with its own arguments and --side telling it which."""
    given = [f"--{name}={value}" for name, value in vars(arguments).items() if value is not None]
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Side(name, Path(script), [*given, f"--side={name}"]))
            for name in names
        ]


def in_turns(sides: Sequence[Side], what: str, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Every side's answers to one measurement, turn by turn; a first one, uncounted, compiles."""
    for side in sides:
        side.measure(what)
    answers: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    for turn in range(rounds):
        for side in sides if turn % 2 else reversed(sides):
            answers[side.name].append(side.measure(what))
    return answers


def median_seconds(answers: Sequence[dict[str, Any]]) -> float:
    """The median of the seconds of some answers."""
    return statistics.median(answer["seconds"] for answer in answers)


def ratio(peer: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> float:
    """How many times faster ours is: the median over turns of peer's seconds by ours."""
    return statistics.median(
        theirs["seconds"] / own["seconds"] for theirs, own in zip(peer, ours, strict=True)
    )
