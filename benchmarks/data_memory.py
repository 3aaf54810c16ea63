"""Memory of the input pipeline: how many batches it holds at once, whatever their size.

    python benchmarks/data_memory.py /tmp/videos

Reads training batches of 2 and of 12 clips of 12 frames as a slow consumer does, so that everything
read ahead is there, and prints a JSON line each: by how much the peak of resident memory grew, in
batches.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from data_feeding import FRAMES, SIDE, split_of
from data_videos import render_all

from vtr_jax.data.batch_plan import BatchPlan
from vtr_jax.data.frame_store import FrameStore, prepare
from vtr_jax.data.frame_stream import FrameChoice
from vtr_jax.data.pipeline import training_batches
from vtr_jax.data.text import tokenize


def peak_mib() -> float:
    """Highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measures with two sizes of batch, the second larger, so that peaks only grow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    videos = render_all(parser.parse_args().folder, 12, 0)["small"]
    split = split_of(videos)
    with tempfile.TemporaryDirectory() as folder:
        prepare(split, videos[0].parent, folder, workers=1)
        store = FrameStore.open(folder)
        for batch_size in (2, 12):
            before = peak_mib()
            batches = training_batches(
                store,
                split,
                tokenize(split.captions),
                BatchPlan.of(split, batch_size, seed=0),
                FrameChoice(FRAMES),
                stop_step=6,
            )
            for _ in batches:
                time.sleep(0.5)
            batch_mib = batch_size * FRAMES * SIDE * SIDE * 3 / 2**20
            grown = peak_mib() - before
            line = {"batch_size": batch_size, "batch_mib": batch_mib, "grown_mib": grown}
            print(json.dumps(line | {"batches_held": grown / batch_mib}), flush=True)


if __name__ == "__main__":
    main()
