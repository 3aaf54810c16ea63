"""What preparing costs and saves: sparse decoding, and a frame store beside the "compress" step.

    python benchmarks/data_preparing.py /tmp/videos --output preparing.jsonl

The originals first compress every video with ffmpeg (3 frames a second, short side 224, H.264 at
CRF 23) and decode the result again for every caption; here PyAV's own x264 does it, at the same
settings. One JSON line a video, then medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
from data_videos import render_all

from vtr_jax.data import decode
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.frame_store.jobs import ClipJob
from vtr_jax.data.frame_store.part import Part, make_part
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.resize import resize_short_side
from vtr_jax.data.sampling import sample_pictures
from vtr_jax.data.video import read_video

RULES = {"opencv": Sampling("opencv"), "xpool": Sampling("xpool")}


def cpu_seconds(call: Callable[[], object]) -> float:
    """User and system time of one call, all threads."""
    begun = sum(os.times()[:2])
    call()
    return sum(os.times()[:2]) - begun


def compress(path: Path, target: Path) -> None:
    """The originals' compress step: every tenth frame of 30 a second, short side 224, CRF 23."""
    with av.open(str(path)) as source, av.open(str(target), "w") as file:
        stream = None
        for index, frame in enumerate(source.decode(video=0)):
            if index % 10:
                continue
            picture = resize_short_side(frame.to_ndarray(format="rgb24"), 224)
            height, width = (side // 2 * 2 for side in picture.shape[:2])
            if stream is None:
                stream = file.add_stream("libx264", rate=Fraction(3), options={"crf": "23"})
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            picture = np.ascontiguousarray(picture[:height, :width])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if stream is not None:
            file.mux(stream.encode(None))


def pictures_of(path: Path, sampling: Sampling, sparse: bool) -> list[np.ndarray]:
    """The pictures of a rule, decoded sparsely or from the first frame on."""
    never = 10**9
    with mock.patch.multiple(
        decode, SPARSE=decode.SPARSE if sparse else never, SEEK_FROM=300 if sparse else never
    ):
        return [picture for _, picture in sample_pictures(path, sampling).pictures]


def measure(path: Path, folder: Path) -> dict[str, Any]:
    """Seconds of CPU and bytes of one video."""
    line: dict[str, Any] = {"video": f"{path.parent.name}/{path.name}"}
    for rule, sampling in RULES.items():
        shown: dict[bool, list[np.ndarray]] = {}
        for sparse in (False, True):
            begun = time.process_time()
            shown[sparse] = pictures_of(path, sampling, sparse)
            line[f"{rule}_{'sparse' if sparse else 'whole'}_s"] = time.process_time() - begun
        line[f"{rule}_equal"] = all(map(np.array_equal, shown[False], shown[True]))
    job = ClipJob(path.stem, path.name, path)
    parts: list[Part] = []

    def store() -> None:
        part = make_part(folder / "part.npz", job, StoreSettings())
        assert isinstance(part, Part), part
        parts.append(part)

    line["store_s"] = cpu_seconds(store)
    target = folder / f"{path.parent.name}-{path.name}"
    line["compress_s"] = cpu_seconds(lambda: compress(path, target))
    line["read_compressed_s"] = cpu_seconds(lambda: read_video(target, thread_type="NONE"))
    line["video_bytes"] = path.stat().st_size
    line["compressed_bytes"] = target.stat().st_size
    line["store_bytes"] = sum(parts[0].sizes)
    line["store_frames"] = len(parts[0].sizes)
    return line


def main() -> None:
    """Renders videos where absent, measures each, prints JSON lines and medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=8, help="small ones at most")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    videos = render_all(arguments.folder, 24, 3)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for path in [*videos["small"][: arguments.videos], *videos["large"]]:
            lines.append(measure(path, Path(folder)))
            print(json.dumps(lines[-1]), flush=True)
    if arguments.output:
        arguments.output.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for size in videos:
        of_size = [line for line in lines if str(line["video"]).startswith(size)]
        for name in [name for name in of_size[0] if name != "video"]:
            print(f"{size:<8}{name:<24}{statistics.median(line[name] for line in of_size):>14.4g}")


if __name__ == "__main__":
    main()
