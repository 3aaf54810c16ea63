"""From splits to the list of clips to store, each once, and whether a stored one has changed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from vtr_jax.data.frame_choice import check_choice
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.sampling import IMAGE_EXTENSIONS
from vtr_jax.data.split import Split, VideoClip, clip_name, find_video_files


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
) -> tuple[list[ClipJob], dict[str, str]]:
    """Unites the clips of all splits and finds their files, or folders for a folder rule.

    Returns one job a clip in order of clip id (path None where no file was found), and clip id ->
    what was looked for of the clips without a file. Raises ValueError where two splits mean
    different things by one clip id, a clip's times make no sense, or there is no clip.
    """
    splits = tuple(splits)
    find = find_frame_folders if sampling.reads_folders else find_video_files
    clips: dict[str, VideoClip] = {}
    paths: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for split in splits:
        for clip in split.clips:
            _require_same(clips.setdefault(clip.clip_id, clip), clip)
            _require_times(clip, sampling.framerate)
        found_here, missing_here = find(split, videos_dir)
        paths |= found_here
        missing |= missing_here
    if not clips:
        raise ValueError(
            f"no video clip to prepare: {len(splits)} splits were given and none has clips"
        )
    jobs = [_job(clips[clip_id], paths.get(clip_id), videos_dir) for clip_id in sorted(clips)]
    return jobs, missing


def find_frame_folders(split: Split, videos_dir: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Find the folder of images of every clip: its file's name, with or without the extension.

    Returns as find_video_files. Raises FileNotFoundError where videos_dir is no folder.
    """
    if not videos_dir.is_dir():
        raise FileNotFoundError(f"{videos_dir}: no such folder, expected the one with the videos")
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for clip in split.clips:
        files = (clip.file, *clip.other_names)
        names = [name for file in files for name in (file, clip_name(file))]
        folder = next((videos_dir / name for name in names if (videos_dir / name).is_dir()), None)
        if folder is None:
            looked_for = ", or ".join(dict.fromkeys(clip_name(file) for file in files))
            missing[clip.clip_id] = f"{looked_for}: no such folder in {videos_dir}"
        else:
            found[clip.clip_id] = folder
    return found, missing


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
    """The present source of a job, its file read and hashed."""
    path = job.found_path
    size = sum(file.stat().st_size for file in _files_of(path))
    return ClipSource(job.file, size, file_sha256(path), job.start, job.end)


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

    A file that is no longer there counts as unchanged: videos may be deleted once they are
    stored. A file touched since is hashed, so that copied or restored files are not decoded again.
    """
    recorded_times = [seconds_as_stored(recorded.start), seconds_as_stored(recorded.end)]
    wanted_times = [seconds_as_stored(job.start), seconds_as_stored(job.end)]
    if not np.array_equal(recorded_times, wanted_times, equal_nan=True):
        return False
    if job.path is None:
        return True
    states = [file.stat() for file in _files_of(job.path)]
    size = sum(state.st_size for state in states)
    if (recorded.file, recorded.file_size) != (job.file, size):
        return False
    touched = max((state.st_mtime for state in states), default=0.0)
    return touched <= recorded_at or file_sha256(job.path) == recorded.file_sha256
