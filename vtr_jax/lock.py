"""One process at a time at work in a directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = ".lock"


@contextlib.contextmanager
def only_process(directory: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Holds the lock file of a directory, which names the process that works there.

    The kernel gives the lock up when its process ends, however it ends: the file that a killed
    process leaves is no obstacle.

    Args:
        directory: made where it is not there yet, and removed again if nothing came into it.
        what: what the holder does, for the message: "preparing this frame store".

    Raises:
        BlockingIOError: another process holds the lock; the message names it.
        NotADirectoryError: there is a file of that name.
        OSError: the lock file cannot be written, or its file system knows no locks.
    """
    folder = Path(directory)
    if folder.is_file():
        raise NotADirectoryError(f"{folder}: a file, expected a folder; choose another one")
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BlockingIOError(f"{folder}: {holder} is {what}; wait for it or stop it") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            if made:
                _leave_nothing(folder)


def _leave_nothing(folder: Path) -> None:
    """Remove a folder that holds the lock alone: what was to fill it was refused."""
    if folder.is_dir() and [entry.name for entry in folder.iterdir()] == [LOCK_FILE]:
        (folder / LOCK_FILE).unlink()
        folder.rmdir()
