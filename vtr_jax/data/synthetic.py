"""The demo's data set: real H.264 files of moving shapes, with captions in which time matters.

    dataset = render_dataset("demo-data", num_clips=1000, seed=0)
    split = read_split("table", dataset.captions_file, "train")

synthetic_scenes.py decides what is shown and how it is worded; this module draws and encodes it.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtr_jax.data.synthetic_scenes import PlannedClip, Scene, plan_clips

FRAMES_PER_SECOND = 8
# One frame more than two whole seconds: every second, fourth or eighth frame then holds the first
# and the last one, and a video played backwards is sampled at the very same frames.
NUM_FRAMES = 2 * FRAMES_PER_SECOND + 1
FORMAT_VERSION = 1
_COLOURS = {
    "red": (226, 58, 62),
    "yellow": (250, 214, 64),
    "green": (62, 178, 92),
    "blue": (66, 118, 238),
    "white": (242, 244, 247),
}
_RADIUS = {"small": 0.1, "large": 0.18}
_STEP = {"right": (1.0, 0.0), "left": (-1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
_OVERSAMPLING = 4


@dataclass(frozen=True)
class SyntheticDataset:
    """Where a rendered data set lies.

    captions_file: CSV with the columns video, caption, split. videos_dir: the files it names.
    pairs_file: JSON list of test clips that differ only in direction or order of motion, each
    {"clips": [clip id, clip id], "captions": [caption, caption]}. clips: clips of each split.
    """

    directory: Path
    captions_file: Path
    videos_dir: Path
    pairs_file: Path
    clips: dict[str, int]


@dataclass(frozen=True)
class _Settings:
    num_clips: int
    seed: int
    num_val: int
    num_test: int
    direction_pairs: int
    video_size: int
    format_version: int = FORMAT_VERSION


def render_dataset(
    directory: Path | str,
    num_clips: int = 1000,
    seed: int = 0,
    *,
    num_val: int = 40,
    num_test: int = 100,
    direction_pairs: int = 30,
    video_size: int = 96,
    workers: int | None = None,
) -> SyntheticDataset:
    """Renders `num_clips` training videos, `num_val` and `num_test` held-out ones and captions.

    Each video is about two seconds, `video_size` pixels a side (even, at least 32), 17 frames at 8
    a second. The same arguments give the same bytes on one machine; a directory that already holds
    this very data set is returned as it is. Threads: `workers`, by default one a core.
    Raises ValueError for counts that cannot be met and for a directory that holds anything else.
    """
    if video_size < 32 or video_size % 2:
        raise ValueError(f"video_size: expected an even number, 32 or more; got {video_size}")
    settings = _Settings(num_clips, seed, num_val, num_test, direction_pairs, video_size)
    clips, pairs = plan_clips(
        num_clips, seed, num_val=num_val, num_test=num_test, direction_pairs=direction_pairs
    )
    directory = Path(directory)
    if not _is_rendered(directory, settings):
        unfinished = directory.with_name(directory.name + ".partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / "videos").mkdir(parents=True)
        _render_videos(unfinished / "videos", clips, video_size, workers)
        _write_lists(unfinished, clips, pairs, settings)
        if directory.is_dir():
            directory.rmdir()
        os.replace(unfinished, directory)
    return SyntheticDataset(
        directory,
        directory / "captions.csv",
        directory / "videos",
        directory / "direction_pairs.json",
        {"train": num_clips, "val": num_val, "test": num_test},
    )


def render_frames(scene: Scene, look_seed: tuple[int, ...], video_size: int = 96) -> np.ndarray:
    """Draws the frames of one scene, uint8 [NUM_FRAMES,H,W,3].

    Scene and reversed scene with the same look_seed give the same frames in reverse order.
    """
    rng = np.random.default_rng(look_seed)
    background_hw3 = _background(rng, video_size)
    offset = rng.uniform(-0.05, 0.05, 2)
    reach = rng.uniform(0.22, 0.27)
    colour = np.array(_COLOURS[scene.colour], np.float32)
    frames = np.empty((NUM_FRAMES, video_size, video_size, 3), np.uint8)
    for i in range(NUM_FRAMES):
        centre = 0.5 + offset + reach * _position(scene.motion, i / (NUM_FRAMES - 1))
        mask_hw1 = _shape_mask(scene.shape, centre, _RADIUS[scene.size], video_size)
        frames[i] = np.rint(background_hw3 + mask_hw1 * (colour - background_hw3))
    return frames


def _is_rendered(directory: Path, settings: _Settings) -> bool:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    record = directory / "dataset.json"
    if not record.is_file():
        raise ValueError(
            f"{directory}: expected a new or empty directory, found other files; choose another"
        )
    found = json.loads(record.read_text())
    if found != dataclasses.asdict(settings):
        raise ValueError(
            f"{directory} holds a data set rendered with {found}, wanted "
            f"{dataclasses.asdict(settings)}; choose another directory or delete this one"
        )
    return True


def _render_videos(
    videos_dir: Path, clips: list[PlannedClip], video_size: int, workers: int | None
) -> None:
    def render(clip: PlannedClip) -> None:
        frames = render_frames(clip.scene, clip.look_seed, video_size)
        _write_video(videos_dir / clip.file, frames)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for _ in pool.map(render, clips):
            pass


def _write_lists(
    directory: Path, clips: list[PlannedClip], pairs: list[tuple[str, str]], settings: _Settings
) -> None:
    with (directory / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["video", "caption", "split"])
        writer.writerows((c.file, caption, c.split) for c in clips for caption in c.captions)
    caption_of = {clip.file: clip.captions[0] for clip in clips}
    described = [
        {
            "clips": [Path(file).stem for file in pair],
            "captions": [caption_of[file] for file in pair],
        }
        for pair in pairs
    ]
    (directory / "direction_pairs.json").write_text(json.dumps(described, indent=1) + "\n")
    record = json.dumps(dataclasses.asdict(settings), indent=1)
    (directory / "dataset.json").write_text(record + "\n")


def _write_video(path: Path, frames: np.ndarray) -> None:
    import av

    # x264's output depends on its number of threads; with its macroblock tree it even differs from
    # run to run on frames as small as these.
    options = {"preset": "veryfast", "crf": "16", "threads": "1", "x264-params": "mbtree=0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _position(motion: tuple[str, ...], time: float) -> np.ndarray:
    """Returns the place on the path, [x,y] in -1..1, at a time in 0..1."""
    steps = np.array([_STEP[direction] for direction in motion])
    progress = np.clip(time * len(motion) - np.arange(len(motion)), 0, 1)
    return 2 * progress @ steps - steps.sum(axis=0)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    top, bottom = (np.array([40, 46, 58]) + rng.uniform(-14, 14, 3) for _ in range(2))
    blend = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    rows = (1 - blend) * top + blend * bottom
    return np.broadcast_to(rows[:, None, :], (size, size, 3)).astype(np.float32)


def _shape_mask(shape: str, centre: np.ndarray, radius: float, size: int) -> np.ndarray:
    """Returns how much of every pixel the shape covers, float32 [H,W,1] in 0..1."""
    from PIL import Image, ImageDraw

    side = size * _OVERSAMPLING
    # Whole units of the fine grid: a reversed path reaches them in spite of rounding in its sums.
    centre = np.rint(centre * side)
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    reach = round(radius * side)
    if shape == "circle":
        draw.ellipse([*(centre - reach), *(centre + reach)], fill=255)
    else:
        corners = centre + reach * np.array(_CORNERS[shape])
        draw.polygon([tuple(corner) for corner in corners], fill=255)
    coarse = canvas.resize((size, size), Image.Resampling.BOX)
    return np.asarray(coarse, np.float32)[..., None] / 255


def _star() -> list[tuple[float, float]]:
    angles = -np.pi / 2 + np.pi / 5 * np.arange(10)
    radii = np.where(np.arange(10) % 2, 0.45, 1.1)
    return list(zip(radii * np.cos(angles), radii * np.sin(angles), strict=True))


_CORNERS: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0.0, -1.05), (1.05, 0.8), (-1.05, 0.8)],
    "star": _star(),
}
