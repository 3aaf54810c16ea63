"""Captions and clips without finite features or scores; ranks would hide them.

NaN ranks last and infinity ties with nothing, so recalls of broken features look like numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vtr_jax.data.split import Split
from vtr_jax.evaluation.rank_counter import RankCounter
from vtr_jax.models.features import TextFeatures, VideoFeatures

_SHOWN = 3
_ROWS = 256


@dataclass(frozen=True)
class Nonfinite:
    """Captions and clips of a split without finite features or scores.

    Attributes:
        captions: indices of the captions, rising.
        clips: indices of the clips, rising.
    """

    captions: tuple[int, ...] = ()
    clips: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.captions or self.clips)

    def to_json(self, split: Split) -> dict[str, list]:
        """Return the captions (index, text and clip id) and the ids of the clips."""
        captions = [
            {
                "index": index,
                "caption": split.captions[index],
                "clip": split.clips[split.caption_clip[index]].clip_id,
            }
            for index in self.captions
        ]
        return {"captions": captions, "clips": [split.clips[i].clip_id for i in self.clips]}

    def describe(self, split: Split) -> str:
        """Return one sentence: how many there are of how many, and the first few by name."""
        captions = [repr(split.captions[index]) for index in self.captions[:_SHOWN]]
        clips = [split.clips[index].clip_id for index in self.clips[:_SHOWN]]
        return (
            f"{len(self.captions)} of {len(split.captions)} captions and {len(self.clips)} of "
            f"{len(split.clips)} clips of {split.dataset} {split.name} have no finite feature or "
            f"score{_named('captions', captions, len(self.captions))}"
            f"{_named('clips', clips, len(self.clips))}"
        )


class NonfiniteScores(ValueError):
    """An evaluation whose ranks would be made of values that are not finite.

    Attributes:
        nonfinite: the captions and clips concerned.
        split: the split they belong to.
    """

    def __init__(self, nonfinite: Nonfinite, split: Split) -> None:
        super().__init__(
            f"{nonfinite.describe(split)}; check the weights and these inputs, or rank them "
            "anyway with --allow_nonfinite"
        )
        self.nonfinite = nonfinite
        self.split = split


def find_nonfinite(
    text: TextFeatures, video: VideoFeatures, counters: Iterable[RankCounter]
) -> Nonfinite:
    """Find every caption and clip that a feature or score that is not finite belongs to.

    A caption (clip) without one finite score counts by itself. Any other such score counts for
    both its caption and its clip, so nothing is found only if every value is finite.

    Args:
        text, video: features as NumPy arrays; padding is not looked at.
        counters: what ranks were counted from, each complete.
    """
    captions = _bad_rows([text.sentence, text.tokens], text.mask)
    clips = _bad_rows([video.frames, video.temporal, video.pooled, video.patches], video.mask)
    for counter in counters:
        bad_captions, bad_clips = _bad_scores(counter)
        captions |= bad_captions
        clips |= bad_clips
    return Nonfinite(_indices(captions), _indices(clips))


def _bad_scores(counter: RankCounter) -> tuple[np.ndarray, np.ndarray]:
    bad_t, bad_v = counter.nonfinite_of_text, counter.nonfinite_of_clip
    texts, clips = bad_t == len(bad_v), bad_v == len(bad_t)
    return (
        texts | (bad_t > np.count_nonzero(clips)),
        clips | (bad_v > np.count_nonzero(texts)),
    )


def _bad_rows(fields: Sequence[Array | np.ndarray | None], mask_nl: ArrayLike) -> np.ndarray:
    """Rows [N] with a value that is not finite, apart from masked positions."""
    mask = np.asarray(mask_nl)
    bad = np.zeros(len(mask), bool)
    for field in fields:
        if field is None or field.size == 0:
            continue
        for start in range(0, len(field), _ROWS):
            rows = slice(start, start + _ROWS)
            wrong = ~np.isfinite(np.asarray(field[rows]))
            wrong = wrong.reshape(*wrong.shape[:2], -1).any(axis=2)
            bad[rows] |= (wrong & (mask[rows] > 0) if field.ndim > 2 else wrong).any(axis=1)
    return bad


def _indices(chosen: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())


def _named(kind: str, names: Sequence[str], count: int) -> str:
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return f"; {kind}: {', '.join(names)}{more}" if names else ""
