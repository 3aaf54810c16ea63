"""From a frame store to batches of NumPy arrays: decoding runs ahead, in TensorFlow's threads.

    store = FrameStore.open("stores/msrvtt")
    tokens = tokenize(split.captions, max_words=32)
    plan, choice = BatchPlan.of(split, batch_size=128, seed=0), FrameChoice(max_frames=12)
    for batch in training_batches(store, split, tokens, plan, choice):
        ...

A batch is a dict: frames uint8 [B,F,R,R,3], 0 behind the last frame of a clip; frame_mask int32
[B,F]; token_ids, token_mask int32 [B,L]; clip_index, caption_index int32 [B], places in the split.
Batches for evaluation also have valid bool [B]: False marks rows that fill up the last batch.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np

from vtr_jax.data.batch_plan import BatchPlan
from vtr_jax.data.frame_choice import UNIFORM
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.data.frame_stream import FrameChoice, FrameStream, Visit
from vtr_jax.data.split import Split

Batch = dict[str, np.ndarray]
Tokens = tuple[np.ndarray, np.ndarray]


class TrainingBatches:
    """An iterator of training batches; made by `training_batches`.

    plan tells steps_per_epoch and what an epoch leaves out; step is the next batch's.
    """

    def __init__(
        self, plan: BatchPlan, frames: FrameStream, tokens: Tokens, rows: np.ndarray, step: int
    ) -> None:
        self.plan = plan
        self.step = step
        self._frames = frames
        self._tokens = tokens
        self._rows = rows

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        clip_index, caption_index = (array[self._rows] for array in self.plan.batch(self.step))
        batch = next(self._frames)
        token_ids, token_mask = self._tokens
        batch |= {
            "token_ids": token_ids[caption_index],
            "token_mask": token_mask[caption_index],
            "clip_index": clip_index,
            "caption_index": caption_index,
        }
        self.step += 1
        return batch

    def close(self) -> None:
        """Stops reading ahead; nothing more can be taken."""
        self._frames.close()


def training_batches(
    store: FrameStore,
    split: Split,
    tokens: Tokens,
    plan: BatchPlan,
    choice: FrameChoice,
    *,
    start_step: int = 0,
    stop_step: int | None = None,
    rows: np.ndarray | None = None,
    num_threads: int | None = None,
) -> TrainingBatches:
    """Return training batches from `start_step` up to `stop_step`.

    They are a function of plan, choice and step only.

    Args:
        store: contains every clip of the split.
        split: the training split.
        tokens: `tokenize` of the same split's captions.
        plan: the global batches, of the same split.
        choice: frames of each clip, and their augmentation. Augmentation precedes the crop if the
            store keeps whole pictures (stored_side), and follows it if the store keeps squares.
        start_step: the first step.
        stop_step: the step after the last; None = no end.
        rows: int [B], which rows of a global batch this process reads, rising; None = all.
        num_threads: decoding threads; None = one per core.

    Raises:
        ValueError: clips are not in the store, tokens or plan are of another split, or a number
            is out of range.
        DamagedStore: while iterating; the message names shard and clip.
    """
    store.require_covers(split)
    _require_tokens(tokens, split)
    _require_plan(plan, split)
    if start_step < 0:
        raise ValueError(f"start_step: expected 0 or more, got {start_step}")
    places = _places(rows, plan.batch_size)
    store_rows = _store_rows(store, split)

    def visits() -> Iterator[Visit]:
        steps = itertools.count(start_step) if stop_step is None else range(start_step, stop_step)
        for step in steps:
            clips = plan.batch(step)[0]
            for place in places.tolist():
                yield Visit(step, place, int(store_rows[clips[place]]))

    frames = FrameStream(store, visits, len(places), choice, num_threads)
    return TrainingBatches(plan, frames, tokens, places, start_step)


def clip_batches(
    store: FrameStore,
    split: Split,
    batch_size: int,
    max_frames: int,
    slice_framepos: int = UNIFORM,
    frame_order: int = 0,
    *,
    seed: int = 0,
    num_threads: int | None = None,
    rows: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Frames of every clip of a split once, in order: frames, frame_mask, clip_index and valid.

    The last batch is filled up to batch_size with rows of zeros, frame_mask 0, clip_index -1 and
    valid False. rows: as of training_batches. Raises ValueError where clips are not in the store,
    before the first batch.
    """
    store.require_covers(split)
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
    store_rows = _store_rows(store, split)
    places = _places(rows, batch_size)
    starts = range(0, len(store_rows), batch_size)
    batches = [_indices(start, places, len(store_rows)) for start in starts]

    def visits() -> Iterator[Visit]:
        for clip in itertools.chain.from_iterable(clips.tolist() for clips in batches):
            yield Visit(0, clip, int(store_rows[clip]))

    choice = FrameChoice(max_frames, slice_framepos, frame_order, seed)
    frames = FrameStream(store, visits, len(places), choice, num_threads)
    return _filled_up(frames, batches, places)


def _filled_up(
    frames: FrameStream, batches: list[np.ndarray], places: np.ndarray
) -> Iterator[Batch]:
    with contextlib.closing(frames):
        for clips in batches:
            # Of the last batch this process may have nothing.
            read = next(frames) if len(clips) else frames.nothing()
            yield _fill_up(read | {"clip_index": clips}, places)


def caption_batches(
    tokens: Tokens, batch_size: int, rows: np.ndarray | None = None
) -> Iterator[Batch]:
    """Tokens of every caption once, in order: token_ids, token_mask, caption_index and valid.

    The last batch is filled up to batch_size with rows of zeros, caption_index -1, valid False.
    rows: as of training_batches.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
    token_ids, token_mask = tokens
    places = _places(rows, batch_size)
    indices = (
        _indices(start, places, len(token_ids)) for start in range(0, len(token_ids), batch_size)
    )
    return (
        _fill_up(
            {
                "token_ids": token_ids[captions],
                "token_mask": token_mask[captions],
                "caption_index": captions,
            },
            places,
        )
        for captions in indices
    )


def _places(rows: np.ndarray | None, batch_size: int) -> np.ndarray:
    return np.arange(batch_size) if rows is None else rows


def _indices(start: int, places: np.ndarray, total: int) -> np.ndarray:
    indices = (start + places).astype(np.int32)
    return indices[indices < total]


def _fill_up(batch: Batch, places: np.ndarray) -> Batch:
    count, batch_size = len(next(iter(batch.values()))), len(places)
    filled = {}
    for name, array in batch.items():
        fill = np.full(
            (batch_size - count, *array.shape[1:]),
            -1 if name.endswith("_index") else 0,
            array.dtype,
        )
        filled[name] = np.concatenate([array, fill]) if len(fill) else array
    return filled | {"valid": np.arange(batch_size) < count}


def _store_rows(store: FrameStore, split: Split) -> np.ndarray:
    return np.array([store.index_of(clip.clip_id) for clip in split.clips], np.int64)


def _require_plan(plan: BatchPlan, split: Split) -> None:
    if not np.array_equal(plan.caption_clip, split.caption_clip):
        raise ValueError(
            f"plan: expected the batches of {split.dataset} {split.name} with its "
            f"{len(split.captions)} captions, got those of another split with "
            f"{len(plan.caption_clip)}"
        )


def _require_tokens(tokens: Tokens, split: Split) -> None:
    shapes = [array.shape for array in tokens]
    if shapes[0] != shapes[1] or len(tokens[0]) != len(split.captions):
        raise ValueError(
            f"tokens: expected ids and mask of the {len(split.captions)} captions of "
            f"{split.dataset} {split.name}, got arrays of shape {shapes[0]} and {shapes[1]}"
        )
