"""A split: captions, video clips, and which caption belongs to which clip."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

VIDEO_EXTENSIONS = (
    *(".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ts", ".ogv", ".gif"),
)


@dataclass(frozen=True)
class VideoClip:
    """A stretch of video.

    Attributes:
        clip_id: unique in its split.
        file: file name or path relative to the videos folder (or an absolute path), with forward
            slashes, as the annotations give it.
        start: seconds from the beginning of the file; None = from the beginning.
        end: seconds; None = to the end of the file.
        other_names: further names that the file goes by where `file` is not found, best first.
    """

    clip_id: str
    file: str
    start: float | None = None
    end: float | None = None
    other_names: tuple[str, ...] = dataclasses.field(default=(), compare=False)


@dataclass(frozen=True, eq=False)
class Split:
    """Captions, video clips, and which belongs to which.

    Attributes:
        dataset: name of the data set, for reports.
        name: "train", "val", "test" or a name of the user's own.
        clips: V video clips with distinct ids.
        captions: C captions.
        caption_clip: int32 [C], the index into `clips` of every caption.
        notes: what a reader left out of the annotations, and why, for reports.

    Raises:
        ValueError: two clips share an id, or `caption_clip` does not fit captions and clips.
    """

    dataset: str
    name: str
    clips: tuple[VideoClip, ...]
    captions: tuple[str, ...]
    caption_clip: np.ndarray
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        relation = np.array(self.caption_clip, dtype=np.int32)
        relation.flags.writeable = False
        object.__setattr__(self, "caption_clip", relation)
        if relation.shape != (len(self.captions),):
            raise ValueError(
                f"{self._title}: caption_clip has shape {relation.shape}, expected "
                f"({len(self.captions)},), one clip index for each caption"
            )
        if relation.size and not 0 <= relation.min() <= relation.max() < len(self.clips):
            raise ValueError(
                f"{self._title}: caption_clip holds {relation.min()}..{relation.max()}, expected "
                f"indices into {len(self.clips)} clips"
            )
        repeated = _repeated([clip.clip_id for clip in self.clips])
        if repeated:
            raise ValueError(
                f"{self._title}: {len(repeated)} clip ids occur more than once, e.g. {repeated[:5]}"
            )

    @property
    def _title(self) -> str:
        return f"{self.dataset} {self.name}"

    @cached_property
    def _captions_by_clip(self) -> list[list[int]]:
        groups: list[list[int]] = [[] for _ in self.clips]
        for caption, clip in enumerate(self.caption_clip.tolist()):
            groups[clip].append(caption)
        return groups

    def captions_of(self, clip_index: int) -> list[int]:
        """Indices of the captions of one clip, in the order of `captions`."""
        return list(self._captions_by_clip[clip_index])

    def sha256(self) -> str:
        """Hash of clip ids, times, captions and relation, all in their order.

        File names, notes and the names of data set and split do not count: moving or renaming
        files leaves the hash as it is.
        """
        clips = [[clip.clip_id, _real(clip.start), _real(clip.end)] for clip in self.clips]
        content = json.dumps([clips, self.captions, self.caption_clip.tolist()])
        return hashlib.sha256(content.encode()).hexdigest()

    def restrict(self, keep_clip_ids: Collection[str]) -> Split:
        """Drop every clip that is not named, and its captions; the order stays.

        Raises:
            ValueError: a name is no clip of this split.
        """
        keep = set(keep_clip_ids)
        unknown = sorted(keep - {clip.clip_id for clip in self.clips})
        if unknown:
            raise ValueError(
                f"{self._title}: {len(unknown)} clip ids to keep are not in the split, e.g. "
                f"{unknown[:5]}"
            )
        kept_clips = np.array([clip.clip_id in keep for clip in self.clips], dtype=bool)
        new_index = np.cumsum(kept_clips) - 1
        kept_captions = np.flatnonzero(kept_clips[self.caption_clip])
        return dataclasses.replace(
            self,
            clips=tuple(clip for clip in self.clips if clip.clip_id in keep),
            captions=tuple(self.captions[caption] for caption in kept_captions),
            caption_clip=new_index[self.caption_clip[kept_captions]],
        )


def check_overlap(train: Split, test: Split) -> list[str]:
    """Find clips of `test` that `train` also holds.

    A clip counts if its id occurs in both splits, or if a training clip is cut from the same file
    and shares a stretch of time with it (touching ends share none).

    Returns:
        Their ids, in the order of `test`; empty if the splits are disjoint.
    """
    train_ids = {clip.clip_id for clip in train.clips}
    train_stretches = defaultdict(list)
    for clip in train.clips:
        train_stretches[clip.file].append(_stretch(clip))
    return [
        clip.clip_id
        for clip in test.clips
        if clip.clip_id in train_ids
        or any(_share_time(_stretch(clip), other) for other in train_stretches.get(clip.file, ()))
    ]


def find_video_files(
    split: Split, videos_dir: str | os.PathLike[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Find the video file of every clip.

    Looked for in this order: the clip's own path below `videos_dir`; the other names it goes by;
    each of these anywhere deeper in the tree (links to folders are followed), with its own
    extension or else another video extension. The first that gives exactly one file counts.

    Returns:
        clip id -> path of what was found, and clip id -> what was looked for, of what was not
        found or is ambiguous. Every clip is in one of the two.

    Raises:
        FileNotFoundError: `videos_dir` is no folder.
    """
    folder = Path(videos_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected the one with the video files")
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    tree: dict[str, list[Path]] | None = None
    for clip in split.clips:
        names = (clip.file, *clip.other_names)
        # pathlib drops `folder` where the clip's file is absolute.
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is not None:
            found[clip.clip_id] = path
            continue
        tree = _files_by_stem(folder) if tree is None else tree
        fitting = (_same_path(PurePosixPath(name), folder, tree) for name in names)
        candidates = next((paths for paths in fitting if paths), [])
        if len(candidates) == 1:
            found[clip.clip_id] = candidates[0]
        else:
            missing[clip.clip_id] = _why_not_found(names, folder, candidates)
    return found, missing


def _why_not_found(names: tuple[str, ...], folder: Path, candidates: list[Path]) -> str:
    looked_for = ", or ".join(names)
    if candidates:
        paths = ", ".join(str(candidate.relative_to(folder)) for candidate in candidates[:5])
        return f"{looked_for}: {len(candidates)} files in {folder} fit, keep one of: {paths}"
    if PurePosixPath(names[0]).is_absolute():
        return f"{looked_for}: no such file"
    folders = [folder / form for name in names for form in (name, clip_name(name))]
    frames = next((each for each in folders if each.is_dir()), None)
    if frames is not None:
        return f"{looked_for}: {frames} is a folder; of images? Then give --frame_rule=..._folder"
    return f"{looked_for}: not in {folder}, nor deeper, nor with another video extension"


def clip_name(file: str) -> str:
    """The path of a video file without its extension; dots that end no video extension stay."""
    path = PurePosixPath(file)
    return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_EXTENSIONS else str(path)


def _files_by_stem(folder: Path) -> dict[str, list[Path]]:
    by_stem: dict[str, list[Path]] = defaultdict(list)
    entered: set[str] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:  # a link back to a folder above would never end
            subfolders.clear()
            continue
        entered.add(real)
        subfolders.sort()
        for name in sorted(names):
            by_stem[clip_name(name)].append(Path(parent, name))
    return by_stem


def _same_path(file: PurePosixPath, folder: Path, tree: dict[str, list[Path]]) -> list[Path]:
    """Files whose path ends in `file`, or else in `file` with another extension."""
    *parents, stem = PurePosixPath(clip_name(str(file))).parts
    fitting = [
        path
        for path in tree.get(stem, ())
        if _ends_with(list(path.relative_to(folder).parent.parts), parents)
    ]
    return [path for path in fitting if path.name == file.name] or fitting


def _ends_with(parts: list[str], tail: list[str]) -> bool:
    return len(parts) >= len(tail) and parts[len(parts) - len(tail) :] == tail


def _real(seconds: float | None) -> float | None:
    return None if seconds is None else float(seconds)


def _stretch(clip: VideoClip) -> tuple[float, float]:
    start = 0.0 if clip.start is None else clip.start
    return start, float("inf") if clip.end is None else clip.end


def _share_time(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


def _repeated(names: list[str]) -> list[str]:
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for name in names:
        if name in seen:
            repeated[name] = None
        seen.add(name)
    return list(repeated)
