"""A split: captions, video clips, and which caption belongs to which clip."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from vtr_jax.data.file_names import VIDEO_EXTENSIONS, clip_name
from vtr_jax.data.find_files import find_video_files

__all__ = [
    "VIDEO_EXTENSIONS",
    "Split",
    "VideoClip",
    "check_overlap",
    "clip_name",
    "find_video_files",
]


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


class FramesRead(Protocol):
    """What is known of the frames that clips are read from, if their video files are at hand."""

    def file_of(self, clip: VideoClip) -> Hashable:
        """Return what identifies the file of a clip."""

    def share(self, one: VideoClip, other: VideoClip) -> bool:
        """Return whether a frame is read for both of two clips of a file."""


class _FromNames:
    """Without video files: the same name is the same file, and only times tell of frames."""

    def file_of(self, clip: VideoClip) -> Hashable:
        return clip.file

    def share(self, one: VideoClip, other: VideoClip) -> bool:
        return False


def check_overlap(train: Split, test: Split, frames: FramesRead | None = None) -> list[str]:
    """Find clips of `test` that `train` also contains.

    A clip counts if its id occurs in both splits, or if a training clip is cut from the same file
    and shares a stretch of time with it (touching ends share none) or a frame that is read.

    Args:
        train: the split that is trained on.
        test: another split.
        frames: the frames that are read of each clip (`overlap.PlannedFrames`); None = judge by
            names and times alone.

    Returns:
        Their ids, in the order of `test`; empty if the splits are disjoint.
    """
    known = _FromNames() if frames is None else frames
    train_ids = {clip.clip_id for clip in train.clips}
    of_file = defaultdict(list)
    for clip in train.clips:
        of_file[known.file_of(clip)].append(clip)
    return [
        clip.clip_id
        for clip in test.clips
        if clip.clip_id in train_ids
        or any(
            _share_time(_stretch(clip), _stretch(other)) or known.share(clip, other)
            for other in of_file.get(known.file_of(clip), ())
        )
    ]


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
