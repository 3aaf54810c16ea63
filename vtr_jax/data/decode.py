"""Decoded frames of a video file, by their index.

Reading from the first frame on is the reference. Where few frames are wanted, decoding goes from
key frame to key frame and leaves out frames that no other is made from, but only where the packets
tell every frame's place and the frames found confirm it.
"""

from __future__ import annotations

import bisect
import itertools
import math
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

# Below this index, decoding up to a frame costs less than reading the packets twice.
SEEK_FROM = 300
# One wanted frame in so many: below that, what is skipped costs less than finding it.
SPARSE = 4
# H.264 says exactly which frames no other is made from; HEVC says it for a layer only.
SKIPPING_CODECS = ("h264",)
# Frames left out by going to a key frame, against the cost of emptying the decoder.
_WORTH_A_JUMP = 8
# Packets come in decoding order; H.264 and HEVC move a frame by at most 16 places.
_REORDERED_AT_MOST = 32
# 46 hours at 60 frames a second: a container that states more is not believed.
_BELIEVED_FRAMES = 10_000_000
_NO_TIME = 0.000025
# What the file itself holds, no play lists: those name other files and network addresses. Sound
# is opened only to say so.
_CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc,vvc,av1,obu,ivf,m4v,rm,wtv,"
    "mxf,dv,nut,mjpeg,vc1,h263,nsv,yuv4mpegpipe,apng,wav,mp3,aac,flac"
)
# A title that is not UTF-8 is no reason to reject a file. PyAV 19 tolerates it without an option.
_TOLERATE_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)


class UnreadableVideo(ValueError):
    """A video file that cannot give the frames asked for.

    Attributes:
        path: the file.
        reason: a few fixed words for reports: "missing", "not a file", "no permission",
            "empty file", "not a video", "no video stream", "unknown codec",
            "no decodable frame", "start beyond the end" or "frame rate too low".
        message: what was found and what to do.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, message: str) -> None:
        super().__init__(os.fspath(path), reason, message)
        self.path = os.fspath(path)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}: {self.message}"


@dataclass(frozen=True)
class StatedLength:
    """Frame rate (a second) and frame count as OpenCV reports them for the file.

    lacking: frames that the container states beyond a frame_count of packets.
    """

    fps: float
    frame_count: int
    lacking: int = 0


def stated_length(path: str | os.PathLike[str]) -> StatedLength:
    """Read frame rate and frame count from the container, by OpenCV's rules.

    Where the container states no count, it follows from duration and rate; where that fails too,
    the packets are counted.

    Raises:
        UnreadableVideo: the file cannot be opened as a video.
    """
    with _opened(path, "NONE") as (container, stream):
        fps = _stated_fps(stream)
        frame_count = stream.frames or math.floor(_seconds(container, stream) * fps + 0.5)
        if not 0 < frame_count <= _BELIEVED_FRAMES:
            frame_count = sum(1 for _ in _packets(container, stream))
        return StatedLength(fps, frame_count)


def counted_length(path: str | os.PathLike[str]) -> StatedLength:
    """Read average frame rate and count the frames, as decord does: from all packets.

    Raises:
        UnreadableVideo: the file cannot be opened as a video.
    """
    with _opened(path, "NONE") as (container, stream):
        fps = float(stream.average_rate or 0) or _stated_fps(stream)
        discarded = [packet.is_discard for packet in _packets(container, stream)]
        lacking = max(stream.frames - len(discarded), 0)
        return StatedLength(fps, discarded.count(False), lacking)


def frames_at(
    path: str | os.PathLike[str], indices: Sequence[int], thread_type: str = "AUTO"
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode the frames with the given indices, turned upright as the file asks.

    Only one picture is held at a time, and decoding stops after the last one wanted. The first
    frame that cannot be decoded ends the video, as it does for OpenCV.

    Args:
        path: a video file.
        indices: ascending, counted from the first frame in the order of showing.
        thread_type: PyAV's: "AUTO", "FRAME", "SLICE", or "NONE" for a single thread.

    Yields:
        (index, uint8 [H, W, 3] RGB) for every index that the video reaches.

    Raises:
        UnreadableVideo: the file cannot be opened as a video.
    """
    to_rgb = _RgbConverter(path, thread_type)
    reached = 0
    if indices and (indices[0] >= SEEK_FROM or indices[-1] >= SPARSE * len(indices)):
        for index, frame in _sparse_frames(path, indices, thread_type):
            yield index, to_rgb(frame)
            reached += 1
    if reached < len(indices):
        for index, frame in _pick(indices[reached:], _from_the_start(path, thread_type)):
            yield index, to_rgb(frame)


def _pick(
    indices: Sequence[int], numbered_frames: Iterator[tuple[int, VideoFrame]]
) -> Iterator[tuple[int, VideoFrame]]:
    wanted = iter(indices)
    next_wanted: int | None = next(wanted)
    for index, frame in numbered_frames:
        if index == next_wanted:
            yield index, frame
            next_wanted = next(wanted, None)
            if next_wanted is None:
                return


def _from_the_start(
    path: str | os.PathLike[str], thread_type: str
) -> Iterator[tuple[int, VideoFrame]]:
    with _opened(path, thread_type) as (container, stream):
        yield from enumerate(_frames(container, stream))


def _sparse_frames(
    path: str | os.PathLike[str], indices: Sequence[int], thread_type: str
) -> Iterator[tuple[int, VideoFrame]]:
    """The wanted frames, as many of the others as possible not decoded.

    Ends early where a decoded frame is not the one that the packets promise.
    """
    with _opened(path, thread_type) as (container, stream):
        skips = stream.codec_context.name in SKIPPING_CODECS
        if not skips and indices[0] < SEEK_FROM:
            return
        times, key_times = _packet_times(container, stream, indices[-1])
    if len(times) <= indices[-1]:
        return
    keys = [bisect.bisect_left(times, time) for time in key_times]
    with _opened(path, thread_type) as (container, stream):
        for key, wanted in _runs(indices, keys):
            try:
                container.seek(times[key], stream=stream, backward=True)
            except av.FFmpegError:  # not every container can
                return
            wanted_times = {times[index] for index in wanted}
            decoded = (
                _frames_skipping(container, stream, wanted_times)
                if skips
                else _frames(container, stream)
            )
            found = 0
            for index, frame in _confirmed(decoded, times, key, skips):
                if index > wanted[found]:
                    return
                if index == wanted[found]:
                    yield index, frame
                    found += 1
                if found == len(wanted):
                    break
            else:
                return


def _runs(indices: Sequence[int], keys: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Wanted frames in groups, each with the key frame that decoding it starts from."""
    first = keys[bisect.bisect_right(keys, indices[0]) - 1]
    run = [indices[0]]
    for index in indices[1:]:
        key = keys[bisect.bisect_right(keys, index) - 1]
        if key - run[-1] > _WORTH_A_JUMP:
            yield first, run
            first, run = key, []
        run.append(index)
    yield first, run


def _confirmed(
    decoded: Iterator[VideoFrame], times: Sequence[int], key: int, skips: bool
) -> Iterator[tuple[int, VideoFrame]]:
    """Decoded frames with their indices from a key frame on, until one is not as promised."""
    reached = key - 1
    for frame in decoded:
        if frame.pts is not None and frame.pts < times[key]:
            continue
        index = -1 if frame.pts is None else bisect.bisect_left(times, frame.pts)
        as_promised = 0 <= index < len(times) and times[index] == frame.pts
        in_place = index > reached if skips else index == reached + 1
        if not (as_promised and in_place) or (skips and frame.interlaced_frame):
            return
        reached = index
        yield index, frame


def _packet_times(
    container: InputContainer, stream: VideoStream, last: int
) -> tuple[list[int], list[int]]:
    """Sorted time stamps of all frames up to index `last`, and of the key frames among them.

    Nothing where the time stamps do not tell the frames' places: a missing or repeated one, a
    frame to be thrown away, frames to be shown before the first key frame, or (as AVI files do)
    stamps in decoding order although the stream moves frames.
    """
    # Not the packets themselves: together they are as large as the file.
    stamps = [
        (packet.pts, packet.is_keyframe, packet.is_discard or packet.is_corrupt)
        for packet in itertools.islice(_packets(container, stream), last + _REORDERED_AT_MOST)
    ]
    times = [time for time, _, _ in stamps if time is not None]
    in_order = sorted(times)
    if (
        not stamps
        or len(set(times)) < len(stamps)
        or any(unusable for _, _, unusable in stamps)
        or not (stamps[0][1] and times[0] == in_order[0])
        or (stream.codec_context.has_b_frames and times == in_order)
    ):
        return [], []
    return in_order, sorted(time for time, is_key, _ in stamps if is_key)


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Any]:
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.FFmpegError:
        return


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    try:
        yield from container.decode(stream)
    except av.error.MemoryError:
        raise
    except av.FFmpegError:
        return


def _frames_skipping(
    container: InputContainer, stream: VideoStream, wanted_times: Container[int]
) -> Iterator[VideoFrame]:
    """Decoded frames without the unwanted ones that no other frame is made from."""
    try:
        for packet in container.demux(stream):
            needless = packet.size and packet.pts not in wanted_times
            stream.codec_context.skip_frame = "NONREF" if needless else "DEFAULT"
            yield from stream.decode(packet)
    except av.error.MemoryError:
        raise
    except av.FFmpegError:
        return


class _RgbConverter:
    """Turns decoded frames into upright RGB pictures with OpenCV's very pixels."""

    def __init__(self, path: str | os.PathLike[str], thread_type: str) -> None:
        self._path = path
        self._reformatter = VideoReformatter()
        self._threads = 1 if thread_type == "NONE" else 0

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        try:
            # OpenCV's own format and filter; for pictures deeper than 8 bits "rgb24" and another
            # filter would give other pixels.
            bgr = self._reformatter.reformat(
                frame, format="bgr24", interpolation="BICUBIC", threads=self._threads
            )
        except av.FFmpegError as error:
            raise UnreadableVideo(
                self._path,
                "no decodable frame",
                f"pictures of kind {frame.format.name} do not turn into RGB ({error.strerror})",
            ) from error
        return np.rot90(bgr.to_ndarray()[..., ::-1], round(frame.rotation / 90) % 4)


@contextmanager
def _opened(
    path: str | os.PathLike[str], thread_type: str
) -> Iterator[tuple[InputContainer, VideoStream]]:
    _check_file(path)
    try:
        # An absolute path keeps a name with a colon from being read as an address.
        container = av.open(
            os.path.abspath(path),
            options={"protocol_whitelist": "file", "format_whitelist": _CONTAINERS},
            **_TOLERATE_METADATA,
        )
    except av.FFmpegError as error:
        raise UnreadableVideo(
            path, "not a video", f"no video container, damaged or cut off ({error.strerror})"
        ) from error
    with container:
        stream = _picture_stream(path, container)
        stream.thread_type = thread_type
        yield container, stream


def _check_file(path: str | os.PathLike[str]) -> None:
    if not os.path.exists(path):
        raise UnreadableVideo(path, "missing", "no such file")
    if not os.path.isfile(path):
        raise UnreadableVideo(path, "not a file", "expected a video file, found a folder")
    if not os.access(path, os.R_OK):
        raise UnreadableVideo(path, "no permission", "the file may not be read")
    if not os.path.getsize(path):
        raise UnreadableVideo(path, "empty file", "0 bytes: fetch or write it again")


def _picture_stream(path: str | os.PathLike[str], container: InputContainer) -> VideoStream:
    # The cover picture of a sound file is stored as a video stream too.
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise UnreadableVideo(path, "no video stream", f"the file holds {kinds}")
    if streams[0].codec_context is None:
        raise UnreadableVideo(path, "unknown codec", "no decoder for it here: re-encode as H.264")
    return streams[0]


def _stated_fps(stream: VideoStream) -> float:
    for rate in (stream.guessed_rate, stream.average_rate):
        if rate is not None and rate >= _NO_TIME:
            return float(rate)
    return float(1 / stream.time_base) if stream.time_base else 0.0


def _seconds(container: InputContainer, stream: VideoStream) -> float:
    seconds = (container.duration or 0) / av.time_base
    if seconds < _NO_TIME and stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    return seconds
