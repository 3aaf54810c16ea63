"""Videos to measure on: rendered pans over textured scenes, H.264 as x264 makes it by default.

    python benchmarks/data_videos.py /tmp/videos

Writes small/*.mp4 (320 x 240, as MSR-VTT's) and large/*.mp4 (1280 x 720, as raw downloads are):
15 seconds at 30 frames a second each, sound left out. Scenes are blurred noise with sharp
shapes that move and a camera's grain.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageFilter

SECONDS, FPS = 15, 30
_GRAIN = 3.0  # standard deviation of what a camera adds to every picture anew
SIZES = {"small": (320, 240), "large": (1280, 720)}


def _scene(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    coarse = rng.integers(0, 256, (height // 24, width // 24, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 14, (height, width, 1))
    textured = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(textured).filter(ImageFilter.GaussianBlur(0.8)))


def render(path: Path, width: int, height: int, seed: int) -> None:
    """Writes one video: three shots of five seconds, each a pan with two moving blocks."""
    rng = np.random.default_rng([seed, width])
    grain = rng.normal(0, _GRAIN, (height, width, 1)).astype(np.float32)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(SECONDS * FPS):
            if index % (SECONDS * FPS // 3) == 0:
                scene = _scene(rng, width * 3 // 2, height * 3 // 2)
                speed = rng.uniform(-0.8, 0.8, 2) * width / 320
                colours = rng.integers(0, 256, (2, 3), np.uint8)
            moved = [int(abs(s) * (index % 150)) for s in speed]
            top, left = (min(m, side // 2) for m, side in zip(moved, (height, width), strict=True))
            picture = scene[top : top + height, left : left + width].copy()
            for number, colour in enumerate(colours):
                x = (index * 2 * (number + 1)) % (width - width // 6)
                y = height // 4 * (number + 1)
                picture[y : y + height // 6, x : x + width // 6] = colour
            shift = rng.integers(0, height)
            picture = np.clip(picture + np.roll(grain, shift, axis=(0, 1)), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def render_all(folder: Path, small: int, large: int) -> dict[str, list[Path]]:
    """The videos of each size, rendered where they are not there yet."""
    videos: dict[str, list[Path]] = {}
    for name, count in (("small", small), ("large", large)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        videos[name] = [folder / name / f"video{number:03d}.mp4" for number in range(count)]
        for number, path in enumerate(videos[name]):
            if not path.exists():
                render(path.with_suffix(".tmp.mp4"), *SIZES[name], number)
                path.with_suffix(".tmp.mp4").rename(path)
    return videos


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", type=int, default=24)
    parser.add_argument("--large", type=int, default=3)
    arguments = parser.parse_args()
    render_all(arguments.folder, arguments.small, arguments.large)
