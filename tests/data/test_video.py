"""Videos to frames: choice, broken files, padding, order, pixels, refusals."""

from __future__ import annotations

import multiprocessing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vtr_jax.data.decode import stated_length
from vtr_jax.data.video import (
    UnreadableVideo,
    read_video,
    resize_and_crop,
    sample_frames,
)

WIDTH, HEIGHT = 64, 48


def write_video(
    path: Path, frames: int = 60, rate: Fraction | int = 25, faststart: bool = False
) -> Path:
    """H.264 in which every picture is as bright as its index says."""
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            picture = np.full((HEIGHT, WIDTH, 3), 16 + index, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode(None))
    return path


def index_of(image: np.ndarray) -> int:
    """The index that the brightness of a decoded picture tells."""
    return round(float(image[-8:, -8:].mean())) - 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def plain(folder) -> Path:
    return write_video(folder / "plain.mp4")


@pytest.fixture(scope="module")
def cut_off(folder) -> Path:
    """A file without its end that can be opened, since its index comes first."""
    whole = write_video(folder / "fast.mp4", 100, faststart=True).read_bytes()
    path = folder / "cut.mp4"
    path.write_bytes(whole[: int(len(whole) * 0.7)])
    return path


# Choosing


def test_sampled_frames(plain):
    sampled = sample_frames(plain, resolution=32)
    assert sampled.frame_indices.tolist() == [0, 25, 50]
    assert sampled.frames.shape == (3, 32, 32, 3) and sampled.frames.dtype == np.uint8
    assert [index_of(frame) for frame in sampled.frames] == pytest.approx([0, 25, 50], abs=1)
    assert (sampled.fps, sampled.frame_count) == (25.0, 60)
    assert (sampled.width, sampled.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"framerate": 2}, [0, 12, 25, 37, 50]),
        ({"framerate": 0}, list(range(60))),
        ({"start": 1, "end": 2}, [25, 50]),
        ({"start": 1.5}, [38]),
        ({"start": 2, "end": 100}, [50]),
    ],
)
def test_options_of_the_choice(plain, options, expected):
    sampled = sample_frames(plain, resolution=16, **options)
    assert sampled.frame_indices.tolist() == expected


def test_all_threads_give_the_same_frames(plain):
    alone = sample_frames(plain, framerate=0, resolution=32)
    for thread_type in ("AUTO", "FRAME", "SLICE"):
        other = sample_frames(plain, framerate=0, resolution=32, thread_type=thread_type)
        np.testing.assert_array_equal(other.frames, alone.frames)


# Files that end early


def test_a_file_that_ends_early_gives_the_frames_before(cut_off):
    assert stated_length(cut_off).frame_count == 100
    every = sample_frames(cut_off, framerate=0, resolution=16)
    count = len(every.frames)
    assert 10 < count < 100 and every.frame_indices.tolist() == list(range(count))
    sampled = sample_frames(cut_off, resolution=16)
    assert sampled.frame_indices.tolist() == list(range(0, count, 25))


@pytest.mark.parametrize("slice_framepos", [0, 1, 2])
def test_the_choice_in_a_file_that_ends_early_is_among_what_is_there(cut_off, slice_framepos):
    every = sample_frames(cut_off, framerate=0, resolution=16)
    count = len(every.frames)
    frames, mask = read_video(cut_off, 8, framerate=0, resolution=16, slice_framepos=slice_framepos)
    expected = {
        0: np.arange(8),
        1: np.arange(count - 8, count),
        2: np.linspace(0, count - 1, 8).astype(int),
    }[slice_framepos]
    np.testing.assert_array_equal(frames, every.frames[expected])
    assert mask.tolist() == [1] * 8


# Files that cannot be read


def broken_file(kind: str, folder: Path, plain: Path) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "junk":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "text":
        path.write_text("<html>404 not found</html>\n" * 50)
    elif kind == "truncated":
        path.write_bytes(plain.read_bytes()[: plain.stat().st_size // 2])
    elif kind == "sound":
        with av.open(str(path), "w") as file:
            stream = file.add_stream("aac", rate=16000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate = 16000
            file.mux(stream.encode(sound))
            file.mux(stream.encode(None))
    elif kind == "no frames":
        with av.open(str(path), "w", options={"movflags": "empty_moov"}) as file:
            stream = file.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            file.start_encoding()
    elif kind == "damaged":
        content = bytearray(plain.read_bytes())
        start = content.find(b"mdat") + 4
        content[start : content.find(b"moov") - 4] = bytes(content.find(b"moov") - 4 - start)
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("read", [sample_frames, read_video])
@pytest.mark.parametrize(
    "kind, reason",
    [
        ("missing", "missing"),
        ("folder", "not a file"),
        ("empty", "empty file"),
        ("junk", "not a video"),
        ("text", "web page"),
        ("truncated", "cut off"),
        ("sound", "no video stream"),
        ("no frames", "no decodable frame"),
        ("damaged", "no decodable frame"),
    ],
)
def test_unreadable_files(tmp_path, plain, capfd, kind, reason, read):
    path = broken_file(kind, tmp_path, plain)
    capfd.readouterr()
    with pytest.raises(UnreadableVideo) as raised:
        read(path)
    assert raised.value.reason == reason
    assert raised.value.path == str(path)
    assert str(raised.value).startswith(f"{path}: {reason}: ")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("read", [sample_frames, read_video])
def test_start_beyond_the_end(plain, cut_off, read):
    with pytest.raises(UnreadableVideo, match=r"start is 5, the video has 2\.4 seconds") as raised:
        read(plain, start=5, end=9)
    assert raised.value.reason == "start beyond the end"
    with pytest.raises(UnreadableVideo, match="decoding ends before it") as raised:
        read(cut_off, start=3.9, end=5)
    assert raised.value.reason == "start beyond the end"


@pytest.mark.parametrize("read", [sample_frames, read_video])
def test_fewer_frames_a_second_than_wanted(folder, read):
    path = write_video(folder / "slow.mp4", 20, Fraction(5, 2))
    with pytest.raises(UnreadableVideo, match="2.5 frames a second, expected at least 3"):
        read(path, framerate=3)
    assert sample_frames(path, framerate=2, resolution=8).frames.shape[0] == 20


def test_reading_in_worker_processes(plain):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        [sampled] = pool.map(sample_frames, [plain])
    np.testing.assert_array_equal(sampled.frames, sample_frames(plain).frames)


# What a model gets


def test_short_videos_are_padded_with_zeros(plain):
    frames, mask = read_video(plain, max_frames=5, resolution=32)
    assert frames.shape == (5, 32, 32, 3) and frames.dtype == np.uint8
    assert mask.tolist() == [1, 1, 1, 0, 0] and mask.dtype == np.int32
    np.testing.assert_array_equal(frames[:3], sample_frames(plain, resolution=32).frames)
    assert not frames[3:].any()


def test_default_is_twelve_frames_of_224_pixels(plain):
    frames, mask = read_video(str(plain))
    assert frames.shape == (12, 224, 224, 3) and mask.sum() == 3


def test_orders(plain):
    kept = read_video(plain, 4, framerate=2, resolution=16)[0]
    turned, mask = read_video(plain, 4, framerate=2, resolution=16, frame_order=1)
    np.testing.assert_array_equal(turned, kept[::-1])
    assert mask.tolist() == [1] * 4
    padded, mask = read_video(plain, 6, framerate=1, resolution=16, frame_order=1)
    assert mask.tolist() == [1, 1, 1, 0, 0, 0] and not padded[3:].any()
    shuffled = [
        read_video(
            plain, 4, framerate=2, resolution=16, frame_order=2, rng=np.random.default_rng(seed)
        )[0]
        for seed in (0, 0, 1, 2, 3)
    ]
    np.testing.assert_array_equal(shuffled[0], shuffled[1])
    assert any((other != shuffled[0]).any() for other in shuffled[2:])
    assert sorted(map(index_of, shuffled[0])) == sorted(map(index_of, kept))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_frames": 0}, "max_frames is 0, expected at least 1"),
        ({"slice_framepos": 3}, "slice_framepos is 3"),
        ({"frame_order": 5}, "frame_order is 5"),
        ({"frame_order": 2}, "pass rng"),
        ({"resolution": 0}, "resolution is 0, expected at least 1 pixel"),
        ({"framerate": -1}, "framerate is -1"),
        ({"start": 3, "end": 2}, "start is 3 and end is 2"),
        ({"start": -2}, "start is -2"),
    ],
)
def test_wrong_options_are_refused_before_the_file_is_looked_at(options, message):
    with pytest.raises(ValueError, match=message) as raised:
        read_video("absent.mp4", **options)
    assert not isinstance(raised.value, UnreadableVideo)


# Pixels


@pytest.mark.parametrize(
    "width, height, resized",
    [
        (320, 240, (298, 224)),
        (426, 240, (397, 224)),
        (236, 420, (224, 398)),
        (240, 240, (224, 224)),
        (100, 60, (373, 224)),
    ],
)
def test_resize_and_crop(width, height, resized):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole = np.asarray(Image.fromarray(image).resize(resized, Image.Resampling.BICUBIC))
    left, top = (round((side - 224) / 2) for side in resized)
    np.testing.assert_array_equal(
        resize_and_crop(image, 224), whole[top : top + 224, left : left + 224]
    )


def test_no_resize_at_the_right_size_and_crop_half_to_even():
    image = np.random.default_rng(0).integers(0, 256, (16, 25, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_and_crop(image, 16), image[:, 4:20])
    np.testing.assert_array_equal(resize_and_crop(image[:, :23], 16), image[:, 4:20])
    assert resize_and_crop(image[:, :17], 16)[0, 0].tolist() == image[0, 0].tolist()
    assert resize_and_crop(image, 16).flags.c_contiguous


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((4, 4, 3), np.float32), r"image is float32 \(4, 4, 3\), expected uint8"),
        (np.zeros((4, 4), np.uint8), "expected uint8"),
        (np.zeros((4, 4, 4), np.uint8), "expected uint8"),
        (np.zeros((0, 4, 3), np.uint8), "expected uint8"),
    ],
)
def test_resize_refuses(image, message):
    with pytest.raises(ValueError, match=message):
        resize_and_crop(image, 8)
