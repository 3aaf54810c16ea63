"""Small video files, rendered once, whole and broken ones, and a frame store made from them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vtr_jax.data.frame_store import FrameStore, PrepareReport, prepare
from vtr_jax.data.split import Split, VideoClip

WIDTH, HEIGHT = 64, 48
RESOLUTION = 32
# seconds and frames a second of each whole file: 1 to 9 frames at one a second
LENGTHS = [(1, 10), (3, 10), (2, 25), (5, 8), (3, 12), (9, 5), (2, 10), (4, 10), (1, 25), (6, 6)]


def _render(path: Path, seconds: int, fps: int, seed: int) -> None:
    """Writes a video of a bright block that moves over noise; each seed gives other pixels."""
    rng = np.random.default_rng(seed)
    background = rng.integers(0, 120, (HEIGHT, WIDTH, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(seconds * fps):
            picture = background.copy()
            left = (7 * seed + 3 * index) % (WIDTH - 12)
            picture[10:30, left : left + 12] = rng.integers(150, 255, 3)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _split_of_files(files: list[str], captions_each: int = 2, name: str = "train") -> Split:
    clips = tuple(VideoClip(file.removesuffix(".mp4"), file) for file in files)
    captions = tuple(f"caption {k} of {c.clip_id}" for c in clips for k in range(captions_each))
    relation = np.repeat(np.arange(len(clips)), captions_each).astype(np.int32)
    return Split("toy", name, clips, captions, relation)


@pytest.fixture(scope="session")
def split_of_files() -> Callable[..., Split]:
    """Makes a split of one clip a file name, `captions_each` captions a clip."""
    return _split_of_files


@pytest.fixture(scope="session")
def render() -> Callable[[Path, int, int, int], None]:
    """Renders a video file: path, seconds, frames a second, seed."""
    return _render


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory) -> Path:
    """Ten whole files clip0.mp4 .. clip9.mp4 and the broken empty.mp4, junk.mp4 and cut.mp4."""
    folder = tmp_path_factory.mktemp("videos")
    for number, (seconds, fps) in enumerate(LENGTHS):
        _render(folder / f"clip{number}.mp4", seconds, fps, number)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "junk.mp4").write_bytes(np.random.default_rng(0).bytes(2000))
    (folder / "cut.mp4").write_bytes((folder / "clip0.mp4").read_bytes()[:600])
    return folder


@pytest.fixture(scope="session")
def faststart(tmp_path_factory) -> Path:
    """whole.mp4, ten seconds with its index in front; half of it, and one with a hole of zeros."""
    folder = tmp_path_factory.mktemp("faststart")
    rng = np.random.default_rng(0)
    with av.open(str(folder / "whole.mp4"), "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=10, options={"g": "10", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(100):
            picture = rng.integers(0, 255, (48, 64, 3), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
    content = (folder / "whole.mp4").read_bytes()
    assert content.find(b"moov") < content.find(b"mdat")
    third = len(content) // 3
    (folder / "half.mp4").write_bytes(content[: len(content) // 2])
    (folder / "hole.mp4").write_bytes(content[:third] + bytes(third) + content[2 * third :])
    return folder


@pytest.fixture(scope="session")
def whole_split() -> Split:
    """All ten whole files, two captions each."""
    return _split_of_files([f"clip{number}.mp4" for number in range(len(LENGTHS))])


@pytest.fixture(scope="session")
def store_dir(tmp_path_factory, video_folder, whole_split) -> Path:
    """A finished JPEG store of the whole split in several shards; tests must not change it."""
    folder = tmp_path_factory.mktemp("stores") / "jpeg"
    prepare(whole_split, video_folder, folder, resolution=RESOLUTION, shard_bytes=20_000)
    return folder


@pytest.fixture(scope="session")
def store(store_dir) -> FrameStore:
    """The store of `store_dir`, opened."""
    return FrameStore.open(store_dir)


@pytest.fixture(scope="session")
def png_store(tmp_path_factory, video_folder, whole_split) -> FrameStore:
    """The same clips as in `store`, stored lossless in one shard."""
    folder = tmp_path_factory.mktemp("stores") / "png"
    prepare(whole_split, video_folder, folder, resolution=RESOLUTION, encoding="png")
    return FrameStore.open(folder)


def _contents(store_dir: Path) -> dict[str, bytes]:
    about_the_run = (".lock", "report.json", "bad_clips.jsonl")
    return {
        path.relative_to(store_dir).as_posix(): path.read_bytes()
        for path in store_dir.rglob("*")
        if path.is_file() and path.name not in about_the_run
    }


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Reads every file that makes a store, by name."""
    return _contents


@pytest.fixture
def videos(tmp_path, video_folder) -> Path:
    """A copy of the video files that a test may change."""
    return shutil.copytree(video_folder, tmp_path / "videos")


@pytest.fixture
def prepare_small(tmp_path, videos) -> Callable[..., PrepareReport]:
    """prepare() into tmp_path/store with the settings of the store fixture and one worker."""

    def run(splits, store_dir=tmp_path / "store", **options):
        options = {"resolution": RESOLUTION, "shard_bytes": 20_000, "workers": 1} | options
        return prepare(splits, videos, store_dir, **options)

    return run


def gray_image(index: int) -> np.ndarray:
    """Return a gray image, uint8 [48, 64, 3], as bright as its index."""
    return np.full((48, 64, 3), 16 + index % 200, np.uint8)


def write_frames_at(
    path: Path,
    seconds: Sequence[float],
    codec: str = "libx264",
    tick: Fraction = Fraction(1, 90_000),
    rate: int = 30,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a video with a gray frame at each of the given times."""
    with av.open(str(path), "w", options=container_options or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = tick
        for index, time in enumerate(seconds):
            frame = av.VideoFrame.from_ndarray(gray_image(index), "rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def gray():
    """The function `gray_image`."""
    return gray_image


@pytest.fixture(scope="session")
def write_at():
    """The function `write_frames_at`."""
    return write_frames_at
