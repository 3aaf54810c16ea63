"""What a path leads to, found without opening it: opening a named pipe would wait forever."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class FileProblem(NamedTuple):
    """Why a path gives no file to read.

    reason: a few fixed words for reports: "missing", "broken link", "not a file",
    "no permission", "empty file" or "cannot be read". message: what was found and what to do.
    """

    reason: str
    message: str


def file_problem(path: str | os.PathLike[str]) -> FileProblem | None:
    """Return why a path gives no file to read, None for a file with content.

    Links are followed; nothing is opened.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return _without_status(path, error)
    if not stat.S_ISREG(status.st_mode):
        found = next((kind for fits, kind in _KINDS if fits(status.st_mode)), "something else")
        return FileProblem("not a file", f"expected a file, found {found}")
    if not os.access(path, os.R_OK):
        return FileProblem(
            "no permission", "this process may not read the file: change its permissions"
        )
    if not status.st_size:
        return FileProblem("empty file", "0 bytes: fetch or write it again")
    return None


def read_problem(path: str | os.PathLike[str], error: OSError) -> FileProblem:
    """Return why reading a file failed that could be read at the start."""
    if isinstance(error, FileNotFoundError | PermissionError):
        return file_problem(path) or FileProblem("cannot be read", _sentence(error))
    return FileProblem("cannot be read", _sentence(error))


def _without_status(path: str | os.PathLike[str], error: OSError | ValueError) -> FileProblem:
    if not isinstance(error, OSError):  # a null character in the name
        return FileProblem("missing", "no file can have this name")
    if error.errno == errno.ELOOP:
        return FileProblem("broken link", "the link leads back to itself: replace it")
    if os.path.islink(path):
        target = os.readlink(path)
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return FileProblem("broken link", f"it leads to {target}, where no file is")
        return FileProblem("broken link", f"it leads to {target} ({error.strerror})")
    if isinstance(error, PermissionError):
        return FileProblem("no permission", "this process may not look into its folder")
    return FileProblem("missing", "no such file")


def _sentence(error: OSError) -> str:
    return error.strerror or str(error)
