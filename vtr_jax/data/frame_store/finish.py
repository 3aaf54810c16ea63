"""The last steps of `prepare`: parts become record files, and these replace the old store."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vtr_jax.data.frame_store.early_ends import FrameCounts, write_early_ends
from vtr_jax.data.frame_store.index import INDEX_FILE, index_of, row_of
from vtr_jax.data.frame_store.part import MAX_RECORD_BYTES, DamagedPart, PartFolder, open_part
from vtr_jax.data.frame_store.record import record_of
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.frame_store.shards import (
    INFO_FILE,
    SHARD_PATTERN,
    Record,
    write_metadata,
    write_shards,
)
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.data.tensorflow_host import import_tensorflow
from vtr_jax.files import write_atomically
from vtr_jax.progress_bar import LOG_SECONDS, progress_bar

_log = logging.getLogger(__name__)
WORK_FOLDER = ".work"
_WORK_SETTINGS = "settings.json"
_PARTS = "parts"
_NEW_STORE = "new"
_READY = "ready.json"
_DISCARDED = ".work-discarded"


@contextlib.contextmanager
def explained_full_disk(store_dir: Path) -> Iterator[None]:
    """Says what to do where the disk fills up; the store as it was is untouched until the end."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            f"{store_dir}: the disk is full ({error.strerror}); make room and run the same "
            "command again: finished clips are kept, and a store that was there can be read on"
        ) from error


def require_store_folder(store_dir: Path, videos_dir: Path) -> None:
    """Raises ValueError or OSError where no store can be made; warns of one among the videos."""
    if store_dir.exists() and not store_dir.is_dir():
        raise NotADirectoryError(f"{store_dir}: is a file, expected the folder of a frame store")
    store, videos = store_dir.resolve(), videos_dir.resolve()
    if store == videos:
        raise ValueError(
            f"{store_dir}: is the folder of the videos, expected a folder of the store's own"
        )
    if store.is_relative_to(videos):
        _log.warning(
            "%s: the store lies inside the folder of the videos, %s; that works, but the two are "
            "then moved, copied and searched together",
            store_dir,
            videos_dir,
        )


def open_work(
    store_dir: Path, settings: StoreSettings, max_record_bytes: int = MAX_RECORD_BYTES
) -> PartFolder:
    """Opens the folder of clips that are decoded but not yet in record files, or makes it.

    Raises ValueError where unfinished work with other settings is there.
    """
    work = store_dir / WORK_FOLDER
    if find_work(store_dir, settings) is None:
        discard_work(store_dir)
        work.mkdir()
        write_atomically(work / _WORK_SETTINGS, json.dumps(settings.as_dict()).encode())
    for unfinished in work.rglob("*.tmp"):
        unfinished.unlink(missing_ok=True)
    return PartFolder(work / _PARTS, settings, max_record_bytes)


def find_work(
    store_dir: Path, settings: StoreSettings, max_record_bytes: int = MAX_RECORD_BYTES
) -> PartFolder | None:
    """Finds the folder of clips that an interrupted run has decoded; None where there is none.

    Raises ValueError where it was made with other settings.
    """
    work = store_dir / WORK_FOLDER
    if not (work / _WORK_SETTINGS).exists():
        return None
    found = StoreSettings.from_dict(json.loads((work / _WORK_SETTINGS).read_text()))
    require_same_settings(work, found, settings)
    return PartFolder(work / _PARTS, settings, max_record_bytes)


def require_same_settings(place: Path, found: StoreSettings, wanted: StoreSettings) -> None:
    """Raises ValueError saying which settings of a store differ from those wanted."""
    differences = found.differences(wanted)
    if differences:
        raise ValueError(
            f"{place} was made with {'; '.join(differences)}: use the same settings, another "
            "store directory, or delete this one"
        )


def build_store(
    store_dir: Path,
    parts: dict[str, Path],
    old_store: FrameStore | None,
    kept: Iterable[str],
    early: Mapping[str, FrameCounts],
    settings: StoreSettings,
    shard_bytes: int,
) -> list[str]:
    """Write a new store from part files and from records of the old one, then install it.

    Clips are in the order of their ids, so the result does not depend on how it was made.

    Args:
        store_dir: the folder of the store.
        parts: clip id -> part file.
        old_store: the store as it is, None where there is none.
        kept: clip ids whose records are taken over from `old_store`.
        early: those of both that end early, to be noted.
        settings: of the store.
        shard_bytes: size at which a record file is full.

    Returns:
        ids of clips whose part files are damaged: they are left out, and their part files removed.

    Raises:
        OSError: the disk is too full, before anything is written.
    """
    kept = set(kept)
    _require_space(store_dir, parts, old_store, kept)
    new = store_dir / WORK_FOLDER / _NEW_STORE
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    lost: list[str] = []
    import_tensorflow()  # its seconds are not those of the first record
    try:
        lengths, rows = write_shards(_records(parts, old_store, kept, lost), new, shard_bytes)
        if rows:
            write_metadata(new, settings, lengths)
            index_of(new, rows).write(new)
            write_early_ends(new, {name: early[name] for name in early if name not in lost})
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if not rows:
        shutil.rmtree(new)
        return lost
    names = sorted(path.name for path in new.iterdir())
    write_atomically(store_dir / WORK_FOLDER / _READY, json.dumps(names).encode())
    install_ready_store(store_dir)
    return lost


def _records(
    parts: dict[str, Path], old_store: FrameStore | None, kept: set[str], lost: list[str]
) -> Iterator[Record]:
    """Yield the records in order; add the ids of clips whose parts are damaged to `lost`."""
    clip_ids = sorted(kept | parts.keys())
    for clip_id in progress_bar(
        clip_ids, wait=LOG_SECONDS, desc="write record files", unit=" clips"
    ):
        if clip_id in parts:
            try:
                yield _new_record(parts[clip_id])
            except DamagedPart as error:
                _log.warning("%s", error)
                parts[clip_id].unlink()
                lost.append(clip_id)
        elif old_store is not None:
            row = old_store.index_of(clip_id)
            yield Record(old_store.read_record(row), old_store.index.row(row))


def _new_record(path: Path) -> Record:
    with open_part(path) as (part, frames):
        return Record(record_of(part, frames), row_of(part))


def _require_space(
    store_dir: Path, parts: dict[str, Path], old_store: FrameStore | None, kept: set[str]
) -> None:
    needed = sum(path.stat().st_size for path in parts.values())
    if old_store is not None:
        needed += sum(int(old_store.index.lengths[old_store.index_of(c)]) for c in kept)
    free = shutil.disk_usage(store_dir).free
    if free < needed:
        raise OSError(
            f"{store_dir}: the record files need {needed / 1e6:.1f} MB more, {free / 1e6:.1f} MB "
            "are free; make room and run the same command again, finished clips are kept"
        )


def install_ready_store(store_dir: Path) -> None:
    """Puts a completely written new store in the old one's place; nothing to do where none is.

    May be interrupted anywhere and run again. Until it has ended there is no dataset_info.json,
    so that nobody reads half a store.
    """
    work = store_dir / WORK_FOLDER
    if (work / _READY).exists():
        names = json.loads((work / _READY).read_text())
        if (work / _NEW_STORE / INFO_FILE).exists():
            (store_dir / INFO_FILE).unlink(missing_ok=True)
        for old in [*store_dir.glob(SHARD_PATTERN), store_dir / INDEX_FILE]:
            if old.name not in names:
                old.unlink(missing_ok=True)
        for name in sorted(names, key=lambda name: name == INFO_FILE):
            if (work / _NEW_STORE / name).exists():
                os.replace(work / _NEW_STORE / name, store_dir / name)
        discard_work(store_dir)


def discard_work(store_dir: Path) -> None:
    """Removes the folder of unfinished work, and what an interruption left of removing it."""
    discarded = store_dir / _DISCARDED
    shutil.rmtree(discarded, ignore_errors=True)
    if (store_dir / WORK_FOLDER).exists():
        # renamed first: half-removed work must not be taken for work to go on with
        os.replace(store_dir / WORK_FOLDER, discarded)
        shutil.rmtree(discarded)
