"""The frames that each original takes of a video file or of a folder of frames, by its rule.

    indices = choose_frames(Sampling("decord", framerate=1), StatedLength(29.97, 113))

The first of them, CLIP4Clip's whole seconds ("opencv"), is `frame_choice.whole_second_frames`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from vtr_jax.data.frame_choice import check_choice, whole_second_frames

# Cap4Video's loader counts a second of any folder as so many files.
CAP4VIDEO_FPS = 30
_EERCF_MOST, _EERCF_KEPT = 256, 128
_EMCL_IGNORED = 5


@dataclasses.dataclass(frozen=True)
class StatedLength:
    """Frame rate (frames per second) and frame count of a file, as a frame rule reads them.

    lacking: frames that the file states in addition to `frame_count`, but does not contain.
    """

    fps: float
    frame_count: int
    lacking: int = 0


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which frames are taken.

    frame_rule: a key of FILE_RULES or FOLDER_RULES. framerate: frames a second; "emcl_folder"
    takes every framerate-th file. num_frames: of "xpool" and "cap4video_segments_folder" alone.
    """

    frame_rule: str = "opencv"
    framerate: int = 1
    num_frames: int = 12

    @property
    def reads_folders(self) -> bool:
        """Whether a clip is a folder of image files instead of a video file."""
        return self.frame_rule in FOLDER_RULES


def stride_frames(
    frame_count: int,
    fps: float,
    framerate: int,
    start: float | None = None,
    end: float | None = None,
) -> list[int]:
    """Every round(fps / framerate)-th frame, halves to even: the decord loaders of DRL, EMCL, ...

    Returns ascending indices, none where `start` lies behind the end. Raises ValueError where
    `framerate` is more than twice `fps`.
    """
    first = math.floor((start or 0) * fps)
    last = frame_count - 1 if end is None else math.floor(min(end * fps, frame_count - 1))
    stride = round(fps / framerate)
    if stride < 1:
        raise ValueError(
            f"framerate is {framerate}, expected at most twice the video's {fps:g} frames a second"
        )
    return list(range(first, last + 1, stride))


def segment_middles(
    frame_count: int,
    fps: float,
    num_frames: int,
    start: float | None = None,
    end: float | None = None,
) -> list[int]:
    """The middle of each of `num_frames` equal segments: X-Pool's "uniform".

    Where the video has fewer frames, the last is repeated. X-Pool has no start and end: with
    them, the segments divide that stretch.
    """
    first = math.floor((start or 0) * fps)
    behind = frame_count if end is None else min(math.floor(end * fps) + 1, frame_count)
    count = behind - first
    if count < 1:
        return []
    edges = np.linspace(0, count, min(num_frames, count) + 1).astype(int)
    middles = ((edges[:-1] + edges[1:] - 1) // 2 + first).tolist()
    return middles + middles[-1:] * (num_frames - len(middles))


def emcl_folder_frames(file_count: int, framerate: int) -> list[int]:
    """Every framerate-th file, evenly spread from the first to the last: EMCL-Net's inference."""
    return np.linspace(0, file_count - 1, num=file_count // framerate).astype(int).tolist()


def eercf_folder_frames(file_count: int) -> list[int]:
    """All files, or 128 evenly spread ones where there are more than 256: EERCF."""
    if file_count <= _EERCF_MOST:
        return list(range(file_count))
    return np.linspace(0, file_count - 1, num=_EERCF_KEPT).astype(int).tolist()


def cap4video_seconds(
    file_count: int, start: float | None = None, end: float | None = None
) -> list[int]:
    """Every 30th file from the first on: Cap4Video's test strategy 1."""
    return _cap4video_stretch(list(range(0, file_count, CAP4VIDEO_FPS)), file_count, start, end)


def cap4video_segments(
    file_count: int, num_frames: int, start: float | None = None, end: float | None = None
) -> list[int]:
    """The middle of each of `num_frames` segments: Cap4Video's test strategy 4.

    Where there are no more files than segments, the first file as often as there are segments.
    """
    if file_count <= num_frames:
        return _cap4video_stretch([0] * num_frames, file_count, start, end)
    width = file_count / num_frames
    middles = [math.floor(width / 2 + width * segment) for segment in range(num_frames)]
    return _cap4video_stretch(middles, file_count, start, end)


def _cap4video_stretch(
    indices: list[int], file_count: int, start: float | None, end: float | None
) -> list[int]:
    # The original cuts only where a clip does not start at 0, so DiDeMo's 0..31 never does.
    if not start:
        return indices
    last_second = file_count // CAP4VIDEO_FPS
    last_second = last_second if end is None else min(int(end), last_second)
    kept = range(int(start) * CAP4VIDEO_FPS, last_second * CAP4VIDEO_FPS)
    return [index for index in indices if index in kept]


def _untimed(start: float | None, end: float | None) -> None:
    if start is not None or end is not None:
        raise ValueError(
            "the clip has start or end, which this rule for folders knows no frame rate for: "
            "use whole folders, or video files"
        )


def _opencv(
    sampling: Sampling, length: StatedLength, start: float | None, end: float | None
) -> list[int]:
    return whole_second_frames(length.frame_count, length.fps, sampling.framerate, start, end)


def _decord(
    sampling: Sampling, length: StatedLength, start: float | None, end: float | None
) -> list[int]:
    return stride_frames(length.frame_count, length.fps, sampling.framerate, start, end)


def _xpool(
    sampling: Sampling, length: StatedLength, start: float | None, end: float | None
) -> list[int]:
    return segment_middles(length.frame_count, length.fps, sampling.num_frames, start, end)


def _emcl_folder(
    sampling: Sampling, length: StatedLength, start: float | None, end: float | None
) -> list[int]:
    _untimed(start, end)
    if length.frame_count <= _EMCL_IGNORED:
        raise ValueError(
            f"{length.frame_count} image files: EMCL-Net ignores folders of {_EMCL_IGNORED} or "
            "fewer"
        )
    return emcl_folder_frames(length.frame_count, sampling.framerate)


def _cap4video_folder(
    sampling: Sampling, length: StatedLength, start: float | None, end: float | None
) -> list[int]:
    return cap4video_seconds(length.frame_count, start, end)


def _cap4video_segments_folder(
    sampling: Sampling, length: StatedLength, start: float | None, end: float | None
) -> list[int]:
    return cap4video_segments(length.frame_count, sampling.num_frames, start, end)


def _eercf_folder(
    sampling: Sampling, length: StatedLength, start: float | None, end: float | None
) -> list[int]:
    _untimed(start, end)
    return eercf_folder_frames(length.frame_count)


_Rule = Callable[[Sampling, StatedLength, float | None, float | None], list[int]]
FILE_RULES: dict[str, _Rule] = {"opencv": _opencv, "decord": _decord, "xpool": _xpool}
FOLDER_RULES: dict[str, _Rule] = {
    "emcl_folder": _emcl_folder,
    "cap4video_folder": _cap4video_folder,
    "cap4video_segments_folder": _cap4video_segments_folder,
    "eercf_folder": _eercf_folder,
}


def choose_frames(
    sampling: Sampling,
    length: StatedLength,
    start: float | None = None,
    end: float | None = None,
) -> list[int]:
    """Indices of the frames that a rule takes, ascending; some may repeat.

    length: frames a second and frames of the file; of a folder the files, and any rate.
    start, end: seconds, None for the whole.

    Raises ValueError where the rule cannot choose, or for times that make no sense.
    """
    check_choice(sampling.framerate, start, end)
    return (FILE_RULES | FOLDER_RULES)[sampling.frame_rule](sampling, length, start, end)
