"""Which (clip, caption) pairs make each training batch, from seed and step alone.

    plan = BatchPlan.of(split, batch_size=128, seed=0, caption_mode="every_caption")
    clip_index, caption_index = plan.batch(step)

Every process computes the same global batches, so a run can stop at any step, and go on with any
number of processes, without reading what came before.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from vtr_jax.data.split import Split

RANDOM_CAPTION = "random_caption"
EVERY_CAPTION = "every_caption"
CAPTION_MODES = (RANDOM_CAPTION, EVERY_CAPTION)
_NAMED = 5


@dataclasses.dataclass(frozen=True, eq=False)
class BatchPlan:
    """The batches of a run; made by `BatchPlan.of`.

    caption_mode "random_caption": an epoch visits each clip once, with one of its captions drawn
    anew each time. "every_caption": an epoch visits each caption once.
    steps_per_epoch: batches in each epoch, the same for all of them.
    dropped_last: visits an epoch lacks because its last batch would not be full.
    left_out: captions an epoch lacks because a clip would be twice in a batch. Which visits these
    are is drawn anew each epoch.
    """

    caption_clip: np.ndarray
    num_clips: int
    batch_size: int
    seed: int
    caption_mode: str
    allow_repeated_clips: bool
    steps_per_epoch: int
    dropped_last: int
    left_out: int

    @classmethod
    def of(
        cls,
        split: Split,
        batch_size: int,
        seed: int,
        *,
        caption_mode: str = RANDOM_CAPTION,
        allow_repeated_clips: bool = False,
    ) -> BatchPlan:
        """Plans the training batches of a split.

        batch_size: pairs in a global batch. allow_repeated_clips: with "every_caption", shuffle
        captions without a look at their clips, as CLIP4Clip and its relatives do; two captions of
        one clip in a batch then count as each other's negatives.

        Raises ValueError where options are out of range, a clip has no caption, or a batch cannot
        be filled.
        """
        if caption_mode not in CAPTION_MODES:
            raise ValueError(f"caption_mode: expected one of {CAPTION_MODES}, got {caption_mode!r}")
        if seed < 0 or batch_size < 1:
            raise ValueError(
                f"expected seed of 0 or more and batch_size of 1 or more, got {seed}, {batch_size}"
            )
        captions_each = _captions_each(split)
        by_caption = caption_mode == EVERY_CAPTION
        visits = len(split.captions) if by_caption else len(split.clips)
        steps = visits // batch_size
        if by_caption and not allow_repeated_clips:
            steps = most_batches(captions_each, batch_size)
        if steps == 0:
            unit = "captions" if by_caption and allow_repeated_clips else "clips"
            most = len(getattr(split, unit))
            valid = f"nearest valid: --config.batch_size={most}"
            raise ValueError(
                f"batch_size {batch_size} is more than the {most} {unit} of {split.dataset} "
                f"{split.name}: no batch can be filled; "
                f"{valid if most > 1 else 'a batch needs two clips to tell apart'}"
            )
        return cls(
            caption_clip=split.caption_clip,
            num_clips=len(split.clips),
            batch_size=batch_size,
            seed=seed,
            caption_mode=caption_mode,
            allow_repeated_clips=allow_repeated_clips,
            steps_per_epoch=steps,
            dropped_last=visits % batch_size,
            left_out=visits // batch_size * batch_size - steps * batch_size,
        )

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Clip and caption indices into the split, int32 [B] each, of the batch of step 0, 1, ...

        The plan of the latest epochs is kept, so steps in a row cost next to nothing.
        """
        epoch, row = divmod(step, self.steps_per_epoch)
        captions = self._epoch(epoch)[row]
        return self.caption_clip[captions], captions

    def describe(self) -> str:
        """One line of text: what an epoch visits and what it leaves out."""
        pairs = self.steps_per_epoch * self.batch_size
        unit = "captions" if self.caption_mode == EVERY_CAPTION else "clips"
        steps = "step" if self.steps_per_epoch == 1 else "steps"
        return (
            f"{self.steps_per_epoch} {steps} an epoch, {pairs} of "
            f"{pairs + self.dropped_last + self.left_out} {unit} (drawn anew each epoch); "
            f"{self.dropped_last} do not fill a batch, {self.left_out} would repeat a clip in one"
        )

    @functools.cached_property
    def _epoch(self) -> Callable[[int], np.ndarray]:
        return functools.lru_cache(maxsize=2)(self._plan_epoch)

    def _plan_epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        if self.caption_mode == RANDOM_CAPTION:
            captions = draw_captions(self.caption_clip, self.num_clips, rng)
        elif self.allow_repeated_clips:
            captions = rng.permutation(len(self.caption_clip))
        else:
            captions = spread_captions(
                self.caption_clip, self.num_clips, self.batch_size, self.steps_per_epoch, rng
            )
        pairs = self.steps_per_epoch * self.batch_size
        return captions[:pairs].reshape(-1, self.batch_size).astype(np.int32)


def _captions_each(split: Split) -> np.ndarray:
    captions_each = np.bincount(split.caption_clip, minlength=len(split.clips))
    without = [split.clips[index].clip_id for index in np.flatnonzero(captions_each == 0)]
    if without:
        raise ValueError(
            f"{len(without)} of the {len(split.clips)} clips of {split.dataset} {split.name} have "
            f"no caption: {', '.join(without[:_NAMED])}...; leave them out of the training split"
        )
    return captions_each


def most_batches(captions_each: np.ndarray, batch_size: int) -> int:
    """The largest number of batches in which no clip is twice, for counts of captions a clip.

    n batches can be filled exactly if the clips, each in at most n of them, make n * batch_size.
    """
    fewest, most = 0, int(captions_each.sum()) // batch_size
    while fewest < most:
        middle = (fewest + most + 1) // 2
        if np.minimum(captions_each, middle).sum() >= middle * batch_size:
            fewest = middle
        else:
            most = middle - 1
    return fewest


def draw_captions(caption_clip: np.ndarray, num_clips: int, rng: np.random.Generator) -> np.ndarray:
    """All clips in random order, each as one of its captions drawn uniformly: int [V]."""
    clips = rng.permutation(num_clips)
    captions_each = np.bincount(caption_clip, minlength=num_clips)
    first_of_clip = np.cumsum(captions_each) - captions_each
    grouped = np.argsort(caption_clip, kind="stable")
    return grouped[first_of_clip[clips] + rng.integers(captions_each[clips])]


def spread_captions(
    caption_clip: np.ndarray,
    num_clips: int,
    batch_size: int,
    steps: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Captions in random order such that no batch holds a clip twice: int [steps * batch_size].

    A clip met again while its batch is being filled waits for the next one. A clip with as many
    captions left as there are batches goes into every batch from there on, so that the number of
    batches never depends on luck; steps is at most `most_batches`.
    """
    order = rng.permutation(len(caption_clip))
    stream = iter(caption_clip[order].tolist())
    left = np.minimum(np.bincount(caption_clip, minlength=num_clips), steps)
    waiting: dict[int, int] = {}
    ahead: dict[int, int] = defaultdict(int)
    rows = []
    for batches_left in range(steps, 0, -1):
        due = np.flatnonzero(left >= batches_left)
        batch = dict.fromkeys(rng.permutation(due)[:batch_size].tolist())
        for clip in batch:
            if not _leave(waiting, clip):
                ahead[clip] += 1
        for clip in list(waiting):
            if len(batch) < batch_size and clip not in batch:
                batch[clip] = None
                _leave(waiting, clip)
        while len(batch) < batch_size:
            clip = next(stream)
            if ahead[clip]:
                ahead[clip] -= 1
            elif clip in batch:
                waiting[clip] = waiting.get(clip, 0) + 1
            else:
                batch[clip] = None
        rows.append(list(batch))
        left[rows[-1]] -= 1
        np.minimum(left, batches_left - 1, out=left)
    return _next_caption_of_each(np.array(rows).ravel(), order, caption_clip)


def _leave(waiting: dict[int, int], clip: int) -> bool:
    """Takes one visit of a clip from those waiting; False where none is."""
    if clip not in waiting:
        return False
    waiting[clip] -= 1
    if not waiting[clip]:
        del waiting[clip]
    return True


def _next_caption_of_each(
    visits: np.ndarray, order: np.ndarray, caption_clip: np.ndarray
) -> np.ndarray:
    """The k-th visit of a clip gets its k-th caption in `order`: int, as long as visits."""
    captions = np.empty_like(visits)
    visit_order = np.argsort(visits, kind="stable")
    grouped = order[np.argsort(caption_clip[order], kind="stable")]
    captions_each = np.bincount(caption_clip)
    first_of_clip = np.cumsum(captions_each) - captions_each
    sorted_visits = visits[visit_order]
    first_visit = np.searchsorted(sorted_visits, sorted_visits)
    rank = np.arange(len(visits)) - first_visit
    captions[visit_order] = grouped[first_of_clip[sorted_visits] + rank]
    return captions
