"""Frames out of a frame store, batch by batch, read and decoded ahead by tf.data."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vtr_jax.data.augmentation import RandAugment, augment
from vtr_jax.data.frame_choice import UNIFORM, order_frames, slice_positions
from vtr_jax.data.frame_store.encoding import decode_frame
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.frame_store.store import DamagedStore, FrameStore
from vtr_jax.data.frame_store.workers import usable_cores
from vtr_jax.data.resize import Resize, resize_picture
from vtr_jax.data.tensorflow_host import import_tensorflow

_BATCHES_AHEAD = 2
_AUGMENTATION_STREAM = 1  # its draws are not those of the frames' order


class Visit(NamedTuple):
    """One clip in one batch: its row in the store; step and place name the draw of its frames."""

    step: int
    place: int
    row: int


@dataclasses.dataclass(frozen=True)
class FrameChoice:
    """Which of a clip's stored frames are taken, and in which order.

    max_frames: F, at most so many. slice_framepos: 0 the first, 1 the last, 2 evenly spaced.
    frame_order: 0 as they are, 1 reversed, 2 shuffled by seed, step and place in the batch.
    augmentation: drawn once a clip by the same three, before pictures are resized and cropped.
    """

    max_frames: int
    slice_framepos: int = UNIFORM
    frame_order: int = 0
    seed: int = 0
    augmentation: RandAugment | None = None

    def __post_init__(self) -> None:
        self.positions(1, 0, 0)  # refuses options out of range before anything is read

    def positions(self, num_frames: int, step: int, place: int) -> np.ndarray:
        """Places among a clip's stored frames, int64 [min(num_frames, max_frames)]."""
        chosen = slice_positions(num_frames, self.max_frames, self.slice_framepos)
        rng = np.random.default_rng([self.seed, step, place])
        return order_frames(chosen, self.frame_order, rng)

    def transform(
        self, pictures: list[np.ndarray], resize: Resize, step: int, place: int
    ) -> np.ndarray:
        """Augments, resizes and crops a clip's pictures, uint8 [H,W,3] each: uint8 [N,R,R,3]."""
        if self.augmentation is not None:
            rng = np.random.default_rng([self.seed, step, place, _AUGMENTATION_STREAM])
            operations = self.augmentation.draw(rng)
            pictures = [augment(picture, operations) for picture in pictures]
        return np.stack([resize_picture(picture, resize) for picture in pictures])


def _resize_of_stored(settings: StoreSettings) -> Resize:
    """How stored pictures become squares: squares stay as they are."""
    return Resize(settings.resolution) if settings.stored_side is None else settings.resize


class FrameStream:
    """Iterator of {"frames": uint8 [B,F,R,R,3], "frame_mask": int32 [B,F]}; the last may be short.

    visits: called for an iterator of the clips in their order, B of them a batch. The result does
    not depend on num_threads (by default one a core). Raises DamagedStore naming shard and clip
    where a record cannot be read or decoded.
    """

    def __init__(
        self,
        store: FrameStore,
        visits: Callable[[], Iterator[Visit]],
        batch_size: int,
        choice: FrameChoice,
        num_threads: int | None = None,
    ) -> None:
        num_threads = usable_cores() if num_threads is None else num_threads
        if num_threads < 1:
            raise ValueError(f"num_threads: expected 1 or more, got {num_threads}")
        self._store = store
        self._choice = choice
        self._batch_size = batch_size
        self._resolution: int = store.settings["resolution"]
        self._resize = _resize_of_stored(StoreSettings.from_dict(store.settings))
        self._needs_pillow = (
            store.settings["stored_side"] is not None or choice.augmentation is not None
        )
        self._unread: dict[int, Exception] = {}
        self._visits = visits()
        self._batches = self._dataset(visits, num_threads).as_numpy_iterator()

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        tf = import_tensorflow()
        visits = list(itertools.islice(self._visits, self._batch_size))
        try:
            batch = next(self._batches)
        except tf.errors.OpError:
            self._raise_what_is_damaged(visits)
            raise
        for visit in visits:
            if visit.row in self._unread:
                self._raise_what_is_damaged(visits)
                raise self._unread[visit.row]
        return batch

    def nothing(self) -> dict[str, np.ndarray]:
        """A batch without a clip."""
        max_frames, resolution = self._choice.max_frames, self._resolution
        return {
            "frames": np.zeros((0, max_frames, resolution, resolution, 3), np.uint8),
            "frame_mask": np.zeros((0, max_frames), np.int32),
        }

    def close(self) -> None:
        """Stops reading ahead; TensorFlow complains where a program ends in the middle of that."""
        self._batches = iter(())

    def _dataset(self, visits: Callable[[], Iterator[Visit]], num_threads: int) -> Any:
        tf = import_tensorflow()
        number = tf.TensorSpec([], tf.int64)
        dataset = tf.data.Dataset.from_generator(
            visits, output_signature=Visit(number, number, number)
        )
        load = tf.autograph.experimental.do_not_convert(self._load)
        dataset = dataset.map(load, num_parallel_calls=num_threads, deterministic=True)
        options = tf.data.Options()
        options.autotune.enabled = False
        options.threading.private_threadpool_size = num_threads
        options.threading.max_intra_op_parallelism = 1
        return dataset.batch(self._batch_size).prefetch(_BATCHES_AHEAD).with_options(options)

    def _load(self, visit: Visit) -> dict[str, Any]:
        """One clip as tensors: part of the tf.data graph."""
        tf = import_tensorflow()
        resolution, max_frames = self._resolution, self._choice.max_frames
        frames = self._finished(visit) if self._needs_pillow else self._decoded(visit)
        count = tf.shape(frames)[0]
        frames = tf.pad(frames, [[0, max_frames - count], [0, 0], [0, 0], [0, 0]])
        mask = tf.cast(tf.range(max_frames) < count, tf.int32)
        return {
            "frames": tf.ensure_shape(frames, [max_frames, resolution, resolution, 3]),
            "frame_mask": mask,
        }

    def _decoded(self, visit: Visit) -> Any:
        """Stored squares as they are: decoded without a lock on Python."""
        tf = import_tensorflow()
        encoded = tf.ensure_shape(tf.numpy_function(self._read, list(visit), tf.string), [None])
        one_frame = tf.TensorSpec([self._resolution, self._resolution, 3], tf.uint8)
        return tf.map_fn(self._decode, encoded, fn_output_signature=one_frame)

    def _finished(self, visit: Visit) -> Any:
        """Whole pictures, or augmented ones, by Pillow as the originals do it."""
        tf = import_tensorflow()
        frames = tf.numpy_function(self._read_and_transform, list(visit), tf.uint8)
        return tf.ensure_shape(frames, [None, self._resolution, self._resolution, 3])

    def _read_and_transform(
        self, step: np.ndarray, place: np.ndarray, row: np.ndarray
    ) -> np.ndarray:
        try:
            pictures = [decode_frame(encoded) for encoded in self._read(step, place, row)]
            return self._choice.transform(pictures, self._resize, int(step), int(place))
        except Exception as error:
            self._unread.setdefault(int(row), error)
            return np.zeros((0, self._resolution, self._resolution, 3), np.uint8)

    def _read(self, step: np.ndarray, place: np.ndarray, row: np.ndarray) -> np.ndarray:
        # TensorFlow prints the traceback of what a function raises inside tf.data: the error is
        # kept for whoever takes the batch, and the clip that none will see has no frames.
        try:
            frames = self._store.read(int(row))
            chosen = self._choice.positions(len(frames), int(step), int(place))
            return np.array([frames[position] for position in chosen], dtype=object)
        except Exception as error:
            self._unread.setdefault(int(row), error)
            return np.array([], dtype=bytes)

    def _decode(self, encoded: Any) -> Any:
        tf = import_tensorflow()
        if self._store.settings["encoding"] == "png":
            frame = tf.io.decode_png(encoded, channels=3)
        else:
            # the exact transform: the fast one differs from machine to machine
            frame = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(frame, [self._resolution, self._resolution, 3])

    def _raise_what_is_damaged(self, visits: list[Visit]) -> None:
        """Reads a failed batch again, clip by clip; an error inside tf.data names neither."""
        tf = import_tensorflow()
        for visit in visits:
            for number, frame in enumerate(self._store.read(visit.row)):
                try:
                    decode_frame(frame) if self._needs_pillow else self._decode(tf.constant(frame))
                except (tf.errors.OpError, OSError, ValueError) as error:
                    raise DamagedStore(
                        f"{self._store.name_of(visit.row)}: stored frame {number} is no "
                        f"{self._store.settings['encoding']} image of "
                        f"{self._resolution} pixels; delete the store and run "
                        "`vtr prepare` again"
                    ) from error
