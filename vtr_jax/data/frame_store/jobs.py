"""From splits to the list of clips to store, each once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vtr_jax.data.frame_choice import check_choice
from vtr_jax.data.frame_store.source import ClipJob
from vtr_jax.data.split import Split, VideoClip, find_video_files


def list_jobs(
    splits: Split | Iterable[Split], videos_dir: Path, framerate: int
) -> tuple[list[ClipJob], dict[str, str]]:
    """Unites the clips of all splits and finds their files.

    Returns one job a clip in order of clip id (path None where no file was found), and clip id ->
    what was looked for of the clips without a file. Raises ValueError where two splits mean
    different things by one clip id, a clip's times make no sense, or there is no clip.
    """
    splits = (splits,) if isinstance(splits, Split) else tuple(splits)
    clips: dict[str, VideoClip] = {}
    paths: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for split in splits:
        for clip in split.clips:
            _require_same(clips.setdefault(clip.clip_id, clip), clip)
            _require_times(clip, framerate)
        found_here, missing_here = find_video_files(split, videos_dir)
        paths |= found_here
        missing |= missing_here
    if not clips:
        raise ValueError(
            f"no video clip to prepare: {len(splits)} splits were given and none has clips"
        )
    jobs = [_job(clips[clip_id], paths.get(clip_id), videos_dir) for clip_id in sorted(clips)]
    return jobs, missing


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
