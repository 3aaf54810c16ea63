"""Running jobs in worker processes, so that one crashing decoder does not end a long run."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Number of processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job], Result],
    on_crash: Callable[[Job], Result],
    workers: int,
) -> Iterator[tuple[Job, Result]]:
    """Yields (job, work(job)) for every job, in the order in which they finish.

    work runs in `workers` fresh processes and must be importable there; exceptions it raises are
    raised here. Where a process dies, the jobs under way are tried again one by one, and
    on_crash(job) stands for the result of each that kills its process again.
    """
    waiting = deque(jobs)
    while waiting:
        pool = _start_pool(min(workers, len(waiting)))
        try:
            suspects = yield from _run_until_a_crash(pool, waiting, work, workers)
        finally:
            pool.shutdown(cancel_futures=True)
        for job in suspects:
            yield job, _run_alone(job, work, on_crash)


def _start_pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    # spawn, because forking a process that has threads (TensorFlow, JAX) can deadlock
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_enter_worker)
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "worker processes do not start. In a script, the call that prepares a frame store must "
            'stand below `if __name__ == "__main__":`'
        ) from error
    return pool


def _enter_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    # a killed parent never closes the pool's queues, and its workers would wait on them for ever
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _run_until_a_crash(
    pool: concurrent.futures.ProcessPoolExecutor,
    waiting: deque[Job],
    work: Callable[[Job], Result],
    workers: int,
) -> Generator[tuple[Job, Result], None, list[Job]]:
    running: dict[concurrent.futures.Future[Result], Job] = {}
    suspects: list[Job] = []
    broken = False
    while (waiting and not broken) or running:
        while waiting and not broken and len(running) < workers + 2:
            try:
                running[pool.submit(work, waiting[0])] = waiting[0]
                waiting.popleft()
            except BrokenProcessPool:
                broken = True
        finished, _ = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
        for future in finished:
            job = running.pop(future)
            try:
                result = future.result()
            except BrokenProcessPool:
                broken = True
                suspects.append(job)
            else:
                yield job, result
    return suspects


def _run_alone(
    job: Job, work: Callable[[Job], Result], on_crash: Callable[[Job], Result]
) -> Result:
    pool = _start_pool(1)
    try:
        return pool.submit(work, job).result()
    except BrokenProcessPool:
        return on_crash(job)
    finally:
        pool.shutdown(cancel_futures=True)
