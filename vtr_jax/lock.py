"""One process at a time at work in a directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LOCK_FILE = ".lock"
# A new holder writes its name right after it took the lock; until then, others wait for it.
_NAMED_WITHIN_SECONDS = 1.0
_POLL_SECONDS = 0.01


@contextlib.contextmanager
def only_process(directory: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Hold the lock file of a directory, which names the process that works there.

    The kernel gives the lock up when its process ends, however it ends: the file that a killed
    process leaves does not stop others.

    Args:
        directory: made where it is not there yet, and removed again if nothing came into it.
        what: what the holder does, for the message: "preparing this frame store".

    Raises:
        BlockingIOError: another process holds the lock; the message names it.
        NotADirectoryError: there is a file of that name.
        OSError: the lock file cannot be written, or its file system knows no locks.
    """
    folder = Path(directory)
    made, file = _locked(folder, what)
    with file:
        try:
            yield
        finally:
            if made:
                _leave_nothing(folder)


def _locked(folder: Path, what: str) -> tuple[bool, IO[str]]:
    """Make the folder, lock it and name this process; return whether it was made, and the file."""
    made = False
    while True:
        try:
            made = _make(folder) or made
            file = (folder / LOCK_FILE).open("a+")
        except FileNotFoundError:
            # The holder that had made the folder has removed it in between.
            if not folder.parent.is_dir():
                raise
            continue
        except OSError as error:
            raise _unwritable(folder, error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(folder / LOCK_FILE, file):
                file.truncate(0)
                file.write(_this_process())
                file.flush()
                return made, file
        except BlockingIOError:
            with file:
                holder = _holder(file)
            raise BlockingIOError(f"{folder}: {holder} is {what}; wait for it or stop it") from None
        except OSError as error:
            file.close()
            raise _unwritable(folder, error) from error
        # The lock of a file that its holder has removed would keep nobody else out.
        file.close()


def _make(folder: Path) -> bool:
    """Make the folder; return whether it was not there before."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: a file, expected a folder; choose another one")
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _unwritable(folder: Path, error: OSError) -> OSError:
    """Return the error that says why a process cannot work in the folder."""
    if isinstance(error, NotADirectoryError) and error.errno is None:
        return error
    if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
        return OSError(
            error.errno,
            f"{folder}: its file system does not support locks ({error.strerror}); expected one "
            "that does, so that two processes cannot write here at once: choose another folder",
        )
    return OSError(
        f"{folder}: this process cannot make the folder or write to it ({error.strerror}): choose "
        "another folder, or change permissions"
    )


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _holder(file: IO[str]) -> str:
    """Return the name that the holder has written, which may take it a moment."""
    deadline = time.monotonic() + _NAMED_WITHIN_SECONDS
    while True:
        file.seek(0)
        name = file.read().strip()
        if _may_run(name) or time.monotonic() > deadline:
            return name or "another process"
        time.sleep(_POLL_SECONDS)


def _may_run(name: str) -> bool:
    """Whether the named process may be alive; the name of an earlier holder stays in the file."""
    process = re.fullmatch(r"process (\d+) on (.*)", name)
    if process is None or process[2] != socket.gethostname():
        return bool(name)
    try:
        os.kill(int(process[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        return True
    return True


def _leave_nothing(folder: Path) -> None:
    """Remove a folder that only contains the lock: the work that was to fill it was rejected."""
    if folder.is_dir() and [entry.name for entry in folder.iterdir()] == [LOCK_FILE]:
        (folder / LOCK_FILE).unlink()
        with contextlib.suppress(OSError):  # another process has just put its lock there
            folder.rmdir()
