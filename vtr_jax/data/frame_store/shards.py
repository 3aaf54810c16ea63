"""The record files of a frame store, in tensorflow-datasets' format."""

from __future__ import annotations

import contextlib
import errno
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vtr_jax.data.frame_store.settings import STORE_VERSION, StoreSettings
from vtr_jax.data.tensorflow_host import import_tensorflow

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

DATASET_NAME = "frame_store"
TFDS_SPLIT = "clips"
INFO_FILE = "dataset_info.json"  # tensorflow-datasets gives it this name
SHARD_PATTERN = f"{DATASET_NAME}-{TFDS_SPLIT}.tfrecord-*"
# a record file frames each record by its length (8 bytes), two checksums (4 bytes each)
BEFORE_RECORD = 12
AFTER_RECORD = 4
_DESCRIPTION = "Frames of video clips, resized and cropped, made by vtr_jax."


def store_features(settings: StoreSettings) -> tfds.features.FeaturesDict:
    """What one record holds, as tensorflow-datasets describes it.

    start, end: seconds, NaN where the clip has none. video_frame_count, source_width,
    source_height: of the video file.
    """
    import_tensorflow()
    import tensorflow_datasets as tfds

    side = settings.resolution if settings.stored_side is None else None
    shape = (side, side, 3)
    image = tfds.features.Image(shape=shape, encoding_format=settings.encoding)
    float32, int64 = tfds.features.Scalar(np.float32), tfds.features.Scalar(np.int64)
    return tfds.features.FeaturesDict(
        {
            "clip_id": tfds.features.Text(),
            "frames": tfds.features.Sequence(image),
            "frame_indices": tfds.features.Sequence(int64),
            "fps": float32,
            "video_frame_count": int64,
            "source_width": int64,
            "source_height": int64,
            "file": tfds.features.Text(),
            "file_size": int64,
            "file_sha256": tfds.features.Text(),
            "start": float32,
            "end": float32,
        }
    )


class Record(NamedTuple):
    """One clip for a record file: its serialized tf.train.Example, and its row of the index.

    row: the columns that do not depend on where the record is stored.
    """

    content: bytes | bytearray
    row: dict[str, Any]


def write_shards(
    records: Iterable[Record], directory: Path, shard_bytes: int
) -> tuple[list[int], list[dict[str, Any]]]:
    """Write records in their order; a shard is full when it contains `shard_bytes` or more.

    One record is in memory at a time, if `records` makes each when it is asked for.

    Returns:
        the number of records of each shard, and the full row of the index of every record.
    """
    rows: list[dict[str, Any]] = []
    lengths: list[int] = []
    with contextlib.ExitStack() as stack:
        shard: _Shard | None = None
        for record in records:
            if shard is None or shard.size >= shard_bytes:
                stack.close()
                shard = stack.enter_context(_open_shard(_unnumbered(directory, len(lengths))))
                lengths.append(0)
            rows.append(record.row | {"shards": len(lengths) - 1} | shard.add(record.content))
            lengths[-1] += 1
            del record  # else it would be kept while the next one is made
    for number in range(len(lengths)):
        name = f"{DATASET_NAME}-{TFDS_SPLIT}.tfrecord-{number:05d}-of-{len(lengths):05d}"
        _unnumbered(directory, number).rename(directory / name)
    return lengths, rows


def _unnumbered(directory: Path, shard: int) -> Path:
    # the names end in the number of shards, which is known after the last one
    return directory / f"shard-{shard:05d}.tmp"


class _Shard:
    """A record file that is being written."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._offset = 0
        self.size = 0

    def add(self, content: bytes | bytearray) -> dict[str, Any]:
        """Write a record; return its place and checksum, as the index has them."""
        self._writer.write(content)
        place = self._offset + BEFORE_RECORD
        self._offset = place + len(content) + AFTER_RECORD
        self.size += len(content)
        return {"offsets": place, "lengths": len(content), "checksums": zlib.crc32(content)}


@contextlib.contextmanager
def _open_shard(path: Path) -> Iterator[_Shard]:
    tf = import_tensorflow()
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            yield _Shard(writer)
    except tf.errors.OpError as error:
        no_room = isinstance(error, tf.errors.ResourceExhaustedError) or "No space" in str(error)
        code = errno.ENOSPC if no_room else errno.EIO
        raise OSError(code, f"{error.message}; {path} cannot be written") from error


def write_metadata(directory: Path, settings: StoreSettings, shard_lengths: list[int]) -> None:
    """Writes dataset_info.json, features.json and metadata.json beside the shards."""
    features = store_features(settings)
    import tensorflow_datasets as tfds

    num_bytes = sum(path.stat().st_size for path in directory.glob(SHARD_PATTERN))
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features,
        split_infos=[
            tfds.core.SplitInfo(name=TFDS_SPLIT, shard_lengths=shard_lengths, num_bytes=num_bytes)
        ],
        version=STORE_VERSION,
        description=_DESCRIPTION,
        metadata=tfds.core.MetadataDict(settings.as_dict()),
        check_data=False,
    )
