"""The record files of a frame store, in tensorflow-datasets' format."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtr_jax.data.frame_store.jobs import seconds_as_stored
from vtr_jax.data.frame_store.part import Part
from vtr_jax.data.frame_store.settings import STORE_VERSION, StoreSettings
from vtr_jax.data.tensorflow_host import import_tensorflow

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

DATASET_NAME = "frame_store"
TFDS_SPLIT = "clips"
INFO_FILE = "dataset_info.json"  # tensorflow-datasets gives it this name
SHARD_PATTERN = f"{DATASET_NAME}-{TFDS_SPLIT}.tfrecord-*"
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


def record_of(part: Part, features: tfds.features.FeaturesDict) -> bytes:
    """One clip as a serialised tf.train.Example; equal parts give equal bytes."""
    tf = import_tensorflow()
    values: dict[str, Any] = {
        "clip_id": part.clip_id,
        "frames": part.frames,
        "frame_indices": part.frame_indices,
        "fps": part.fps,
        "video_frame_count": part.video_frame_count,
        "source_width": part.source_width,
        "source_height": part.source_height,
        "file": part.source.file,
        "file_size": part.source.file_size,
        "file_sha256": part.source.file_sha256,
        "start": seconds_as_stored(part.source.start),
        "end": seconds_as_stored(part.source.end),
    }
    example = tf.train.Example.FromString(features.serialize_example(values))
    # protocol buffers promise an order of map entries only on request
    return example.SerializeToString(deterministic=True)


def write_shards(records: Iterable[bytes], directory: Path, shard_bytes: int) -> list[int]:
    """Writes records in their order; a shard is full when it holds `shard_bytes` or more.

    Returns the number of records of each shard.
    """
    lengths = []
    for shard, shard_records in enumerate(_shard_by_shard(records, shard_bytes)):
        lengths.append(_write_shard(_unnumbered(directory, shard), shard_records))
    for shard in range(len(lengths)):
        name = f"{DATASET_NAME}-{TFDS_SPLIT}.tfrecord-{shard:05d}-of-{len(lengths):05d}"
        _unnumbered(directory, shard).rename(directory / name)
    return lengths


def _unnumbered(directory: Path, shard: int) -> Path:
    # the names end in the number of shards, which is known after the last one
    return directory / f"shard-{shard:05d}.tmp"


def _shard_by_shard(records: Iterable[bytes], shard_bytes: int) -> Iterator[Iterator[bytes]]:
    remaining = iter(records)

    def one_shard(first: bytes) -> Iterator[bytes]:
        size = len(first)
        yield first
        while size < shard_bytes and (record := next(remaining, None)) is not None:
            size += len(record)
            yield record

    while (first := next(remaining, None)) is not None:
        yield one_shard(first)


def _write_shard(path: Path, records: Iterator[bytes]) -> int:
    tf = import_tensorflow()
    count = 0
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
                count += 1
    except tf.errors.OpError as error:
        no_room = isinstance(error, tf.errors.ResourceExhaustedError) or "No space" in str(error)
        code = errno.ENOSPC if no_room else errno.EIO
        raise OSError(code, f"{error.message}; {path} cannot be written") from error
    return count


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
