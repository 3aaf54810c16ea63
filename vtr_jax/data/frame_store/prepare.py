"""`prepare`: video files to a frame store, on all cores, interrupted and continued at will.

    report = prepare([train, test], "videos", "stores/msrvtt", framerate=1, resolution=224)
    print(report)

Each clip becomes a part file (part.py); when all are done, the parts become record files in the
order of clip ids (finish.py). A store may grow: clips of a later run are added to it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from vtr_jax.data.find_files import FoundFiles
from vtr_jax.data.frame_store.beam import BeamRunner
from vtr_jax.data.frame_store.finish import (
    build_store,
    discard_work,
    explained_full_disk,
    install_ready_store,
    open_work,
    require_store_folder,
)
from vtr_jax.data.frame_store.jobs import ClipJob, list_jobs
from vtr_jax.data.frame_store.part import MAX_RECORD_BYTES, PartFolder
from vtr_jax.data.frame_store.report import (
    DECODER_CRASH,
    REPORT_FILE,
    BadClip,
    PrepareReport,
    bad_table,
)
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.frame_store.sorting import SortedClips, is_whole, open_earlier, sort_clips
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.data.frame_store.workers import run_jobs, usable_cores
from vtr_jax.data.overlap import PlannedFrames
from vtr_jax.data.split import Split, check_overlap
from vtr_jax.extras import require_extra
from vtr_jax.lock import only_process
from vtr_jax.progress_bar import progress_bar

_log = logging.getLogger(__name__)
SHARD_BYTES = 256 * 2**20
_SHOWN_IN_ERROR = 5
Outcomes = Iterator[tuple[ClipJob, BadClip | None]]


class TooManyBadVideos(ValueError):
    """More clips than allowed could not be prepared, or lost much; `report` lists them."""

    def __init__(self, report: PrepareReport, max_bad_share: float) -> None:
        self.report = report
        unusable = (*report.bad, *report.early)
        fix = "fix the files and run the same command again (finished clips are kept)"
        if len(report.bad) == report.clips:
            found = f"not one of {report.clips} clips can be prepared: {fix}"
        else:
            found = (
                f"{round(report.bad_share * report.clips)} of {report.clips} clips "
                f"({report.bad_share:.1%}) cannot be prepared or end early, max_bad_share allows "
                f"{max_bad_share:.1%}: {fix}, or allow more"
            )
        super().__init__(
            f"clips with something wrong:\n{bad_table(unusable, _SHOWN_IN_ERROR)}\n{found}; all "
            f"are listed in {report.store_dir / REPORT_FILE}"
        )


def prepare(
    splits: Split | Iterable[Split],
    videos_dir: str | os.PathLike[str],
    store_dir: str | os.PathLike[str],
    *,
    workers: int | None = None,
    max_bad_share: float = 0.05,
    shard_bytes: int = SHARD_BYTES,
    max_record_bytes: int = MAX_RECORD_BYTES,
    verify: bool = False,
    beam_runner: BeamRunner | None = None,
    **settings: Any,
) -> PrepareReport:
    """Decodes the clips of one or more splits into a frame store.

    All frames of the rule are stored. workers: processes, by default one a core; beam_runner
    decodes on Apache Beam instead. Running it again goes on where it was interrupted, adds clips
    that are new or whose file changed, decodes again what a cut off record file lost, and
    otherwise does nothing; verify also reads every stored record. A clip whose frames take more
    than max_record_bytes, which protocol buffers limit, is left out as too large.
    settings: fields of StoreSettings (framerate, resolution, encoding, frame_rule, ...).

    Raises ValueError where splits, settings or an existing store do not fit together,
    FileNotFoundError where there is no videos_dir, TooManyBadVideos, and OSError where another run
    works on the store or the disk is full.
    """
    require_extra("data")  # before hours of decoding: the record files need TensorFlow
    made_with = StoreSettings(**settings)
    workers = usable_cores() if workers is None else workers
    _require_ranges(workers, max_bad_share, shard_bytes)
    if beam_runner is not None:
        beam_runner.check()
    splits = (splits,) if isinstance(splits, Split) else tuple(splits)
    jobs, files = list_jobs(splits, Path(videos_dir), made_with.sampling)
    overlaps = _overlaps(splits, PlannedFrames(files.found, made_with.sampling))
    folder = Path(store_dir)
    require_store_folder(folder, Path(videos_dir))

    def on_this_machine(todo: list[ClipJob], parts: PartFolder) -> Outcomes:
        return run_jobs(todo, parts.make, _crashed, workers)

    with only_process(folder, "preparing this frame store"), explained_full_disk(folder):
        install_ready_store(folder)
        run = _Run(folder, made_with, max_bad_share, max_record_bytes, overlaps)
        run.sort_out(jobs, files, verify)
        run.decode(on_this_machine if beam_runner is None else beam_runner.run)
        return run.finish(shard_bytes)


def _require_ranges(workers: int, max_bad_share: float, shard_bytes: int) -> None:
    if workers < 1:
        raise ValueError(f"workers: expected 1 or more, got {workers}")
    if not 0 <= max_bad_share <= 1:
        raise ValueError(f"max_bad_share: expected a share from 0 to 1, got {max_bad_share}")
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes: expected 1 or more, got {shard_bytes}")


def _overlaps(splits: tuple[Split, ...], frames: PlannedFrames) -> dict[str, list[str]]:
    """Names of the other splits -> ids of their clips that the training split also holds."""
    train = [split for split in splits if split.name == "train"]
    others = [split for split in splits if split.name != "train"]
    found = {other.name: check_overlap(one, other, frames) for one in train for other in others}
    return {name: clip_ids for name, clip_ids in found.items() if clip_ids}


class _Run:
    """One run of `prepare`: which clips are done, which are bad, which are to do."""

    def __init__(
        self,
        folder: Path,
        settings: StoreSettings,
        max_bad_share: float,
        max_record_bytes: int,
        overlaps: dict[str, list[str]],
    ) -> None:
        self._started = time.monotonic()
        self._folder = folder
        self._settings = settings
        self._max_bad_share = max_bad_share
        self._earlier = open_earlier(folder, settings, max_record_bytes)
        self._parts_folder = open_work(folder, settings, max_record_bytes)
        self._overlaps = overlaps
        self._jobs: list[ClipJob] = []
        self._respelled: dict[str, str] = {}
        self._clips = SortedClips()
        self._kept: list[str] = []
        self._already_done = 0
        self._prepared = 0

    def sort_out(self, jobs: list[ClipJob], files: FoundFiles, verify: bool) -> None:
        """Finds what earlier runs did, and refuses to start where too much is known to be bad."""
        self._jobs = jobs
        self._respelled = files.respelled
        self._clips = sort_clips(jobs, files.missing, self._earlier, verify)
        self._already_done = len(self._clips.stored) + len(self._clips.parts)
        store = self._earlier.store
        if store is not None:
            # a clip that is asked for but no longer as it was stored is replaced, or left out
            outdated = {job.clip_id for job in jobs} - self._clips.stored
            others = [clip_id for clip_id in store.clip_ids if clip_id not in outdated]
            self._kept = _whole_ones(store, others) if verify else others
        self._require_few_bad()

    def decode(self, run: Callable[[list[ClipJob], PartFolder], Outcomes]) -> None:
        """Makes the part files that are still to do."""
        todo = self._clips.todo
        progress = progress_bar(
            run(todo, self._parts_folder) if todo else iter(()),
            desc=f"prepare ({self._already_done} already done)",
            initial=len(self._jobs) - len(todo),
            total=len(self._jobs),
            unit=" clips",
        )
        for job, bad in progress:
            if bad is None:
                self._prepared += 1
                self._clips.take_part(job.clip_id, self._parts_folder.path_of(job.clip_id))
            else:
                self._clips.bad[job.clip_id] = bad
                self._earlier.memory.remember(bad, job)
                progress.set_postfix(bad=len(self._clips.bad), refresh=False)

    def finish(self, shard_bytes: int) -> PrepareReport:
        """Turns the parts into the finished store, unless too many clips are bad."""
        self._require_few_bad()
        earlier, clips = self._earlier, self._clips
        before = 0 if earlier.store is None else len(earlier.store)
        damaged = earlier.store is not None and earlier.store.damage
        if clips.parts or len(self._kept) < before or damaged:
            kept = earlier.early.keys() & set(self._kept)
            early = {clip_id: earlier.early[clip_id] for clip_id in kept} | clips.early
            sources = (clips.parts, earlier.store, self._kept)
            lost = build_store(self._folder, *sources, early, self._settings, shard_bytes)
            self._leave_out(lost)
        else:
            discard_work(self._folder)
        store = FrameStore.open(self._folder)
        earlier.memory.forget(store.clip_ids)
        report = self._report(store)
        report.write()
        return report

    def _leave_out(self, lost: list[str]) -> None:
        """Counts clips as bad whose part files are damaged."""
        why = "lost: its decoded frames were damaged on the disk; run the same command again"
        files = {job.clip_id: job.file for job in self._jobs}
        for clip_id in lost:
            self._clips.bad[clip_id] = BadClip(clip_id, files[clip_id], why)
            self._clips.early.pop(clip_id, None)
        if lost:
            self._require_few_bad()

    def _require_few_bad(self) -> None:
        report = self._report(None)
        if len(report.bad) == report.clips or report.bad_share > self._max_bad_share:
            report.write()
            raise TooManyBadVideos(report, self._max_bad_share)

    def _report(self, store: FrameStore | None) -> PrepareReport:
        bad, early = self._clips.bad, self._clips.early
        return PrepareReport(
            store_dir=self._folder,
            clips=len(self._jobs),
            already_done=self._already_done,
            prepared=self._prepared,
            bad=tuple(bad[clip_id] for clip_id in sorted(bad)),
            early=tuple(
                BadClip(job.clip_id, job.file, str(early[job.clip_id]))
                for job in self._jobs
                if job.clip_id in early
            ),
            lost_much=sum(counts.lost_much for counts in early.values()),
            frames=0 if store is None else int(store.num_frames.sum()),
            bytes=0 if store is None else int(store.index.shard_sizes.sum()),
            seconds=time.monotonic() - self._started,
            overlaps=self._overlaps,
            respelled=self._respelled,
        )


def _whole_ones(store: FrameStore, clip_ids: list[str]) -> list[str]:
    whole = [clip_id for clip_id in clip_ids if is_whole(store, store.index_of(clip_id))]
    lost = sorted(set(clip_ids) - set(whole))
    if lost:
        _log.warning("%s: dropped damaged clips of other splits: %s", store.directory, lost)
    return whole


def _crashed(job: ClipJob) -> BadClip:
    return BadClip(job.clip_id, job.file, DECODER_CRASH)
