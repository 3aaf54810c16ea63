"""When each frame of a video file is shown: its time table, from one pass over the packets.

    table = read_time_table("video7.mp4")
    table.frame_count, table.fps, table.seconds

Headers state counts and rates that many files do not keep: edit lists hide frames, the sound may
last longer than the image, live recorders write a header before the first frame. So frames are
counted, and their rate follows from their time stamps if the stated rate does not fit them.
"""

from __future__ import annotations

import array
import functools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from vtr_jax.data.frame_rules import StatedLength
from vtr_jax.data.video_file import check_video_file, opened_video

# OpenCV treats a rate or a duration below this as unknown.
_UNKNOWN = 0.000025
# Frames may be this far from their place at a constant rate, in frames: jittered clocks, and AVI,
# which stores the time of decoding.
_JITTER, _JITTER_DECODING = 0.5, 2.0
# A stated duration may exceed the frames by this much: seconds, and frames at the file's rate.
_SLACK_SECONDS, _SLACK_FRAMES = 0.1, 1.5
# The duration of a file may be the duration of its sound, which is padded to full blocks.
_FILE_SLACK_SECONDS = 1.0
# Less is stored with fewer frames, but is not worth a warning.
_CLEAR_SECONDS, _CLEAR_SHARE = 0.5, 0.01
# A mean rate that differs more from the stated one makes the stated one wrong.
_SAME_RATE = 0.1


@dataclass(frozen=True, eq=False)
class TimeTable:
    """The frames that a file shows, in the order of showing.

    Frames before the first key frame and frames that an edit list hides are not shown.

    Attributes:
        ticks: int64 [N] time stamp of each frame, ascending.
        tick: seconds per tick.
        end: seconds from the first frame until the last one disappears.
        key_ticks: int64 [K] time stamp of each key frame, ascending.
        seek_ticks: int64 [K] time stamp by which FFmpeg finds each key frame.
        is_exact: whether the time stamps identify decoded frames.
        start_tick: time stamp that the file calls its beginning.
        average_fps: OpenCV's rate (4.10 and 5.0): the average that the file states.
        guessed_fps: FFmpeg's guess of a constant rate.
        opencv_count: OpenCV's number of frames, from the header; 0 or less if it has none.
        stated_end: seconds from the first frame that the image should last.
        codec: FFmpeg's name of the codec.
        unread: packets that the header lists, but that cannot be read.
        is_encrypted: whether the packets are encrypted.
    """

    ticks: np.ndarray
    tick: float
    end: float
    key_ticks: np.ndarray
    seek_ticks: np.ndarray
    is_exact: bool
    start_tick: int
    average_fps: float
    guessed_fps: float
    opencv_count: int
    stated_end: float
    codec: str
    unread: int = 0
    is_encrypted: bool = False

    @property
    def frame_count(self) -> int:
        """Number of frames that are shown."""
        return len(self.ticks)

    @cached_property
    def seconds(self) -> np.ndarray:
        """float64 [N], seconds from the first frame at which each frame appears."""
        return (self.ticks - self.ticks[:1]) * self.tick

    @cached_property
    def key_frames(self) -> np.ndarray:
        """int64 [K], the first frame that is shown from each key frame on."""
        return np.searchsorted(self.ticks, self.key_ticks)

    @cached_property
    def mean_fps(self) -> float:
        """Mean rate of the frames that are shown; 0 if there is only one."""
        span = int(self.ticks[-1] - self.ticks[0]) if len(self.ticks) > 1 else 0
        return (len(self.ticks) - 1) / (span * self.tick) if span else 0.0

    @cached_property
    def constant_fps(self) -> float | None:
        """The stated rate that all frames keep; None if they keep none."""
        places = np.arange(self.frame_count)
        jitter = _JITTER if self.is_exact else _JITTER_DECODING
        for fps in (self.average_fps, self.guessed_fps):
            if fps and (np.abs(self.seconds * fps - places) < jitter).all():
                return fps
        return None

    @cached_property
    def fps(self) -> float:
        """Frames per second: as stated if the time stamps agree with it, else their mean rate."""
        stated = self.constant_fps or self.average_fps
        if self.mean_fps and abs(stated - self.mean_fps) > _SAME_RATE * self.mean_fps:
            return self.mean_fps
        return stated

    @property
    def lacking_seconds(self) -> float:
        """Seconds of the stated duration without frames; 0 if the difference is rounding."""
        frame = 1 / self.fps if self.fps else 0.0
        slack = max(_SLACK_SECONDS, _SLACK_FRAMES * frame)
        if self.unread:
            slack = min(slack, frame * self.unread / 2)
        lacking = self.stated_end - self.end
        return lacking if lacking > slack else 0.0

    @property
    def ends_early(self) -> bool:
        """Whether the frames cover clearly less than the stated duration."""
        clear = max(_CLEAR_SECONDS, _CLEAR_SHARE * self.stated_end)
        return self.lacking_seconds > clear

    @property
    def lacking_frames(self) -> int:
        """Frames that the stated duration would hold in addition."""
        estimate = round(self.lacking_seconds * self.fps)
        is_agreed = estimate and abs(self.unread - estimate) <= max(2, 0.1 * estimate)
        return self.unread if is_agreed else estimate

    def shown_at(self, seconds: float) -> int:
        """Return the frame that is on screen `seconds` after the first one appears."""
        slack = min(self.tick, 0.002) + 1e-9  # stamps are rounded to ticks
        return max(int(np.searchsorted(self.seconds, seconds + slack, side="right")) - 1, 0)

    def first_from(self, seconds: float) -> int:
        """Return the first frame that appears `seconds` after the first one, or later."""
        return int(np.searchsorted(self.seconds, seconds - 1e-9, side="left"))


def read_time_table(path: str | os.PathLike[str]) -> TimeTable:
    """Read the time table of a video file: 8 bytes of memory per frame, nothing is decoded.

    The last few tables are kept: moments of one video share its packets.

    Raises:
        UnreadableVideo: the file cannot be opened as a video.
    """
    check_video_file(path)
    status = os.stat(path)
    return _read_unchanged(os.fspath(path), status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read_unchanged(path: str, inode: int, size: int, changed: int) -> TimeTable:
    with opened_video(path, "NONE") as (container, stream):
        is_mp4 = container.format.name.startswith("mov")
        packets = _read_packets(container, stream)
        average, guessed = _stated_rates(stream)
        tick = float(stream.time_base or 0) or 1 / (guessed or 1)
        shown, is_exact = _shown_ticks(packets, stream, tick, average or guessed)
        # AVI has no time of showing: its stamps are guesses if the stream moves frames.
        is_exact &= container.format.name != "avi" or not stream.codec_context.has_b_frames
        keys = np.array(sorted(packets.keys), np.int64).reshape(-1, 2)
        first = int(shown[0]) if len(shown) else 0
        stated_end, is_of_file = _stated_end(container, stream)
        table = TimeTable(
            ticks=shown,
            tick=tick,
            end=_end(shown, packets, tick),
            key_ticks=keys[:, 0],
            seek_ticks=_seek_ticks(keys, container, stream, packets.first_decoded),
            is_exact=is_exact,
            start_tick=stream.start_time or 0,
            average_fps=average,
            guessed_fps=guessed,
            opencv_count=_opencv_count(container, stream, average),
            stated_end=_from_first_frame(stated_end, first * tick, container, stream),
            codec=stream.codec_context.name,
            # Other containers count fields, or packets that hold nothing.
            unread=max(stream.frames - packets.count, 0) if is_mp4 else 0,
            is_encrypted=packets.is_encrypted,
        )
    if is_of_file and table.lacking_seconds:
        return _without_sound_only(path, table)
    return table


def stated_length(path: str | os.PathLike[str]) -> StatedLength:
    """Return frame rate and frame count of a file, frames that it states but lacks included.

    Raises:
        UnreadableVideo: the file cannot be opened as a video.
    """
    table = read_time_table(path)
    return StatedLength(table.fps, table.frame_count + table.lacking_frames)


def counted_length(path: str | os.PathLike[str]) -> StatedLength:
    """Return the frame rate of a file and the number of its frames, as decord does.

    Raises:
        UnreadableVideo: the file cannot be opened as a video.
    """
    table = read_time_table(path)
    return StatedLength(table.fps, table.frame_count, table.lacking_frames)


@dataclass
class _Packets:
    """What the packets of a stream say; the packets themselves are as large as the file."""

    shown: array.array
    keys: list[tuple[int, int]]
    count: int = 0
    end: int = 0
    first_decoded: int | None = None
    lost_stamps: int = 0
    is_restarted: bool = False
    is_damaged: bool = False
    is_encrypted: bool = False


def _read_packets(container: InputContainer, stream: VideoStream) -> _Packets:
    found = _Packets(array.array("q"), [])
    is_hidden = _HIDDEN.get(stream.codec_context.name, _never)
    first_key: int | None = None
    decoded = -(2**62)
    for packet in demuxed(container, stream):
        stamp = packet.pts
        found.count += 1
        if stamp is not None and not packet.is_discard:
            found.end = max(found.end, stamp + max(packet.duration or 0, 0))
        if not packet.size or is_hidden(packet):
            continue
        if packet.is_keyframe and first_key is None:
            first_key = -(2**62) if stamp is None else stamp
            del found.shown[:]  # without a key frame before them they cannot be decoded
        found.is_encrypted |= packet.has_sidedata("encryption_info")
        found.is_damaged |= packet.is_corrupt
        found.is_restarted |= packet.dts is not None and packet.dts < decoded
        decoded = decoded if packet.dts is None else packet.dts
        if stamp is None:
            found.lost_stamps += 1
            found.shown.append(0)
            continue
        if packet.is_keyframe:
            found.keys.append((stamp, stamp if packet.dts is None else packet.dts))
        # Frames that follow the first key frame but are shown before it refer to lost ones.
        if not packet.is_discard and (first_key is None or stamp >= first_key):
            found.shown.append(stamp)
            if packet.dts is not None:
                found.first_decoded = min(
                    packet.dts, packet.dts if found.first_decoded is None else found.first_decoded
                )
    return found


def _never(packet: Any) -> bool:
    return False


def _is_hidden_vp8(packet: Any) -> bool:
    # Bit 4 of the first byte: an alternative reference frame is decoded, but not shown.
    return not memoryview(packet)[0] & 0x10


_HIDDEN = {"vp8": _is_hidden_vp8}


def demuxed(container: InputContainer, stream: VideoStream) -> Iterator[Any]:
    """Yield the packets of a stream, up to the first one that cannot be read."""
    try:
        for packet in container.demux(stream):
            if packet.size or packet.pts is not None:
                yield packet
    except av.FFmpegError:
        return


def _shown_ticks(
    packets: _Packets, stream: VideoStream, tick: float, fps: float
) -> tuple[np.ndarray, bool]:
    """Return the sorted stamps, int64 [N], and whether they identify decoded frames."""
    in_file = np.array(packets.shown, np.int64)
    if packets.lost_stamps or packets.is_restarted:
        # Without stamps, or with those of several recordings: frames in file order, evenly.
        spacing = 1 / ((fps or 1) * tick)
        return np.round(np.arange(len(in_file)) * spacing).astype(np.int64), False
    shown = np.sort(in_file)
    is_unique = len(shown) < 2 or bool((np.diff(shown) > 0).all())
    # Stamps in decoding order although the stream moves frames are not times of showing.
    is_moved = stream.codec_context.has_b_frames and np.array_equal(shown, in_file)
    return shown, is_unique and not is_moved and not packets.is_damaged


def _end(shown: np.ndarray, packets: _Packets, tick: float) -> float:
    """Return the seconds from the first frame until the last one disappears."""
    if not len(shown):
        return 0.0
    span = int(shown[-1] - shown[0])
    if packets.end > shown[-1] and not (packets.lost_stamps or packets.is_restarted):
        return (packets.end - int(shown[0])) * tick
    return span * tick * len(shown) / max(len(shown) - 1, 1)


def _seek_ticks(
    keys: np.ndarray, container: InputContainer, stream: VideoStream, first_decoded: int | None
) -> np.ndarray:
    """Return the stamp by which FFmpeg finds each key frame: of showing, or of decoding."""
    if container.format.name.startswith("mov"):  # as if the first frame were decoded when shown
        return keys[:, 1] + (stream.start_time or 0) - (first_decoded or 0)
    return keys[:, 1] if container.format.name == "flv" else keys[:, 0]


def _stated_rates(stream: VideoStream) -> tuple[float, float]:
    """Return OpenCV's rate and FFmpeg's guess of a constant rate."""
    guessed = float(stream.guessed_rate or 0)
    average = float(stream.average_rate or 0)
    fallback = float(1 / stream.time_base) if stream.time_base else 0.0
    rates = [rate for rate in (average, guessed, fallback) if rate >= _UNKNOWN]
    return (rates[0], guessed or rates[0]) if rates else (0.0, 0.0)


def _opencv_count(container: InputContainer, stream: VideoStream, fps: float) -> int:
    if stream.frames:
        return stream.frames
    seconds = (container.duration or 0) / av.time_base
    if seconds < _UNKNOWN and stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    return math.floor(seconds * fps + 0.5)


def _stated_end(container: InputContainer, stream: VideoStream) -> tuple[float, bool]:
    """Return the stated duration in seconds, and whether it is only that of the file."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base), False
    tag = stream.metadata.get("DURATION", "")  # Matroska, as FFmpeg and mkvmerge write it
    try:
        hours, minutes, seconds = map(float, tag.split(":"))
        return 3600 * hours + 60 * minutes + seconds, False
    except ValueError:
        return (container.duration or 0) / av.time_base, True


def _from_first_frame(
    stated_end: float, first_seconds: float, container: InputContainer, stream: VideoStream
) -> float:
    """Return a stated duration in seconds from the first frame that is shown."""
    if container.format.name.startswith(("mov", "mpeg")) and stream.start_time is not None:
        # It counts from the stream's own start, also if the image is delayed. Frames after that
        # start can be lost before the first key frame, as in a broadcast.
        start_seconds = float(stream.start_time * (stream.time_base or 0))
        return stated_end - max(first_seconds - start_seconds, 0.0)
    # Other containers count from there or from a beginning before it: the weaker claim counts.
    return min(stated_end, stated_end - first_seconds)


def _without_sound_only(path: str | os.PathLike[str], table: TimeTable) -> TimeTable:
    """Return the table without a stated duration that the sound of the file explains."""
    import dataclasses

    end = 0.0
    with opened_video(path, "NONE") as (container, stream):
        others = [each for each in container.streams if each.index != stream.index]
        try:
            for packet in container.demux(others) if others else ():
                if packet.pts is not None and packet.time_base:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except av.FFmpegError:
            pass
    is_explained = end > table.stated_end - _FILE_SLACK_SECONDS
    is_explained |= table.lacking_seconds < _FILE_SLACK_SECONDS
    return dataclasses.replace(table, stated_end=table.end) if is_explained else table
