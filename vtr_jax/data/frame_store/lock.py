"""One run at a time on a frame store."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = ".lock"


@contextlib.contextmanager
def only_run(store_dir: Path) -> Iterator[None]:
    """Holds the store's lock file, which names the process that works there.

    The kernel gives the lock up when its process ends, however it ends: the file of a run that
    was killed is no obstacle. Raises OSError naming the other process where one is at work.
    """
    path = store_dir / LOCK_FILE
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise OSError(
                f"{store_dir}: {holder} is preparing this frame store; wait for it or stop it"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
