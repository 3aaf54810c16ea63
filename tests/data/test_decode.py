"""Decoding: stated lengths, frames by index with and without seeking, upright pictures."""

from __future__ import annotations

import pickle
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from vtr_jax.data import decode
from vtr_jax.data.decode import frames_at, stated_length
from vtr_jax.data.video import UnreadableVideo, sample_frames

WIDTH, HEIGHT = 64, 48


def picture(index: int) -> np.ndarray:
    """A grey picture as bright as its index says, its upper left quarter white."""
    image = np.full((HEIGHT, WIDTH, 3), 16 + index % 200, np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = 240
    return image


def write_video(
    path: Path,
    frames: int = 60,
    rate: Fraction | int = 25,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_format: str | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    with av.open(str(path), "w", format=container_format) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = pix_fmt
        for index in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), "rgb24")))
        file.mux(stream.encode(None))
    return path


def index_of(image: np.ndarray) -> int:
    """The index that the brightness of a decoded picture tells."""
    return round(float(image[-8:, -8:].mean())) - 16


def decode_from_the_start(monkeypatch) -> None:
    monkeypatch.setattr(decode, "SEEK_FROM", 10_000)
    monkeypatch.setattr(decode, "SPARSE", 10_000)


def decode_sparsely(monkeypatch) -> None:
    monkeypatch.setattr(decode, "SEEK_FROM", 1)
    monkeypatch.setattr(decode, "SPARSE", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def plain(folder) -> Path:
    return write_video(folder / "plain.mp4")


@pytest.mark.parametrize(
    "name, frames, rate, codec, expected",
    [
        ("a.mp4", 25, Fraction(30000, 1001), "libx264", (30000 / 1001, 25)),
        ("b.mp4", 20, Fraction(5, 2), "libx264", (2.5, 20)),
        ("one.mp4", 1, 25, "libx264", (25.0, 1)),
        ("a.avi", 30, 25, "mpeg4", (25.0, 30)),
        ("a.mkv", 31, Fraction(24000, 1001), "mpeg4", (24000 / 1001, 31)),
        ("a.webm", 12, 25, "libvpx", (25.0, 12)),
    ],
)
def test_stated_length(folder, name, frames, rate, codec, expected):
    length = stated_length(write_video(folder / name, frames, rate, codec))
    assert (length.fps, length.frame_count) == pytest.approx(expected, rel=1e-9)


def test_frames_are_counted_where_nothing_is_stated(folder):
    path = write_video(folder / "raw.h264", 40, container_format="h264")
    assert stated_length(path).frame_count == 40


@pytest.mark.parametrize(
    "name, codec, options",
    [
        ("closed.mp4", "libx264", {"x264-params": "keyint=20:bframes=3:scenecut=0"}),
        ("open.mp4", "libx264", {"x264-params": "keyint=20:bframes=3:open-gop=1:scenecut=0"}),
        ("refresh.mp4", "libx264", {"x264-params": "keyint=20:intra-refresh=1"}),
        ("open.ts", "libx264", {"x264-params": "keyint=20:bframes=3:open-gop=1:scenecut=0"}),
        ("stamps.avi", "libx264", {"x264-params": "keyint=20:bframes=3:open-gop=1:scenecut=0"}),
        ("part2.avi", "mpeg4", {"bf": "2", "g": "12"}),
        ("vp8.webm", "libvpx", {"g": "20"}),
    ],
)
def test_a_far_frame_is_the_same_with_and_without_seeking(
    folder, name, codec, options, monkeypatch
):
    path = write_video(folder / name, 120, codec=codec, options=options)
    for wanted in ([61, 70, 99], [40], [119], [100, 130]):
        decode_from_the_start(monkeypatch)
        reference = list(frames_at(path, wanted))
        decode_sparsely(monkeypatch)
        found = list(frames_at(path, wanted))
        assert [index for index, _ in found] == [index for index in wanted if index < 120]
        for (index, image), (_, expected) in zip(found, reference, strict=True):
            np.testing.assert_array_equal(image, expected)
            assert index_of(image) == pytest.approx(index, abs=2)


def check_every_frame(path: Path, monkeypatch) -> None:
    decode_from_the_start(monkeypatch)
    reference = dict(frames_at(path, range(1000)))
    decode_sparsely(monkeypatch)
    for wanted in range(30, len(reference)):
        [(index, image)] = frames_at(path, [wanted])
        assert index == wanted
        np.testing.assert_array_equal(image, reference[wanted])


def test_stamps_in_decoding_order_are_not_trusted(folder, monkeypatch):
    """AVI has no time of showing, so a key frame's stamp is not its place."""
    options = {"x264-params": "keyint=20:bframes=3:b-adapt=0:open-gop=1:scenecut=0"}
    path = write_video(folder / "order.avi", 70, options=options)
    check_every_frame(path, monkeypatch)


@pytest.mark.parametrize("moved", [0, 2])
def test_packets_before_the_first_key_frame_are_not_counted_as_frames(folder, monkeypatch, moved):
    options = {"x264-params": f"keyint=20:bframes={moved}:scenecut=0"}
    whole = write_video(folder / f"whole{moved}.mkv", 80, options=options)
    path = folder / f"begins-late{moved}.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number >= 7:
                packet.stream = stream
                file.mux(packet)
    check_every_frame(path, monkeypatch)


def test_seeking_spares_decoding(folder, monkeypatch):
    options = {"x264-params": "keyint=20:bframes=2:scenecut=0"}
    path = write_video(folder / "long.mp4", 400, options=options)
    decoded = []

    def counted(container, stream):
        for frame in container.decode(stream):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(decode, "_frames", counted)
    monkeypatch.setattr(decode, "SKIPPING_CODECS", ())
    [(index, image)] = frames_at(path, [390])
    assert index == 390 and index_of(image) == pytest.approx(190, abs=2)
    assert 0 < len(decoded) < 60


@pytest.mark.parametrize("thread_type", ["NONE", "AUTO"])
@pytest.mark.parametrize(
    "name, codec, parameters",
    [
        ("pyramid.mp4", "libx264", "bframes=5:b-pyramid=normal:weightp=2:ref=4"),
        ("short-groups.mp4", "libx264", "keyint=12:bframes=3:open-gop=1"),
        ("fields.mp4", "libx264", "bframes=2:interlaced=1"),
        ("moved.ts", "libx264", "keyint=30:bframes=3"),
        ("hevc.mp4", "libx265", "bframes=4:log-level=none"),
    ],
)
def test_frames_left_out_change_no_other_frame(
    folder, monkeypatch, name, codec, parameters, thread_type
):
    key = "x264-params" if codec == "libx264" else "x265-params"
    path = folder / name
    if not path.exists():
        write_video(path, 150, codec=codec, options={key: parameters})
    for wanted in (list(range(0, 150, 25)), list(range(3, 150, 31)), [0, 149], [90, 91, 140]):
        decode_from_the_start(monkeypatch)
        reference = list(frames_at(path, wanted))
        decode_sparsely(monkeypatch)
        found = list(frames_at(path, wanted, thread_type))
        assert [index for index, _ in found] == wanted
        for (_, image), (_, expected) in zip(found, reference, strict=True):
            np.testing.assert_array_equal(image, expected)


def test_frames_that_no_other_needs_are_not_decoded(folder, monkeypatch):
    options = {"x264-params": "keyint=50:bframes=3:b-adapt=0:b-pyramid=none:scenecut=0"}
    path = write_video(folder / "sparse.mp4", 250, options=options)
    decoded = []
    whole = decode._frames_skipping

    def counted(container, stream, wanted_times):
        for frame in whole(container, stream, wanted_times):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(decode, "_frames_skipping", counted)
    monkeypatch.setattr(decode, "_frames", None)  # the way from the start is not taken
    assert len(list(frames_at(path, range(0, 250, 25)))) == 10
    assert len(decoded) < 90  # a quarter of them and the wanted ones
    decoded.clear()
    assert [index for index, _ in frames_at(path, [0, 210])] == [0, 210]
    assert len(decoded) < 15


def test_decoding_stops_after_the_last_wanted_frame(plain, monkeypatch):
    decoded = []

    def counted(container, stream):
        for frame in container.decode(stream):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(decode, "_frames", counted)
    assert [index for index, _ in frames_at(plain, [0, 3])] == [0, 3]
    assert len(decoded) == 4


@pytest.mark.parametrize(
    "matrix, turns",
    [
        ((0, 1, 0, -1, 0, 0, HEIGHT, 0), 3),
        ((-1, 0, 0, 0, -1, 0, WIDTH, HEIGHT), 2),
        ((0, -1, 0, 1, 0, 0, 0, WIDTH), 1),
    ],
)
def test_turned_videos_come_upright(plain, tmp_path, matrix, turns):
    """Phones store a picture as the sensor lies and a matrix that turns it."""
    content = bytearray(plain.read_bytes())
    at = content.find(b"tkhd") + 4 + 4 + 20 + 16
    content[at : at + 36] = struct.pack(">9i", *(value << 16 for value in matrix), 1 << 30)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content)
    [(_, image)] = frames_at(turned, [30])
    [(_, expected)] = frames_at(plain, [30])
    np.testing.assert_array_equal(image, np.rot90(expected, turns))
    assert sample_frames(turned, resolution=16).width == image.shape[1]


def test_cover_pictures_are_no_video(tmp_path):
    picture_file = write_video(tmp_path / "a.mp4", 1, codec="mjpeg", pix_fmt="yuvj420p")
    assert len(sample_frames(picture_file, resolution=8).frames) == 1
    covered = tmp_path / "song.mp4"
    with av.open(str(picture_file)) as source, av.open(str(covered), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        stream.disposition = Disposition.attached_pic
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                file.mux(packet)
    with pytest.raises(UnreadableVideo) as raised:
        sample_frames(covered)
    assert raised.value.reason == "cover art only"


@pytest.mark.parametrize(
    "name, content",
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\npart.ts\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile part.ts\n"),
    ],
)
def test_play_lists_are_not_followed(tmp_path, name, content):
    """A list may name any file of the machine, or an address."""
    write_video(tmp_path / "part.ts", container_format="mpegts")
    (tmp_path / name).write_text(content)
    with av.open(str(tmp_path / name)) as followed:
        assert next(followed.decode(video=0)).width == WIDTH
    with pytest.raises(UnreadableVideo) as raised:
        sample_frames(tmp_path / name)
    assert raised.value.reason == "not a video"


def test_odd_file_names(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "http:x.mp4", "50%d.mp4", "-é #.mp4"):
        Path(name).write_bytes(plain.read_bytes())
        assert len(sample_frames(name, resolution=8).frames) == 3


def test_the_error_survives_the_way_back_from_another_process():
    error = UnreadableVideo("a.mp4", "empty file", "0 bytes")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.path, copy.reason, str(copy)) == ("a.mp4", "empty file", str(error))
    assert isinstance(copy, ValueError)
