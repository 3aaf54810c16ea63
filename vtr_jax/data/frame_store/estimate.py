"""What preparing would take, in time and in bytes, from a sample of the clips."""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vtr_jax.data.frame_store.jobs import ClipJob, list_jobs
from vtr_jax.data.frame_store.part import encode_clip
from vtr_jax.data.frame_store.report import DECODER_CRASH, BadClip, bad_table
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.frame_store.shards import store_features
from vtr_jax.data.frame_store.sorting import open_earlier, sort_clips
from vtr_jax.data.frame_store.workers import run_jobs, usable_cores
from vtr_jax.data.split import Split

_SAMPLE = 24


@dataclasses.dataclass(frozen=True)
class PrepareEstimate:
    """What a run of `prepare` would do; nothing was written.

    clips: clips asked for; stored: of them in the store already; decoded: by a run that was
    interrupted; known_bad: without a file, or found bad by an earlier run. sampled: clips decoded
    for this estimate, of which bad could not be. seconds: wall time with `workers` processes,
    their start included; bytes: that come to the record files. Both come with the standard error
    of the sample.
    """

    clips: int
    stored: int
    decoded: int
    known_bad: tuple[BadClip, ...]
    sampled: int
    bad: tuple[BadClip, ...]
    workers: int
    seconds: float
    seconds_error: float
    bytes: float
    bytes_error: float
    frames_each: float

    def __str__(self) -> str:
        todo = self.clips - self.stored - self.decoded - len(self.known_bad)
        lines = [
            f"dry run: {self.clips} clips asked for, {self.stored} already stored, "
            f"{self.decoded} decoded by an interrupted run, {len(self.known_bad)} without a file "
            f"or known to be bad, {todo} to decode",
        ]
        if todo:
            lines.append(
                f"from {self.sampled} of them ({self.frames_each:.1f} frames each): "
                f"{_minutes(self.seconds)} (+- {_minutes(self.seconds_error)}) with "
                f"{self.workers} worker{'s' if self.workers > 1 else ''}, "
                f"{self.bytes / 1e6:.1f} MB (+- {self.bytes_error / 1e6:.1f}) of record files, and "
                "as much again on the same disk until they are written"
            )
        unusable = (*self.known_bad, *self.bad)
        return "\n".join([*lines, bad_table(unusable)] if unusable else lines)


def estimate(
    splits: Split | Iterable[Split],
    videos_dir: str | os.PathLike[str],
    store_dir: str | os.PathLike[str],
    *,
    workers: int | None = None,
    sample: int = _SAMPLE,
    verify: bool = False,
    **settings: Any,
) -> PrepareEstimate:
    """Decodes up to `sample` evenly spaced clips of those to decode, and writes nothing.

    The sample is decoded in a worker process, whose start is measured too. verify and settings:
    as for `prepare`, which also tells what is raised.
    """
    made_with = StoreSettings(**settings)
    workers = usable_cores() if workers is None else workers
    splits = (splits,) if isinstance(splits, Split) else splits
    jobs, files = list_jobs(splits, Path(videos_dir), made_with.sampling)
    loading = _seconds_to_load(made_with)
    clips = sort_clips(jobs, files.missing, open_earlier(Path(store_dir), made_with), verify)
    measured, starting = _measure(_evenly(clips.todo, sample), made_with)
    seconds = [each.seconds for each in measured]
    sizes = [float(each.bytes) for each in measured]
    good = [each for each in measured if each.bad is None]
    in_parallel = max(min(workers, len(clips.todo)), 1)
    return PrepareEstimate(
        clips=len(jobs),
        stored=len(clips.stored),
        decoded=len(clips.parts),
        known_bad=tuple(clips.bad[clip_id] for clip_id in sorted(clips.bad)),
        sampled=len(measured),
        bad=tuple(each.bad for each in measured if each.bad is not None),
        workers=workers,
        seconds=_mean(seconds) * len(clips.todo) / in_parallel + starting + loading,
        seconds_error=_error(seconds) * len(clips.todo) / in_parallel,
        bytes=_mean(sizes) * len(clips.todo),
        bytes_error=_error(sizes) * len(clips.todo),
        frames_each=_mean([float(each.frames) for each in good]),
    )


def _evenly(jobs: list[ClipJob], sample: int) -> list[ClipJob]:
    places = np.linspace(0, len(jobs) - 1, min(sample, len(jobs))).round().astype(int)
    return [jobs[place] for place in places]


def _seconds_to_load(settings: StoreSettings) -> float:
    """What the first use of the libraries that write record files costs this process."""
    begun = time.perf_counter()
    store_features(settings)
    return time.perf_counter() - begun


class _Measured(NamedTuple):
    seconds: float
    bytes: int
    frames: int
    bad: BadClip | None


def _measure(jobs: list[ClipJob], settings: StoreSettings) -> tuple[list[_Measured], float]:
    """What each job gave, and the seconds that the worker process itself cost."""
    begun = time.perf_counter()
    make = functools.partial(_measured, settings=settings)
    measured = [each for _, each in run_jobs(jobs, make, _crashed, workers=1)]
    return measured, time.perf_counter() - begun - sum(each.seconds for each in measured)


def _measured(job: ClipJob, settings: StoreSettings) -> _Measured:
    begun = time.perf_counter()
    sizes: list[int] = []
    frames = encode_clip(job, settings)
    while True:
        try:
            sizes.append(len(next(frames)))
        except StopIteration as end:
            bad = end.value if isinstance(end.value, BadClip) else None
            break
    seconds = time.perf_counter() - begun
    if bad is not None:
        return _Measured(seconds, 0, 0, bad)
    return _Measured(seconds, sum(sizes), len(sizes), None)


def _crashed(job: ClipJob) -> _Measured:
    return _Measured(0.0, 0, 0, BadClip(job.clip_id, job.file, DECODER_CRASH))


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _error(values: list[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
