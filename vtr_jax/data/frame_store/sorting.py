"""Which of the clips asked for are stored, half done, known to be bad, or still to do.

Only reads: `prepare` and its dry run sort by the same rules.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vtr_jax.data.frame_store.bad_clips import BadClipMemory
from vtr_jax.data.frame_store.early_ends import FrameCounts, read_early_ends
from vtr_jax.data.frame_store.finish import find_work, require_same_settings
from vtr_jax.data.frame_store.jobs import ClipJob, is_unchanged
from vtr_jax.data.frame_store.part import MAX_RECORD_BYTES, PartFolder, read_part_counts
from vtr_jax.data.frame_store.report import BadClip
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.frame_store.shards import INFO_FILE
from vtr_jax.data.frame_store.store import DamagedStore, FrameStore


@dataclasses.dataclass(frozen=True)
class EarlierRuns:
    """What earlier runs left in a store's folder.

    store, parts: None where there is none. early: stored clips whose videos end early.
    """

    folder: Path
    store: FrameStore | None
    parts: PartFolder | None
    memory: BadClipMemory
    early: dict[str, FrameCounts]


@dataclasses.dataclass
class SortedClips:
    """The clips asked for, each in one of stored, parts, bad (by clip id) and todo.

    early: those of stored and parts whose videos end early.
    """

    stored: set[str] = dataclasses.field(default_factory=set)
    parts: dict[str, Path] = dataclasses.field(default_factory=dict)
    early: dict[str, FrameCounts] = dataclasses.field(default_factory=dict)
    bad: dict[str, BadClip] = dataclasses.field(default_factory=dict)
    todo: list[ClipJob] = dataclasses.field(default_factory=list)

    def take_part(self, clip_id: str, path: Path) -> None:
        """Counts a clip as decoded into the part file `path`."""
        self.parts[clip_id] = path
        counts = read_part_counts(path)
        if counts.ends_early:
            self.early[clip_id] = counts


def open_earlier(
    folder: Path, settings: StoreSettings, max_record_bytes: int = MAX_RECORD_BYTES
) -> EarlierRuns:
    """Opens what is in a store's folder; ValueError where it was made with other settings."""
    store = None
    if (folder / INFO_FILE).exists():
        store = FrameStore.open(folder)
        require_same_settings(folder, StoreSettings.from_dict(store.settings), settings)
    parts = find_work(folder, settings, max_record_bytes)
    memory = BadClipMemory(folder, settings)
    return EarlierRuns(folder, store, parts, memory, read_early_ends(folder))


def sort_clips(
    jobs: list[ClipJob], missing: dict[str, str], earlier: EarlierRuns, verify: bool
) -> SortedClips:
    """Sorts the clips asked for by what earlier runs did.

    missing: clip id -> what was looked for, of the jobs without a path. verify: read every stored
    record; a damaged one is to be decoded again.
    """
    sorted_clips = SortedClips()
    for job in jobs:
        if _is_stored(job, earlier, verify):
            sorted_clips.stored.add(job.clip_id)
            if job.clip_id in earlier.early:
                sorted_clips.early[job.clip_id] = earlier.early[job.clip_id]
        elif earlier.parts is not None and earlier.parts.has(job):
            sorted_clips.take_part(job.clip_id, earlier.parts.path_of(job.clip_id))
        elif (bad := _known_bad(job, missing, earlier.memory)) is not None:
            sorted_clips.bad[job.clip_id] = bad
        else:
            sorted_clips.todo.append(job)
    return sorted_clips


def _is_stored(job: ClipJob, earlier: EarlierRuns, verify: bool) -> bool:
    store = earlier.store
    if store is None or job.clip_id not in store:
        return False
    row = store.index_of(job.clip_id)
    if verify and not is_whole(store, row):
        return False
    recorded_at = (earlier.folder / INFO_FILE).stat().st_mtime
    return is_unchanged(store.index.source(row), job, recorded_at)


def is_whole(store: FrameStore, row: int) -> bool:
    """Whether the record of a clip can be read and is as it was written."""
    try:
        store.read_record(row)
    except DamagedStore:
        return False
    return True


def _known_bad(job: ClipJob, missing: dict[str, str], memory: BadClipMemory) -> BadClip | None:
    if job.path is None:
        return BadClip(job.clip_id, job.file, f"missing: {missing[job.clip_id]}")
    return memory.recall(job)
