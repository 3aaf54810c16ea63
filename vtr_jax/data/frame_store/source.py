"""Where a stored clip comes from, and whether that has changed since."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class ClipJob:
    """One video clip to store: `path` is None where no file was found.

    file: the path below the videos directory, as the store records it.
    start, end: seconds, None for the whole file.
    """

    clip_id: str
    file: str
    path: Path | None
    start: float | None = None
    end: float | None = None

    @property
    def found_path(self) -> Path:
        """The file that was found; FileNotFoundError where none was."""
        if self.path is None:
            raise FileNotFoundError(f"clip {self.clip_id!r}: no file {self.file}")
        return self.path


@dataclasses.dataclass(frozen=True)
class ClipSource:
    """The stretch of the file that a stored clip was made from."""

    file: str
    file_size: int
    file_sha256: str
    start: float | None = None
    end: float | None = None


def source_of(job: ClipJob) -> ClipSource:
    """The present source of a job, its file read and hashed."""
    path = job.found_path
    return ClipSource(job.file, path.stat().st_size, file_sha256(path), job.start, job.end)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seconds_as_stored(seconds: float | None) -> float:
    """Seconds as the records hold them: float32, NaN for None."""
    return float("nan") if seconds is None else float(np.float32(seconds))


def is_unchanged(recorded: ClipSource, job: ClipJob, recorded_at: float) -> bool:
    """Whether `job` would store again what was stored from `recorded` at time `recorded_at`.

    A file that is no longer there counts as unchanged: videos may be deleted once they are
    stored. A file touched since is hashed, so that copied or restored files are not decoded again.
    """
    recorded_times = [seconds_as_stored(recorded.start), seconds_as_stored(recorded.end)]
    wanted_times = [seconds_as_stored(job.start), seconds_as_stored(job.end)]
    if not np.array_equal(recorded_times, wanted_times, equal_nan=True):
        return False
    if job.path is None:
        return True
    status = job.path.stat()
    if (recorded.file, recorded.file_size) != (job.file, status.st_size):
        return False
    return status.st_mtime <= recorded_at or file_sha256(job.path) == recorded.file_sha256
