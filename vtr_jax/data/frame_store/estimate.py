"""What preparing would take, in time and in bytes, from a sample of the clips."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vtr_jax.data.frame_store.jobs import ClipJob, list_jobs
from vtr_jax.data.frame_store.part import make_part
from vtr_jax.data.frame_store.report import BadClip, bad_table
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.frame_store.shards import INFO_FILE
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.data.frame_store.workers import usable_cores
from vtr_jax.data.split import Split

_SAMPLE = 24


@dataclasses.dataclass(frozen=True)
class PrepareEstimate:
    """What a run of `prepare` would do; nothing was written.

    clips: clips asked for; stored: of them in the store already; missing: without a file.
    sampled: clips decoded for this estimate, of which bad could not be. seconds: wall time with
    `workers` processes; bytes: of the record files. Both come with their standard error.
    """

    clips: int
    stored: int
    missing: tuple[BadClip, ...]
    sampled: int
    bad: tuple[BadClip, ...]
    workers: int
    seconds: float
    seconds_error: float
    bytes: float
    bytes_error: float
    frames_each: float

    def __str__(self) -> str:
        todo = self.clips - self.stored - len(self.missing)
        lines = [
            f"dry run: {self.clips} clips asked for, {self.stored} already stored, "
            f"{len(self.missing)} without a file, {todo} to decode",
            f"from {self.sampled} of them ({self.frames_each:.1f} frames each): "
            f"{_minutes(self.seconds)} (+- {_minutes(self.seconds_error)}) with {self.workers} "
            f"workers, {self.bytes / 1e6:.1f} MB (+- {self.bytes_error / 1e6:.1f}) of record "
            "files, and as much again on the same disk until they are written",
        ]
        unusable = (*self.missing, *self.bad)
        return "\n".join([*lines, bad_table(unusable)] if unusable else lines)


def estimate(
    splits: Split | Iterable[Split],
    videos_dir: str | os.PathLike[str],
    store_dir: str | os.PathLike[str],
    *,
    workers: int | None = None,
    sample: int = _SAMPLE,
    **settings: Any,
) -> PrepareEstimate:
    """Decodes up to `sample` evenly spaced clips that are not stored yet, and writes nothing.

    settings: fields of StoreSettings, as for `prepare`, which also tells what is raised.
    """
    made_with = StoreSettings(**settings)
    workers = usable_cores() if workers is None else workers
    splits = (splits,) if isinstance(splits, Split) else splits
    jobs, missing = list_jobs(splits, Path(videos_dir), made_with.sampling)
    stored = _stored_ids(Path(store_dir))
    todo = [job for job in jobs if job.path is not None and job.clip_id not in stored]
    seconds, sizes, frames, bad = _measure(todo[:: max(len(todo) // sample, 1)], made_with)
    return PrepareEstimate(
        clips=len(jobs),
        stored=sum(job.clip_id in stored for job in jobs),
        missing=tuple(
            BadClip(job.clip_id, job.file, f"missing: {missing[job.clip_id]}")
            for job in jobs
            if job.path is None and job.clip_id not in stored
        ),
        sampled=len(seconds),
        bad=tuple(bad),
        workers=workers,
        seconds=_mean(seconds) * len(todo) / workers,
        seconds_error=_error(seconds) * len(todo) / workers,
        bytes=_mean(sizes) * len(todo),
        bytes_error=_error(sizes) * len(todo),
        frames_each=_mean(frames),
    )


def _measure(
    jobs: list[ClipJob], settings: StoreSettings
) -> tuple[list[float], list[float], list[float], list[BadClip]]:
    seconds, sizes, frames, bad = [], [], [], []
    for job in jobs:
        begun = time.perf_counter()
        part = make_part(job, settings)
        seconds.append(time.perf_counter() - begun)
        if isinstance(part, BadClip):
            bad.append(part)
            sizes.append(0.0)
        else:
            sizes.append(float(sum(map(len, part.frames))))
            frames.append(float(len(part.frames)))
    return seconds, sizes, frames, bad


def _stored_ids(store_dir: Path) -> set[str]:
    if not (store_dir / INFO_FILE).exists():
        return set()
    return set(FrameStore.open(store_dir).clip_ids)


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _error(values: list[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
