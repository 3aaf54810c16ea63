"""Decoded frames of a video file, by their index.

Decoding from the first frame on is the reference. If few frames are wanted, decoding goes from
key frame to key frame and leaves out frames that no other frame refers to, but only if the time
table identifies every frame and the decoded frames confirm it. Errors inside the stream end every
faster way: what a decoder conceals depends on threads and on what it decoded before.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Container, Iterator, Sequence

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from vtr_jax.data.time_table import (
    StatedLength,
    TimeTable,
    counted_length,
    read_time_table,
    stated_length,
)
from vtr_jax.data.video_file import UnreadableVideo, opened_video

__all__ = ["StatedLength", "UnreadableVideo", "counted_length", "frames_at", "stated_length"]

# Below this index, decoding up to a frame costs less than reading the packets twice.
SEEK_FROM = 300
# One wanted frame in so many: below that, what is skipped costs less than finding it.
SPARSE = 4
# H.264 says exactly which frames no other frame refers to; HEVC says it for a layer only.
SKIPPING_CODECS = ("h264",)
# Frames left out by going to a key frame, against the cost of emptying the decoder.
_WORTH_A_JUMP = 8
# The decoder stops at an error instead of concealing it.
_STRICT = {"err_detect": "explode"}

_Numbered = Iterator[tuple[int, VideoFrame]]
_Attempt = Callable[[Sequence[int]], _Numbered]


def frames_at(
    path: str | os.PathLike[str],
    indices: Sequence[int],
    thread_type: str = "AUTO",
    table: TimeTable | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode the frames with the given indices, turned upright as the file asks.

    Only one image is in memory at a time, and decoding stops after the last wanted frame. The
    frames do not depend on `thread_type`. An error that stops the decoder ends the video, as it
    does for OpenCV; a single lost frame is left out.

    Args:
        path: a video file.
        indices: ascending, counted from the first frame in the order of showing.
        thread_type: PyAV's: "AUTO", "FRAME", "SLICE", or "NONE" for a single thread.
        table: the time table of the file, if it was read already.

    Yields:
        (index, uint8 [H, W, 3] RGB) for every index that the video reaches.

    Raises:
        UnreadableVideo: the file cannot be opened as a video.
    """
    to_rgb = _RgbConverter(path, thread_type)
    reached = 0
    for attempt in _attempts(path, indices, thread_type, table):
        for index, frame in _pick(indices[reached:], attempt):
            yield index, to_rgb(frame)
            reached = bisect.bisect_right(indices, index, reached)
        if reached == len(indices):
            return


def _attempts(
    path: str | os.PathLike[str], wanted: Sequence[int], thread_type: str, table: TimeTable | None
) -> Iterator[_Attempt]:
    """The ways to decode, fastest first; each may end early."""
    if not wanted:
        return
    if wanted[0] >= SEEK_FROM or wanted[-1] >= SPARSE * len(wanted):
        table = read_time_table(path) if table is None else table
        if table.is_exact:
            yield lambda rest: _sparse_frames(path, rest, thread_type, table)
    if thread_type != "NONE":
        yield lambda _: _from_the_start(path, thread_type, _STRICT, table)
    # Threads can lose the last frame of a file that was cut off, without an error.
    yield lambda _: _from_the_start(path, "NONE", {}, table)


def _pick(wanted: Sequence[int], attempt: _Attempt) -> _Numbered:
    rest = iter(wanted)
    next_wanted = next(rest, None)
    for index, frame in attempt(wanted):
        while next_wanted is not None and next_wanted < index:
            next_wanted = next(rest, None)  # a lost frame
        if index == next_wanted:
            yield index, frame
            next_wanted = next(rest, None)
        if next_wanted is None:
            return


def _from_the_start(
    path: str | os.PathLike[str],
    thread_type: str,
    options: dict[str, str],
    table: TimeTable | None,
) -> _Numbered:
    """All frames with their indices, up to the first error."""
    with opened_video(path, thread_type, options) as (container, stream):
        index = -1
        try:
            for frame in _frames(container, stream):
                place = _place(table, frame)
                if place is not None and place < 0:
                    continue  # before the first key frame
                index = index + 1 if place is None else max(place, index + 1)
                yield index, frame
        except _DamagedStream:
            return


def _place(table: TimeTable | None, frame: VideoFrame) -> int | None:
    """The index that the time stamp gives a frame: -1 before the first; None if unknown."""
    if table is None or not table.is_exact or frame.pts is None:
        return None
    place = int(np.searchsorted(table.ticks, frame.pts))
    if place < table.frame_count and table.ticks[place] == frame.pts:
        return place
    return -1 if place == 0 else None


def _sparse_frames(
    path: str | os.PathLike[str], wanted: Sequence[int], thread_type: str, table: TimeTable
) -> _Numbered:
    """The wanted frames, as many of the others as possible not decoded.

    Ends early if a decoded frame is not the one that the time table promises, and if decoding
    would have to start from a frame that is not clean.
    """
    skips = table.codec in SKIPPING_CODECS
    keys = table.key_frames.tolist()
    if (not skips and wanted[0] < SEEK_FROM) or not keys or wanted[-1] >= table.frame_count:
        return
    with opened_video(path, thread_type, _STRICT) as (container, stream):
        for key, run in _runs(wanted, keys):
            try:
                container.seek(int(table.key_ticks[key]), stream=stream, backward=True)
            except av.FFmpegError:  # not every container can
                return
            run_ticks = {int(table.ticks[index]) for index in run}
            decoded = (
                _frames_skipping(container, stream, run_ticks)
                if skips
                else _frames(container, stream)
            )
            found = 0
            for index, frame in _confirmed(decoded, table, key, skips):
                if index > run[found]:
                    return
                if index == run[found]:
                    yield index, frame
                    found += 1
                if found == len(run):
                    break
            else:
                return


def _runs(wanted: Sequence[int], keys: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Wanted frames in groups, each with the number of the key frame to decode from."""
    first = bisect.bisect_right(keys, wanted[0]) - 1
    run = [wanted[0]]
    for index in wanted[1:]:
        key = bisect.bisect_right(keys, index) - 1
        if keys[key] - run[-1] > _WORTH_A_JUMP:
            yield first, run
            first, run = key, []
        run.append(index)
    yield first, run


def _confirmed(decoded: Iterator[VideoFrame], table: TimeTable, key: int, skips: bool) -> _Numbered:
    """Decoded frames with their indices from a key frame on, until one is not as promised."""
    first = int(table.key_frames[key])
    reached = first - 1
    for frame in _until_damage(decoded):
        if frame.pts is not None and frame.pts < table.ticks[first]:
            continue
        index = _place(table, frame)
        if index is None or (index <= reached if skips else index != reached + 1):
            return
        if key and reached < first:
            # Intra refresh has no key frames, only places from which an image builds up.
            is_clean = frame.key_frame and frame.pict_type == PictureType.I
            if not is_clean or frame.pts != table.key_ticks[key]:
                return
        if frame.is_corrupt or (skips and frame.interlaced_frame):
            return
        reached = index
        yield index, frame


def _until_damage(decoded: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    try:
        yield from decoded
    except _DamagedStream:
        return


class _DamagedStream(Exception):
    """The decoder stopped at an error."""


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    try:
        yield from container.decode(stream)
    except av.error.MemoryError:
        raise
    except av.FFmpegError as error:
        raise _DamagedStream from error


def _frames_skipping(
    container: InputContainer, stream: VideoStream, wanted_ticks: Container[int]
) -> Iterator[VideoFrame]:
    """Decoded frames without the unwanted ones that no other frame refers to."""
    try:
        for packet in container.demux(stream):
            needless = packet.size and packet.pts not in wanted_ticks
            stream.codec_context.skip_frame = "NONREF" if needless else "DEFAULT"
            yield from stream.decode(packet)
    except av.error.MemoryError:
        raise
    except av.FFmpegError as error:
        raise _DamagedStream from error


class _RgbConverter:
    """Conversion of decoded frames to upright RGB images with OpenCV's very pixels."""

    def __init__(self, path: str | os.PathLike[str], thread_type: str) -> None:
        self._path = path
        self._reformatter = VideoReformatter()
        self._threads = 1 if thread_type == "NONE" else 0

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        try:
            # OpenCV's own format and filter; for images deeper than 8 bits "rgb24" and another
            # filter would give other pixels.
            bgr = self._reformatter.reformat(
                frame, format="bgr24", interpolation="BICUBIC", threads=self._threads
            )
        except av.FFmpegError as error:
            raise UnreadableVideo(
                self._path,
                "no decodable frame",
                f"images of kind {frame.format.name} do not turn into RGB ({error.strerror})",
            ) from error
        return np.rot90(bgr.to_ndarray()[..., ::-1], round(frame.rotation / 90) % 4)
