"""From splits to the list of clips to store, each once, and whether a stored one has changed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from vtr_jax.data.find_files import FoundFiles, find_files, find_frame_folders
from vtr_jax.data.frame_choice import check_choice
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.sampling import IMAGE_EXTENSIONS
from vtr_jax.data.split import Split, VideoClip
from vtr_jax.data.video_file import UnreadableVideo, check_video_file


@dataclasses.dataclass(frozen=True)
class ClipJob:
    """One video clip to store: `path` is None where no file (or folder of frames) was found.

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
    """The stretch of the file that a stored clip was made from; of a folder, all its images."""

    file: str
    file_size: int
    file_sha256: str
    start: float | None = None
    end: float | None = None


def list_jobs(
    splits: Iterable[Split], videos_dir: Path, sampling: Sampling
) -> tuple[list[ClipJob], FoundFiles]:
    """Unite the clips of all splits and find their files, or folders for a folder rule.

    Returns:
        one job per clip in order of clip id (path None where no file was found), and what was
        found.

    Raises:
        ValueError: two splits mean different things by one clip id, a clip's times make no sense,
            or there is no clip.
    """
    splits = tuple(splits)
    find = find_frame_folders if sampling.reads_folders else find_files
    clips: dict[str, VideoClip] = {}
    files = FoundFiles()
    for split in splits:
        for clip in split.clips:
            _require_same(clips.setdefault(clip.clip_id, clip), clip)
            _require_times(clip, sampling.framerate)
        files.update(find(split, videos_dir))
    if not clips:
        raise ValueError(
            f"no video clip to prepare: {len(splits)} splits were given and none has clips"
        )
    jobs = [_job(clips[name], files.found.get(name), videos_dir) for name in sorted(clips)]
    return jobs, files


def _require_same(first: VideoClip, second: VideoClip) -> None:
    if first != second:
        raise ValueError(
            f"clip id {first.clip_id!r} means two things in the splits to prepare together: "
            f"{first} and {second}; rename one, or prepare them into two stores"
        )


def _require_times(clip: VideoClip, framerate: int) -> None:
    try:
        check_choice(framerate, clip.start, clip.end)
    except ValueError as error:
        raise ValueError(f"clip {clip.clip_id!r}, file {clip.file}: {error}") from error


def _job(clip: VideoClip, path: Path | None, videos_dir: Path) -> ClipJob:
    file = clip.file
    if path is not None:
        below = path.is_relative_to(videos_dir)
        file = (path.relative_to(videos_dir) if below else path).as_posix()
    return ClipJob(clip.clip_id, file, path, clip.start, clip.end)


def source_of(job: ClipJob) -> ClipSource:
    """Return the present source of a job, its file read and hashed.

    Raises:
        UnreadableVideo: the path leads to something other than a file (or a folder of files) with
            content, which is found out before anything is opened.
    """
    path = job.found_path
    files = list(_files_of(path))
    for file in files:
        if error := _why_unreadable(file):
            raise error
    size = sum(file.stat().st_size for file in files)
    return ClipSource(job.file, size, file_sha256(path), job.start, job.end)


def _why_unreadable(file: Path) -> UnreadableVideo | None:
    """Return why a file cannot be hashed, found without opening it; an empty one can be."""
    try:
        check_video_file(file)
    except UnreadableVideo as error:
        return None if error.reason == "empty file" else error
    return None


def _files_of(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(
            file for file in path.iterdir() if file.suffix.lower() in IMAGE_EXTENSIONS
        )
    else:
        yield path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the images of a folder with their names, hexadecimal."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    listing = [f"{file.name} {file_sha256(file)}" for file in _files_of(path)]
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()


def seconds_as_stored(seconds: float | None) -> float:
    """Seconds as the records hold them: float32, NaN for None."""
    return float("nan") if seconds is None else float(np.float32(seconds))


def is_unchanged(recorded: ClipSource, job: ClipJob, recorded_at: float) -> bool:
    """Whether `job` would store again what was stored from `recorded` at time `recorded_at`.

    A file that is no longer there, or cannot be read now, counts as unchanged: videos may be
    deleted once they are stored. A file touched since is hashed, so that copied or restored files
    are not decoded again.
    """
    recorded_times = [seconds_as_stored(recorded.start), seconds_as_stored(recorded.end)]
    wanted_times = [seconds_as_stored(job.start), seconds_as_stored(job.end)]
    if not np.array_equal(recorded_times, wanted_times, equal_nan=True):
        return False
    if job.path is None:
        return True
    if any(_why_unreadable(file) for file in _files_of(job.path)):
        return True
    states = [file.stat() for file in _files_of(job.path)]
    size = sum(state.st_size for state in states)
    if (recorded.file, recorded.file_size) != (job.file, size):
        return False
    touched = max((state.st_mtime for state in states), default=0.0)
    return touched <= recorded_at or file_sha256(job.path) == recorded.file_sha256
