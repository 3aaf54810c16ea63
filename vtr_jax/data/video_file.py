"""Opening a video file, and the true reason if it cannot be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

# Containers that hold their own content. Play lists name other files and network addresses.
# Sound formats are listed only for the error message.
_CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc,vvc,av1,obu,ivf,m4v,rm,wtv,"
    "mxf,dv,nut,mjpeg,vc1,h263,nsv,yuv4mpegpipe,apng,wav,mp3,aac,flac"
)
# PyAV 19 keeps bytes that are not UTF-8 and has no option for them; PyAV 18 raises without it.
_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
_SNIFFED_BYTES = 512
# HEIF and AVIF images use the container of MP4.
_IMAGE_BRANDS = ("avif", "heic", "heix", "mif1")
_SPECIAL_FILES = (
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISDIR, "folder"),
)


class UnreadableVideo(ValueError):
    """A video file without the requested frames.

    Attributes:
        path: the file.
        reason: a few fixed words for reports: "missing", "broken link", "named pipe",
            "not a file", "no permission", "empty file", "web page", "Git LFS pointer",
            "still image", "not a video", "no video stream", "cover art only", "encrypted",
            "unknown codec", "no decodable frame", "cut off", "no frame chosen",
            "start beyond the end" or "frame rate too low".
        message: what was found and what to do.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, message: str) -> None:
        super().__init__(os.fspath(path), reason, message)
        self.path = os.fspath(path)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}: {self.message}"


def check_video_file(path: str | os.PathLike[str]) -> None:
    """Check that `path` is a regular, readable file with content, without opening it.

    Call this before reading or hashing: opening a named pipe blocks forever.

    Raises:
        UnreadableVideo: the path is missing, a broken link, not a regular file, not readable, or
            empty.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        if os.path.islink(path):
            target = os.readlink(path)
            raise UnreadableVideo(
                path, "broken link", f"it points to {target}, which cannot be reached: restore it"
            ) from error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise UnreadableVideo(path, "missing", "no such file") from error
        raise UnreadableVideo(path, "no permission", f"cannot be reached ({error})") from error
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _SPECIAL_FILES if is_kind(status.st_mode)), "other")
        reason = kind if kind == "named pipe" else "not a file"
        raise UnreadableVideo(path, reason, f"expected a video file, found a {kind}")
    if not os.access(path, os.R_OK):
        raise UnreadableVideo(path, "no permission", "the file may not be read")
    if not status.st_size:
        raise UnreadableVideo(path, "empty file", "0 bytes: fetch or write it again")


@contextmanager
def opened_video(
    path: str | os.PathLike[str], thread_type: str, codec_options: dict[str, str] | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video file and its first video stream that is not cover art.

    Args:
        path: a video file.
        thread_type: PyAV's: "AUTO", "FRAME", "SLICE", or "NONE" for a single thread.
        codec_options: options of FFmpeg's decoder.

    Raises:
        UnreadableVideo: the file cannot be opened as a video.
    """
    check_video_file(path)
    options: dict[str, Any] = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    try:
        # An absolute path keeps a name with a colon from being read as an address.
        container = av.open(os.path.abspath(path), options=options, **_METADATA)
    except av.FFmpegError as error:
        raise _not_a_video(path, error) from error
    with container:
        stream = _picture_stream(path, container)
        stream.thread_type = thread_type
        if codec_options:
            stream.codec_context.options = codec_options
        yield container, stream


def _not_a_video(path: str | os.PathLike[str], error: av.FFmpegError) -> UnreadableVideo:
    with open(path, "rb") as file:
        head = file.read(_SNIFFED_BYTES)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) or b"<html" in text:
        return UnreadableVideo(
            path, "web page", "HTML text instead of a video: download the video itself"
        )
    if text.startswith(b"version https://git-lfs"):
        return UnreadableVideo(path, "Git LFS pointer", "run git lfs pull to fetch the video")
    kind = _image_kind(path)
    if kind:
        return UnreadableVideo(path, "still image", f"a {kind} image, not a video: remove it")
    if head[4:8] == b"ftyp" and not _has_index(path):
        return UnreadableVideo(
            path,
            "cut off",
            "an MP4 file without its index (moov), which is often at the end: fetch it again",
        )
    if text and b"\0" not in head and _is_text(head):
        return UnreadableVideo(path, "not a video", "text instead of a video: remove it")
    return UnreadableVideo(
        path,
        "not a video",
        f"no video container, damaged or cut off ({error.strerror}): fetch it again",
    )


def _has_index(path: str | os.PathLike[str]) -> bool:
    """Whether an MP4 file has the box that says where its frames are."""
    with open(path, "rb") as file:
        while len(header := file.read(8)) == 8:
            size = int.from_bytes(header[:4], "big")
            if header[4:] == b"moov":
                return True
            if size == 1:
                file.seek(int.from_bytes(file.read(8), "big") - 16, os.SEEK_CUR)
            elif size < 8:
                return False
            else:
                file.seek(size - 8, os.SEEK_CUR)
    return False


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8", errors="strict" if len(head) < _SNIFFED_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\r\n\f\x1b" for byte in head)


def _image_kind(path: str | os.PathLike[str]) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.format
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _picture_stream(path: str | os.PathLike[str], container: InputContainer) -> VideoStream:
    # The cover art of a sound file is stored as a video stream too.
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams} - {"video"})
        others = f"{', '.join(kinds)} and " if kinds else ""
        if container.streams.video:
            raise UnreadableVideo(
                path, "cover art only", f"the file holds {others}a cover image: remove it"
            )
        found = f"only {' and '.join(kinds)}" if kinds else "no stream at all"
        raise UnreadableVideo(
            path, "no video stream", f"expected images, found {found}: remove or replace the file"
        )
    brand = container.metadata.get("major_brand")
    if brand in _IMAGE_BRANDS:
        raise UnreadableVideo(path, "still image", f"a {brand} image, not a video: remove it")
    if streams[0].codec_context is None:
        raise UnreadableVideo(path, "unknown codec", "no decoder for it here: re-encode as H.264")
    return streams[0]
