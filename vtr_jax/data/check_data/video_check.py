"""Whether every clip has a video that can be read."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vtr_jax.data.check_data.probe import Probe, probe_file, probe_folder
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.split import Split, VideoClip, find_video_files

_SHOWN = 5


@dataclass(frozen=True)
class VideoCheck:
    """The videos of all splits together.

    Attributes:
        clips: clips of the splits, each once. files: different video files found for them, or
            folders of images. folders: whether it is these that the frame rule reads.
        missing: clip id -> what was looked for.
        unreadable: file -> why ("empty file", "not a video", "no decodable frame", ...).
        early: file -> which frame cannot be decoded, of those that go on no further or have damage
            inside. beyond: clip id -> that it starts where its video has ended.
        duplicates: groups of files with the same content.
    """

    clips: int
    files: int
    missing: dict[str, str]
    unreadable: dict[str, str]
    early: dict[str, str]
    beyond: dict[str, str]
    duplicates: tuple[tuple[str, ...], ...]
    folders: bool = False

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each kind of thing that is wrong, with its number and some names."""
        problems = []
        if self.missing:
            few = "; ".join(list(self.missing.values())[:2])
            problems.append(f"{len(self.missing)} of {self.clips} clips have no video: {few}")
        for reason, count in Counter(self.unreadable.values()).items():
            files = [file for file, why in self.unreadable.items() if why == reason]
            problems.append(f"{count} of {self.files} videos: {reason}: {_some(files)}")
        if self.early:
            texts = [f"{file} ({how})" for file, how in self.early.items()]
            cut = f"{len(self.early)} of {self.files} videos end early or are damaged inside"
            problems.append(f"{cut}: {_some(texts)}")
        if self.beyond:
            late = f"{len(self.beyond)} clips start beyond the end of their video"
            problems.append(f"{late}: {_some(self.beyond)}")
        if self.duplicates:
            groups = [_some(group, " = ") for group in self.duplicates]
            problems.append(f"{len(groups)} groups of videos are the same file: {_some(groups)}")
        return tuple(f"videos: {problem}" for problem in problems)


def check_videos(
    splits: Iterable[Split], videos_dir: Path, workers: int | None, sampling: Sampling
) -> VideoCheck:
    """Find the video of every clip, and decode a few frames of each file, on all cores.

    sampling: the frame rule, which says whether a clip is a file or a folder of images.

    Raises FileNotFoundError where there is no videos_dir.
    """
    from vtr_jax.data.frame_store.jobs import find_frame_folders

    find = find_frame_folders if sampling.reads_folders else find_video_files
    probe_one = functools.partial(probe_folder, sampling=sampling)
    clips: dict[str, VideoClip] = {}
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for split in splits:
        found_here, missing_here = find(split, videos_dir)
        found |= found_here
        missing |= missing_here
        clips |= {clip.clip_id: clip for clip in split.clips}
    paths = sorted(set(found.values()))
    probes = _probe_all(paths, probe_one if sampling.reads_folders else probe_file, workers)
    name = functools.partial(_short_name, videos_dir=videos_dir)
    beyond: dict[str, str] = {}
    for clip_id, path in found.items():
        start, probe = clips[clip_id].start or 0.0, probes[path]
        # Whole seconds, as frames are chosen: a clip that starts in the last one has a frame.
        if probe.reason is None and int(start) >= probe.seconds:
            beyond[clip_id] = f"{start:g} s of {probe.seconds:g} s in {name(path)}"
    return VideoCheck(
        clips=len(clips),
        files=len(paths),
        missing=missing,
        unreadable={name(p): str(probes[p].reason) for p in paths if probes[p].reason is not None},
        early={name(p): str(probes[p].early) for p in paths if probes[p].early is not None},
        beyond=beyond,
        duplicates=tuple(tuple(map(name, group)) for group in _same_content(paths)),
        folders=sampling.reads_folders,
    )


def _probe_all(
    paths: Sequence[Path], probe: Callable[[Path], Probe], workers: int | None
) -> dict[Path, Probe]:
    from tqdm import tqdm

    from vtr_jax.data.frame_store.workers import run_jobs, usable_cores

    if not paths:
        return {}
    crashed = Probe("crashes the decoder")
    jobs = run_jobs(paths, probe, lambda _: crashed, workers or usable_cores())
    return dict(tqdm(jobs, total=len(paths), desc="videos", unit="file", disable=None))


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
