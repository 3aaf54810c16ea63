"""Captions and clips without finite features or scores; ranks would hide them.

NaN ranks last and infinity ties with nothing, so recalls of broken features look like numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vtr_jax.data.split import Split
from vtr_jax.evaluation.rank_counter import RankCounter
from vtr_jax.evaluation.score_matrix import Tiles
from vtr_jax.models.features import TextFeatures, VideoFeatures

_SHOWN = 3
_ROWS = 256


@dataclass(frozen=True)
class Nonfinite:
    """Captions and clips of a split without finite features or scores, as rising indices.

    Attributes:
        captions, clips: those with features or scores that are not finite.
        normalized_captions, normalized_clips: those with such scores after normalization, which
            spreads them over rows and columns.
    """

    captions: tuple[int, ...] = ()
    clips: tuple[int, ...] = ()
    normalized_captions: tuple[int, ...] = ()
    normalized_clips: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return any(dataclasses.astuple(self))

    def to_json(self, split: Split) -> dict[str, list]:
        """Return the captions (index, text and clip id) and the ids of the clips."""

        def captions(indices: Sequence[int]) -> list[dict[str, Any]]:
            return [
                {
                    "index": index,
                    "caption": split.captions[index],
                    "clip": split.clips[split.caption_clip[index]].clip_id,
                }
                for index in indices
            ]

        def clips(indices: Sequence[int]) -> list[str]:
            return [split.clips[index].clip_id for index in indices]

        return {
            "captions": captions(self.captions),
            "clips": clips(self.clips),
            "normalized_captions": captions(self.normalized_captions),
            "normalized_clips": clips(self.normalized_clips),
        }

    def describe(self, split: Split) -> str:
        """Return one sentence: how many there are of how many, and the first few by name."""
        plain = _counted(split, "feature or score", self.captions, self.clips)
        if not self.normalized_captions and not self.normalized_clips:
            return plain
        normalized = (self.normalized_captions, self.normalized_clips)
        if self.captions or self.clips:
            return (
                f"{plain}; after normalization {len(normalized[0])} captions and "
                f"{len(normalized[1])} clips"
            )
        return _counted(split, "normalized score", *normalized)


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
    text: TextFeatures,
    video: VideoFeatures,
    tiles: Tiles,
    normalized: Iterable[RankCounter] = (),
) -> Nonfinite:
    """Find every caption and clip that a feature or score that is not finite belongs to.

    A caption (clip) without one finite score counts by itself. Any other such score counts for
    both its caption and its clip, so nothing is found only if every value is finite.

    Args:
        text, video: features as NumPy arrays; padding is not looked at.
        tiles: scores before normalization.
        normalized: complete counts of the normalized scores.
    """
    captions = _bad_rows([text.sentence, text.tokens], text.mask)
    clips = _bad_rows([video.frames, video.temporal, video.pooled, video.patches], video.mask)
    bad_captions, bad_clips = _attributed(*_count_bad(tiles))
    after = [_attributed(each.nonfinite_of_text, each.nonfinite_of_clip) for each in normalized]
    return Nonfinite(
        _indices(captions | bad_captions),
        _indices(clips | bad_clips),
        _indices(np.any([np.zeros_like(captions), *(texts for texts, _ in after)], axis=0)),
        _indices(np.any([np.zeros_like(clips), *(videos for _, videos in after)], axis=0)),
    )


def _count_bad(tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are not finite, per caption [T] and per clip [V]."""
    bad_t = np.zeros(len(tiles.caption_clip), np.int64)
    bad_v = np.zeros(tiles.num_clips, np.int64)
    for first_text, first_clip, tile_tv in tiles():
        wrong = ~np.isfinite(tile_tv)
        bad_t[first_text : first_text + wrong.shape[0]] += np.count_nonzero(wrong, axis=1)
        bad_v[first_clip : first_clip + wrong.shape[1]] += np.count_nonzero(wrong, axis=0)
    return bad_t, bad_v


def _attributed(bad_t: np.ndarray, bad_v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    texts, clips = bad_t == len(bad_v), bad_v == len(bad_t)
    return texts | (bad_t > np.count_nonzero(clips)), clips | (bad_v > np.count_nonzero(texts))


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


def _counted(split: Split, what: str, captions: Sequence[int], clips: Sequence[int]) -> str:
    first_captions = [repr(split.captions[index]) for index in captions[:_SHOWN]]
    first_clips = [split.clips[index].clip_id for index in clips[:_SHOWN]]
    return (
        f"{len(captions)} of {len(split.captions)} captions and {len(clips)} of "
        f"{len(split.clips)} clips of {split.dataset} {split.name} have no finite {what}"
        f"{_named('captions', first_captions, len(captions))}"
        f"{_named('clips', first_clips, len(clips))}"
    )


def _named(kind: str, names: Sequence[str], count: int) -> str:
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return f"; {kind}: {', '.join(names)}{more}" if names else ""
