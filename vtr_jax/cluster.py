"""The processes that run one program together; one process is a cluster of one.

cluster.join(options)                      # before anything else of JAX
cluster.on_first(write_record, folder)     # one process writes, the others wait for it
scores = cluster.to_host(logits_tv)        # NumPy, wherever the array lies
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

# A process that has not been heard of for so long is dead, and the others are ended.
HEARTBEAT_SECONDS = 30
# So long a process waits for the others: to begin, and for their part when all have finished.
START_SECONDS = 300
END_SECONDS = 60

_OPTIONS = ("coordinator_address", "num_processes", "process_id")
_NOBODY_SAYS_SO = "coordinator_address should be defined"
_ALREADY_COMPUTING = "must be called before"
_SIGNS_OF_A_LOST_PROCESS = ("Gloo", "NCCL", "UNAVAILABLE", "coordination", "Barrier")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that `join` reads."""
    group = parser.add_argument_group(
        "many processes",
        "Slurm, Open MPI and TPU pods are recognised without these options; elsewhere every "
        "process gets all three, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID.",
    )
    group.add_argument("--coordinator_address", metavar="HOST:PORT", help="where process 0 runs")
    group.add_argument("--num_processes", type=int, help="how many there are")
    group.add_argument("--process_id", type=int, help="which one this is, from 0")


def join(options: argparse.Namespace, *, saves_when_stopped: bool) -> None:
    """Become one of the processes that options or environment speak of; alone without them.

    options: what add_arguments was told; its three attributes are taken out. saves_when_stopped:
    whether SIGTERM is told to all processes, which save together and end; otherwise it ends the
    process at once. Raises ValueError where only some of the three are given, or JAX cannot use
    them.
    """
    given = {name: vars(options).pop(name) for name in _OPTIONS}
    told = {name: _told(name, value) for name, value in given.items()}
    if jax.distributed.is_initialized():
        return
    known: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    if known and len(known) < len(_OPTIONS):
        missing = ", ".join(f"--{name}" for name in _OPTIONS if name not in known)
        raise ValueError(f"of many processes each needs all three options; {missing} not given")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", saves_when_stopped)
    try:
        jax.distributed.initialize(
            **known,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=END_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        if not known and any(text in str(error) for text in (_NOBODY_SAYS_SO, _ALREADY_COMPUTING)):
            return
        raise ValueError(f"the processes cannot be joined: {error}") from error


def _told(name: str, option: str | int | None) -> str | int | None:
    variable = f"JAX_{name.upper()}"
    text = os.environ.get(variable)
    if option is not None or text is None or name == "coordinator_address":
        return option if option is not None else text
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{variable}: expected a whole number, found {text!r}") from error


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def on_first(action: Callable[..., Any], *arguments: Any) -> None:
    """Let the first process do something; all of them go on when it is done."""
    if is_first():
        action(*arguments)
    wait_for_all(getattr(action, "__qualname__", "action"))


def wait_for_all(place: str) -> None:
    """Go on when all processes have come to the place of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def from_first(value: np.ndarray | int) -> np.ndarray:
    """The first process's value of a few numbers (of 32 bits), for all."""
    if jax.process_count() == 1:
        return np.asarray(value)
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def to_host(tree: Any) -> Any:
    """A tree's arrays as NumPy, whole; all processes must ask for the same ones.

    Arrays of which other processes hold parts are gathered; the others cost what np.asarray does.
    """

    def whole(array: Any) -> np.ndarray:
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            return np.asarray(multihost_utils.process_allgather(array, tiled=True))
        return np.asarray(array)

    return jax.tree.map(whole, tree)


def of_another(error: Exception) -> str:
    """What to add to an error that only says that another process is gone; "" for others."""
    text = f"{type(error).__name__} {error}"
    if jax.distributed.is_initialized() and any(sign in text for sign in _SIGNS_OF_A_LOST_PROCESS):
        return " (another process of this run has ended before: its own output says why)"
    return ""


def give_up(code: int) -> None:
    """End this process at once if others wait for it; they notice and end, too.

    The usual way out would wait for processes that wait for this one.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
