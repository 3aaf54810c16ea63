"""Host CPU a training clip costs: from the frame store, and decoded anew as the originals do.

    pip install opencv-python-headless   # the peer; nothing else here needs it
    python benchmarks/data_feeding.py /tmp/videos --output feeding.jsonl

A clip is 12 frames of 224 x 224, uniform among one a second. Every way runs in one process on the
same videos, round after round; a JSON line each, then one table of medians. The videos are rendered
ones (data_videos.py) of two sizes, and ../shared/videos/video7500.mp4 (MSR-VTT's, compressed to 3
frames a second as the originals do) where it is there: `--videos video7500` measures that alone.
CPU seconds are the process's user and system time, all threads together; on a shared machine they
hold where frames a second of wall time do not.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data_videos import render_all
from PIL import Image

from vtr_jax.data.augmentation import RAND_AUGMENT, RandAugment
from vtr_jax.data.batch_plan import BatchPlan
from vtr_jax.data.frame_choice import slice_positions
from vtr_jax.data.frame_store import FrameStore, prepare
from vtr_jax.data.frame_stream import FrameChoice
from vtr_jax.data.pipeline import training_batches
from vtr_jax.data.pixels import PIXEL_MEAN, PIXEL_STD
from vtr_jax.data.split import Split, VideoClip
from vtr_jax.data.text import tokenize
from vtr_jax.data.video import read_video

FRAMES, SIDE, BATCH = 12, 224, 3
RECORDED = Path(__file__).parents[2] / "shared" / "videos" / "video7500.mp4"
STORES: dict[str, dict[str, Any]] = {
    "store": {},
    "store q85": {"jpeg_quality": 85},
    "store whole": {"stored_side": 256},
}


def split_of(videos: list[Path]) -> Split:
    """One clip and caption a video file; one that comes again is another clip."""
    clips = tuple(VideoClip(f"{path.stem}-{n}", path.name) for n, path in enumerate(videos))
    captions = tuple(f"a video named {clip.clip_id}" for clip in clips)
    return Split("benchmark", "train", clips, captions, np.arange(len(clips)))


def videos_of(folder: Path, names: list[str]) -> dict[str, list[Path]]:
    """The videos of each name; rendered ones are made in `folder`, absent recorded ones skipped."""
    videos = render_all(folder, 24, 3) if {"small", "large"} & set(names) else {}
    if RECORDED.exists():
        videos[RECORDED.stem] = [RECORDED] * BATCH
    else:
        print(f"{RECORDED} is not there: no row of it")
    return {name: paths for name, paths in videos.items() if name in names}


def read_opencv(path: Path) -> np.ndarray:
    """One clip as CLIP4Clip's loader makes it: a seek a second, all frames transformed, then 12."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    count, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), int(capture.get(cv2.CAP_PROP_FPS))
    frames = []
    for second in range(-(-count // fps) + 1):
        capture.set(cv2.CAP_PROP_POS_FRAMES, second * fps)
        found, bgr = capture.read()
        if not found:
            break
        frames.append(transform(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)))
    capture.release()
    return np.stack(frames)[slice_positions(len(frames), FRAMES, 2)]


def transform(picture: np.ndarray) -> np.ndarray:
    """Resize, crop and normalise, as torchvision does for the originals: float32 [3,224,224]."""
    image = Image.fromarray(picture)
    short = min(image.size)
    width, height = (SIDE * side // short for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32)
    return ((pixels / 255 - PIXEL_MEAN) / PIXEL_STD).transpose(2, 0, 1)


def decode_each(videos: list[Path], read: Callable[[Path], object]) -> int:
    """Reads every video once; returns how many clips that were."""
    for path in videos:
        read(path)
    return len(videos)


def from_store(directory: Path, split: Split, batches: int, augmentation: str = "none") -> int:
    """So many training batches; returns how many clips that were."""
    store = FrameStore.open(directory)
    stream = training_batches(
        store,
        split,
        tokenize(split.captions),
        BatchPlan.of(split, BATCH, seed=0),
        FrameChoice(FRAMES, augmentation=RandAugment.parse(augmentation)),
        stop_step=batches,
    )
    return sum(len(batch["frames"]) for batch in stream)


def ways_to_read(
    videos: dict[str, list[Path]], stores: Path, batches: int
) -> dict[str, Callable[[], int]]:
    """Every way that is compared, by name; the stores are made here."""
    ways: dict[str, Callable[[], int]] = {}
    for size, paths in videos.items():
        opencv = functools.partial(decode_each, paths, read_opencv)
        pyav = functools.partial(
            decode_each, paths, functools.partial(read_video, thread_type="NONE")
        )
        ways[f"{size}: OpenCV, seeking"] = opencv
        ways[f"{size}: PyAV, read_video"] = pyav
        split = split_of(paths)
        for name, options in STORES.items():
            directory = stores / size / name.replace(" ", "-")
            prepare(split, paths[0].parent, directory, workers=1, **options)
            ways[f"{size}: {name}"] = functools.partial(from_store, directory, split, batches)
        for name in ("store", "store whole"):
            directory = stores / size / name.replace(" ", "-")
            ways[f"{size}: {name}, RandAugment"] = functools.partial(
                from_store, directory, split, batches, RAND_AUGMENT
            )
    return ways


def measure(way: Callable[[], int]) -> dict[str, float]:
    """Clips, wall seconds and CPU seconds of one run."""
    wall, cpu = time.perf_counter(), sum(os.times()[:2])
    clips = way()
    return {
        "clips": clips,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": sum(os.times()[:2]) - cpu,
    }


def table(lines: list[dict[str, object]]) -> str:
    """Medians by way: CPU a clip and per 1,000 frames, frames a second, and how many times less."""
    rows = [f"{'way':<36}{'CPU ms/clip':>12}{'CPU s/1000 fr':>14}{'frames/s':>10}{'less CPU':>10}"]
    reference: dict[str, float] = {}
    for name in dict.fromkeys(str(line["way"]) for line in lines):
        runs = [line for line in lines if line["way"] == name]
        cpu = statistics.median(float(r["cpu_s"]) / float(r["clips"]) for r in runs)  # type: ignore[arg-type]
        wall = statistics.median(float(r["wall_s"]) / float(r["clips"]) for r in runs)  # type: ignore[arg-type]
        size = name.split(":")[0]
        reference.setdefault(size, cpu)
        rows.append(
            f"{name:<36}{cpu * 1e3:>12.1f}{cpu / FRAMES * 1e3:>14.2f}{FRAMES / wall:>10.0f}"
            f"{reference[size] / cpu:>9.1f}x"
        )
    return "\n".join(rows)


def main() -> None:
    """Renders videos and stores where absent, measures, prints JSON lines and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=120, help="from a store, a round")
    parser.add_argument("--videos", default="small,large,video7500", help="which, with commas")
    parser.add_argument("--only", default="", help="a pattern in the names of the ways to run")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    videos = videos_of(arguments.folder, arguments.videos.split(","))
    with tempfile.TemporaryDirectory() as stores:
        ways = ways_to_read(videos, Path(stores), arguments.batches)
        ways = {name: way for name, way in ways.items() if re.search(arguments.only, name)}
        lines: list[dict[str, object]] = []
        for name, way in ways.items():
            if "store" in name:
                way()  # TensorFlow's first run builds its graph
        for round_number in range(arguments.rounds):
            for name, way in ways.items():
                line = {"way": name, "round": round_number, **measure(way)}
                line["load"] = os.getloadavg()[0]
                lines.append(line)
                print(json.dumps(line), flush=True)
    if arguments.output:
        arguments.output.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(table(lines))


if __name__ == "__main__":
    main()
