"""Whether every clip has a video that can be read."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vtr_jax.data.check_data.probe import BEYOND, FileToProbe, Probe, probe
from vtr_jax.data.find_files import FoundFiles, find_files, find_frame_folders
from vtr_jax.data.frame_store.report import respelled_lines
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.split import Split, VideoClip
from vtr_jax.progress_bar import progress_bar

_SHOWN = 5


@dataclass(frozen=True)
class VideoCheck:
    """The videos of all splits together.

    Attributes:
        clips: clips of the splits, each once.
        files: different video files found for them, or folders of images.
        missing: clip id -> what was looked for.
        unreadable: file -> why ("empty file", "not a video", "no decodable frame", ...).
        early: file -> how much of it is missing, of those that end early.
        beyond: clip id -> that it starts where its video has ended.
        rejected: clip id -> why `vtr prepare` would leave it out although its file can be read.
        duplicates: groups of files with the same content.
        respelled: clip id -> how the name of its file differs from the name in the annotations.
        slightly_early: as early, of those that miss no more than containers overstate.
        folders: whether the frame rule reads folders of images.
    """

    clips: int
    files: int
    missing: dict[str, str]
    unreadable: dict[str, str]
    early: dict[str, str]
    beyond: dict[str, str]
    rejected: dict[str, str]
    duplicates: tuple[tuple[str, ...], ...]
    respelled: dict[str, str]
    slightly_early: dict[str, str]
    folders: bool = False

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each kind of thing that is wrong, with its number and some names."""
        problems = []
        if self.missing:
            few = "; ".join(list(self.missing.values())[:2])
            problems.append(f"{len(self.missing)} of {self.clips} clips have no video: {few}")
        for reason, files in _by_reason(self.unreadable).items():
            problems.append(f"{len(files)} of {self.files} videos: {reason}: {_some(files)}")
        if self.early:
            texts = [f"{file} ({how})" for file, how in self.early.items()]
            cut = f"{len(self.early)} of {self.files} videos end early or are damaged inside"
            problems.append(f"{cut}: {_some(texts)}")
        if self.beyond:
            late = f"{len(self.beyond)} clips start beyond the end of their video"
            problems.append(f"{late}: {_some(self.beyond)}")
        for reason, clips in _by_reason(self.rejected).items():
            problems.append(f"{len(clips)} of {self.clips} clips: {reason}: {_some(clips)}")
        if self.duplicates:
            groups = [_some(group, " = ") for group in self.duplicates]
            problems.append(f"{len(groups)} groups of videos are the same file: {_some(groups)}")
        return tuple(f"videos: {problem}" for problem in problems)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing and no problem."""
        early = [f"{file}: {how}" for file, how in self.slightly_early.items()]
        return (*respelled_lines(self.respelled), *early)


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = defaultdict(list)
    for name, reason in reasons.items():
        names[reason].append(name)
    return names


def find_all(splits: Iterable[Split], videos_dir: Path, settings: StoreSettings) -> FoundFiles:
    """Find the video file (or the folder of images) of every clip of all splits.

    Raises:
        FileNotFoundError: there is no videos_dir.
    """
    find = find_frame_folders if settings.sampling.reads_folders else find_files
    files = FoundFiles()
    for split in splits:
        files.update(find(split, videos_dir))
    return files


def check_videos(
    splits: Iterable[Split],
    files: FoundFiles,
    videos_dir: Path,
    workers: int | None,
    settings: StoreSettings,
) -> VideoCheck:
    """Judge the video of every clip as `vtr prepare` would, on all cores.

    Args:
        splits: all that are to be checked.
        files: what was found for them.
        videos_dir: the folder that names are shown without.
        workers: processes; None = one per core.
        settings: as of the frame store that is to be made.
    """
    clips = {clip.clip_id: clip for split in splits for clip in split.clips}
    clips_of: dict[Path, list[VideoClip]] = defaultdict(list)
    for clip_id, path in files.found.items():
        clips_of[path].append(clips[clip_id])
    probes = _probe_all(clips_of, workers, settings)
    name = functools.partial(_short_name, videos_dir=videos_dir)
    rejected = {
        clip.clip_id: found
        for path, of_file in clips_of.items()
        for clip in of_file
        if (found := probes[path].rejected.get((clip.start, clip.end))) is not None
    }
    counts = {name(path): list(found.counts.values()) for path, found in probes.items()}
    worst = {file: max(c, key=lambda each: each.lost) for file, c in counts.items() if c}
    return VideoCheck(
        clips=len(clips),
        files=len(clips_of),
        missing=files.missing,
        unreadable={name(p): found.reason for p, found in probes.items() if found.reason},
        early={file: str(each) for file, each in worst.items() if each.is_problem},
        beyond={clip_id: why for clip_id, why in rejected.items() if why.startswith(BEYOND)},
        rejected={clip_id: why for clip_id, why in rejected.items() if not why.startswith(BEYOND)},
        duplicates=tuple(tuple(map(name, group)) for group in _same_content(sorted(clips_of))),
        respelled=files.respelled,
        slightly_early={file: str(each) for file, each in worst.items() if not each.is_problem},
        folders=settings.sampling.reads_folders,
    )


def _probe_all(
    clips_of: Mapping[Path, Sequence[VideoClip]], workers: int | None, settings: StoreSettings
) -> dict[Path, Probe]:
    from vtr_jax.data.frame_store.workers import run_jobs, usable_cores

    jobs = [
        FileToProbe(path, tuple(dict.fromkeys((clip.start, clip.end) for clip in clips_of[path])))
        for path in sorted(clips_of)
    ]
    if not jobs:
        return {}
    crashed = Probe("crashes the decoder")
    judge = functools.partial(probe, settings=settings)
    done = run_jobs(jobs, judge, lambda _: crashed, workers or usable_cores())
    found = {
        job.path: each
        for job, each in progress_bar(done, total=len(jobs), desc="videos", unit=" files")
    }
    return {job.path: found[job.path] for job in jobs}


def _same_content(paths: Sequence[Path]) -> list[list[Path]]:
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in filter(Path.is_file, paths):
        by_size[path.stat().st_size].append(path)
    by_hash: dict[str, list[Path]] = defaultdict(list)
    for size, alike in by_size.items():
        # Empty files are unreadable, and said to be, rather than copies of each other.
        for path in alike if size and len(alike) > 1 else ():
            by_hash[_sha256(path)].append(path)
    return [group for group in by_hash.values() if len(group) > 1]


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short_name(path: Path, videos_dir: Path) -> str:
    return str(path.relative_to(videos_dir) if path.is_relative_to(videos_dir) else path)


def _some(names: Iterable[str], between: str = ", ") -> str:
    names = list(names)
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return between.join(names[:_SHOWN]) + more
