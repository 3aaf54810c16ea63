"""One clip as the bytes of a tf.train.Example, made without a second copy of its frames.

TensorFlow's own encoder keeps about five copies, and a clip of whole pictures can be gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vtr_jax.data.frame_store.jobs import seconds_as_stored
from vtr_jax.data.frame_store.part import Part
from vtr_jax.data.tensorflow_host import import_tensorflow

_FRAMES = "frames"
# Protocol buffers: field 1 or 2, followed by a length and so many bytes.
_FIELD_1, _FIELD_2 = b"\x0a", b"\x12"


def record_of(part: Part, frames: Iterable[bytes]) -> bytearray:
    """Return one clip as a serialized tf.train.Example; equal parts give equal bytes.

    The map's entries are in the order of their names, as protocol buffers' deterministic encoding
    has them.

    Args:
        part: the clip; `part.sizes` are the lengths of `frames`.
        frames: its encoded frames, taken one at a time.
    """
    values = _values(part)
    before = _entries({name: value for name, value in values.items() if name < _FRAMES})
    after = _entries({name: value for name, value in values.items() if name > _FRAMES})
    head = _frames_head(part.sizes)
    features = len(before) + len(head) + _list_length(part.sizes) + len(after)
    start = _FIELD_1 + _varint(features) + before + head
    record = bytearray(len(start) + _list_length(part.sizes) + len(after))
    record[: len(start)] = start
    place = len(start)
    for frame in frames:
        for piece in (_FIELD_1 + _varint(len(frame)), frame):
            record[place : place + len(piece)] = piece
            place += len(piece)
    record[place:] = after
    return record


def _values(part: Part) -> dict[str, Any]:
    return {
        "clip_id": part.clip_id,
        "frame_indices": part.frame_indices,
        "fps": np.float32(part.fps),
        "video_frame_count": part.video_frame_count,
        "source_width": part.source_width,
        "source_height": part.source_height,
        "file": part.source.file,
        "file_size": part.source.file_size,
        "file_sha256": part.source.file_sha256,
        "start": np.float32(seconds_as_stored(part.source.start)),
        "end": np.float32(seconds_as_stored(part.source.end)),
    }


def _entries(values: dict[str, Any]) -> bytes:
    """Serialize all features but the frames."""
    features = import_tensorflow().train.Features()
    for name, value in values.items():
        feature = features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        elif isinstance(value, np.floating):
            feature.float_list.value.append(float(value))
        else:
            feature.int64_list.value.extend(np.atleast_1d(value).tolist())
    return features.SerializeToString(deterministic=True)


def _frames_head(sizes: Sequence[int]) -> bytes:
    """Return the map entry of the frames up to its first frame."""
    key = _FIELD_1 + _varint(len(_FRAMES)) + _FRAMES.encode()
    length = _list_length(sizes)
    bytes_list = _FIELD_1 + _varint(length)
    feature = _FIELD_2 + _varint(len(bytes_list) + length)
    entry = len(key) + len(feature) + len(bytes_list) + length
    return _FIELD_1 + _varint(entry) + key + feature + bytes_list


def _list_length(sizes: Sequence[int]) -> int:
    return sum(len(_FIELD_1) + len(_varint(size)) + size for size in sizes)


def _varint(number: int) -> bytes:
    """Encode a number in groups of seven bits, the lowest first; all but the last have bit 7."""
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
