"""Reading a frame store: any clip's frames at once, by one read of its record."""

from __future__ import annotations

import json
import logging
import os
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vtr_jax.data.frame_store.index import StoreIndex, read_index, scan_records
from vtr_jax.data.frame_store.settings import STORE_VERSION, StoreSettings
from vtr_jax.data.frame_store.shards import DATASET_NAME, INFO_FILE, TFDS_SPLIT
from vtr_jax.data.split import Split
from vtr_jax.data.tensorflow_host import import_tensorflow

_LISTED = 5
_log = logging.getLogger(__name__)


class DamagedStore(OSError):
    """A frame store has a file that is missing, cut off or not what it should be."""


class FrameStore:
    """A directory that `vtr prepare` wrote, opened for reading.

    Threads may share one. Its record files stay open, so that it goes on reading what it was
    opened with where `vtr prepare` replaces the store meanwhile.
    """

    def __init__(
        self,
        directory: Path,
        settings: StoreSettings,
        version: str,
        index: StoreIndex,
        damage: tuple[str, ...] = (),
    ) -> None:
        self._descriptors: list[int] = []
        self.damage = damage
        self.directory = directory
        self.index = index
        self._settings = settings
        self._version = version
        for name in index.shard_names:
            self._descriptors.append(os.open(directory / str(name), os.O_RDONLY))

    @classmethod
    def open(cls, directory: str | os.PathLike[str], damaged: str = "skip") -> FrameStore:
        """Opens a store; makes its index again where that is absent or older than the records.

        damaged: "skip" leaves out the clips that a record file lost (it is cut off, or unreadable
        from some place on), warns, and lists the files in `damage`; they then count as not
        stored. "fatal" raises DamagedStore instead.

        Raises FileNotFoundError where there is no finished store, ValueError where a newer
        version of the program wrote it, and DamagedStore naming the file that is at fault.
        """
        if damaged not in ("skip", "fatal"):
            raise ValueError(f"damaged: expected 'skip' or 'fatal', got {damaged!r}")
        folder = Path(directory)
        info = _read_dataset_info(folder)
        shard_lengths = _shard_lengths(info, folder)
        settings = StoreSettings.from_dict(_read_json(folder / "metadata.json"))
        _require_shards(folder, len(shard_lengths))
        index, damage = _readable_index(folder)
        messages = _describe_damage(folder, index, damage, shard_lengths)
        if messages and damaged == "fatal":
            raise DamagedStore("; ".join(messages))
        for message in messages:
            _log.warning("%s", message)
        return cls(folder, settings, info["version"], index, tuple(messages))

    @property
    def settings(self) -> dict[str, Any]:
        """What the store was made with: framerate, resolution, encoding, ... and version."""
        return {**self._settings.as_dict(), "version": self._version}

    @property
    def num_frames(self) -> np.ndarray:
        """Frames of each clip, int32 [N]."""
        return self.index.num_frames

    @cached_property
    def clip_ids(self) -> tuple[str, ...]:
        """Ids of the stored clips, in the order of the records."""
        return tuple(self.index.clip_ids.tolist())

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {clip_id: row for row, clip_id in enumerate(self.clip_ids)}

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._rows

    def index_of(self, clip_id: str) -> int:
        """The row of a clip; KeyError says how to add it."""
        try:
            return self._rows[clip_id]
        except KeyError:
            raise KeyError(
                f"clip {clip_id!r} is not in the frame store {self.directory}: "
                "add it with `vtr prepare`"
            ) from None

    def read_record(self, index: int) -> bytes:
        """The serialised tf.train.Example of a row."""
        offset, length = int(self.index.offsets[index]), int(self.index.lengths[index])
        try:
            record = os.pread(self._descriptors[self.index.shards[index]], length, offset)
        except OSError as error:
            raise DamagedStore(f"{self.name_of(index)} cannot be read: {error}") from error
        if zlib.crc32(record) != self.index.checksums[index]:
            raise DamagedStore(
                f"{self.name_of(index)} is damaged; run the same `vtr prepare` again with "
                "--verify, which decodes damaged clips again"
            )
        return record

    def read(self, index: int) -> list[bytes]:
        """All stored frames of a row in time order, as encoded images.

        Raises DamagedStore naming shard and clip where the record is not as it was written.
        """
        record = self.read_record(index)
        feature = import_tensorflow().train.Example.FromString(record).features.feature
        return list(feature["frames"].bytes_list.value)

    def name_of(self, index: int) -> str:
        """Record file and clip of a row, for messages."""
        shard = self.directory / str(self.index.shard_names[self.index.shards[index]])
        return f"{shard}: record of clip {self.clip_ids[index]!r}"

    def close(self) -> None:
        """Closes the record files; the store cannot be read any more."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __del__(self) -> None:
        self.close()

    def check_covers(self, split: Split) -> list[str]:
        """Ids of the clips of a split that are not stored, in the split's order."""
        return [clip.clip_id for clip in split.clips if clip.clip_id not in self]

    def require_covers(self, split: Split) -> None:
        """Raises ValueError naming clips of the split that are not stored, if there are any."""
        missing = self.check_covers(split)
        if missing:
            more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
            raise ValueError(
                f"{self.directory}: {len(missing)} of the {len(split.clips)} clips of "
                f"{split.dataset} {split.name} are not in this frame store: "
                f"{', '.join(missing[:_LISTED])}{more}. Add them with `vtr prepare` (--splits=all "
                "where it prepared other splits only; its report.json tells why clips were left "
                "out), or leave them out: --config.data.skip_missing=True of `vtr train`, "
                f"--skip_missing of `vtr evaluate`{'; '.join(['', *self.damage])}"
            )

    def covered_part(self, split: Split) -> tuple[Split, list[str]]:
        """The split without the clips that are not stored, and the ids of those."""
        missing = set(self.check_covers(split))
        kept = [clip.clip_id for clip in split.clips if clip.clip_id not in missing]
        if not kept:
            raise ValueError(
                f"{self.directory}: none of the {len(split.clips)} clips of {split.dataset} "
                f"{split.name} is in this frame store: add them with `vtr prepare`"
            )
        return split.restrict(kept), sorted(missing)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError) as error:
        raise DamagedStore(
            f"{path}: missing or damaged ({error}); delete the store and run `vtr prepare` again"
        ) from error


def _read_dataset_info(folder: Path) -> dict[str, Any]:
    path = folder / INFO_FILE
    if not path.exists():
        raise FileNotFoundError(
            f"{folder}: no finished frame store there (no {INFO_FILE}); make it, or finish "
            "it after an interruption, with `vtr prepare`"
        )
    info = _read_json(path)
    if info.get("name") != DATASET_NAME:
        raise ValueError(
            f"{path}: expected a dataset named {DATASET_NAME!r}, found {info.get('name')!r}; "
            "this is no frame store of vtr_jax"
        )
    if _version_key(info["version"]) > _version_key(STORE_VERSION):
        raise ValueError(
            f"{path}: frame store of version {info['version']}, this program reads up to "
            f"{STORE_VERSION}; update vtr_jax"
        )
    return info


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _shard_lengths(info: dict[str, Any], folder: Path) -> list[int]:
    for tfds_split in info.get("splits", []):
        if tfds_split["name"] == TFDS_SPLIT:
            return [int(length) for length in tfds_split["shardLengths"]]
    raise DamagedStore(f"{folder / INFO_FILE}: no split {TFDS_SPLIT!r} in it")


def _require_shards(folder: Path, count: int) -> None:
    names = [
        f"{DATASET_NAME}-{TFDS_SPLIT}.tfrecord-{shard:05d}-of-{count:05d}" for shard in range(count)
    ]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DamagedStore(
            f"{folder}: {len(missing)} of {count} record files are missing: "
            f"{', '.join(missing[:_LISTED])}; restore them, or delete the store and run "
            "`vtr prepare` again"
        )


def _readable_index(folder: Path) -> tuple[StoreIndex, dict[int, str]]:
    index = read_index(folder)
    if index is not None and index.describes(folder):
        return index.readable_part(folder)
    _log.info("%s: making the index from the record files", folder)
    index, damage = scan_records(folder)
    if damage:  # not kept: a restored record file must count again
        return index, damage
    try:
        index.write(folder)
    except OSError as error:
        _log.warning("%s: the index cannot be kept (%s); it is made at every start", folder, error)
    return index, damage


def _describe_damage(
    folder: Path, index: StoreIndex, damage: dict[int, str], shard_lengths: list[int]
) -> list[str]:
    """One line a damaged record file; raises DamagedStore where a whole one does not fit."""
    counted = np.bincount(index.shards, minlength=len(shard_lengths)).tolist()
    for shard, (found, expected) in enumerate(zip(counted, shard_lengths, strict=True)):
        if found > expected or (found < expected and shard not in damage):
            raise DamagedStore(
                f"{folder}: {INFO_FILE} counts {shard_lengths} clips in the record files, "
                f"they hold {counted}; delete the store and run `vtr prepare` again"
            )
    return [
        f"{folder / str(index.shard_names[shard])}: {found}: "
        f"{shard_lengths[shard] - counted[shard]} of its {shard_lengths[shard]} clips are left "
        "out; restore it, or run the same `vtr prepare` again, which decodes them again"
        for shard, found in damage.items()
    ]
