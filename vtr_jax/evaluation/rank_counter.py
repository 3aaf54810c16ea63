"""Counting ranks from similarity tiles, so that no row is sorted and no whole matrix is needed.

own_scores = collect_own_scores(caption_clip, tiles_that_hold_the_right_pairs)
counter = RankCounter(own_scores, caption_clip, num_clips)
for rows in caption_blocks(caption_clip, 4096):
    counter.add(rows.start, 0, scores_of(rows))             # or narrower tiles, in any order
ranks_of(counter)                                           # metrics.py gives them a tie rule
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counts:
    """How the gallery stands to the right entry of each query; all int64 [Q] but own_scores [Q].

    greater: entries with a higher score; tied: other entries with the same score; tied_before:
    those of them that come earlier in the gallery; undefined: other entries that are NaN.
    gallery: how many entries there are, the right one included.
    """

    own_scores: np.ndarray
    gallery: int
    greater: np.ndarray
    tied: np.ndarray
    tied_before: np.ndarray
    undefined: np.ndarray

    @classmethod
    def zeros(cls, own_scores: np.ndarray, gallery: int) -> Counts:
        """Returns counts of nothing yet, for queries with these right scores [Q]."""
        return cls(own_scores, gallery, *(np.zeros(len(own_scores), np.int64) for _ in range(4)))

    def add(
        self, queries: slice, scores_qg: np.ndarray, own_place_q: np.ndarray, places_g: np.ndarray
    ) -> None:
        """Counts a block [Q,G] of scores; own_place_q and places_g are places in the gallery."""
        own_q1 = self.own_scores[queries, None]
        others = places_g[None, :] != own_place_q[:, None]
        tied = (scores_qg == own_q1) & others
        self.greater[queries] += np.count_nonzero((scores_qg > own_q1) & others, axis=1)
        self.undefined[queries] += np.count_nonzero(np.isnan(scores_qg) & others, axis=1)
        self.tied[queries] += np.count_nonzero(tied, axis=1)
        tied &= places_g[None, :] < own_place_q[:, None]
        self.tied_before[queries] += np.count_nonzero(tied, axis=1)

    def take(self, queries: np.ndarray) -> Counts:
        """Returns the counts of some queries, by their indices."""
        counts = (self.greater, self.tied, self.tied_before, self.undefined)
        return Counts(self.own_scores[queries], self.gallery, *(c[queries] for c in counts))


class RankCounter:
    """Counts both retrieval directions from tiles of logits_tv [T,V], in any order, each once.

    own_scores: float [T], every caption's score with its own video clip, picked from the same
    tiles (`collect_own_scores`): another arithmetic may differ in the last bit and break ties.
    caption_clip: int [T], the clip of every caption. num_clips: V.
    A tile holds all captions of a clip or none of them (`caption_blocks` cuts such rows), because
    video to text compares clips by their best caption.
    """

    def __init__(self, own_scores: np.ndarray, caption_clip: np.ndarray, num_clips: int) -> None:
        self.caption_clip = check_caption_clip(caption_clip, num_clips)
        self.num_clips = num_clips
        own_scores = np.asarray(own_scores)
        if own_scores.shape != self.caption_clip.shape:
            raise ValueError(
                f"own_scores: expected one score for each of {len(self.caption_clip)} captions, "
                f"got shape {own_scores.shape}"
            )
        self.captions_of_clip = np.bincount(self.caption_clip, minlength=num_clips)
        best_v = np.full(num_clips, np.nan, own_scores.dtype)
        np.fmax.at(best_v, self.caption_clip, own_scores)
        self._texts = Counts.zeros(own_scores, num_clips)
        self._clips = Counts.zeros(best_v, int(np.count_nonzero(self.captions_of_clip)))
        # Scores that are not finite, per caption [T] and per clip [V].
        self.nonfinite_of_text = np.zeros(len(self.caption_clip), np.int64)
        self.nonfinite_of_clip = np.zeros(num_clips, np.int64)
        self._counted = 0

    def add(self, first_text: int, first_clip: int, tile_tv: np.ndarray) -> None:
        """Counts one tile, float [t,v], whose upper left entry is (first_text, first_clip).

        Raises ValueError if it lies outside the matrix or holds only some captions of a clip.
        """
        tile_tv = np.asarray(tile_tv)
        texts = slice(first_text, first_text + tile_tv.shape[0])
        clips = slice(first_clip, first_clip + tile_tv.shape[1])
        self._check_inside(texts, clips)
        places_v = np.arange(clips.start, clips.stop)
        groups_g, best_gv = self._best_of_each_clip(tile_tv, texts)
        self._texts.add(texts, tile_tv, self.caption_clip[texts], places_v)
        self._clips.add(clips, best_gv.T, places_v, groups_g)
        wrong = ~np.isfinite(tile_tv)
        self.nonfinite_of_text[texts] += np.count_nonzero(wrong, axis=1)
        self.nonfinite_of_clip[clips] += np.count_nonzero(wrong, axis=0)
        self._counted += tile_tv.size

    def text_counts(self) -> Counts:
        """Returns what was counted for every caption; ValueError unless every score was added."""
        self._check_complete()
        return self._texts

    def clip_counts(self) -> Counts:
        """Returns what was counted for every clip that has captions, in clip order.

        The gallery is the clips' groups of captions, each scored by its best caption (NaN loses)
        and standing at its clip's place. Raises ValueError unless every score was added.
        """
        self._check_complete()
        return self._clips.take(np.flatnonzero(self.captions_of_clip))

    def _best_of_each_clip(
        self, tile_tv: np.ndarray, texts: slice
    ) -> tuple[np.ndarray, np.ndarray]:
        clip_t = self.caption_clip[texts]
        order = np.argsort(clip_t, kind="stable")
        groups, starts, sizes = np.unique(clip_t[order], return_index=True, return_counts=True)
        cut = groups[sizes != self.captions_of_clip[groups]]
        if len(cut):
            raise ValueError(
                f"tile rows {texts.start}:{texts.stop} hold only some captions of clip {cut[0]}; "
                "expected all captions of a clip in one tile: take the rows from caption_blocks()"
            )
        if np.array_equal(groups, clip_t):
            return groups, tile_tv
        return groups, np.fmax.reduceat(tile_tv[order], starts, axis=0)

    def _check_inside(self, texts: slice, clips: slice) -> None:
        if not (
            0 <= texts.start < texts.stop <= len(self.caption_clip)
            and 0 <= clips.start < clips.stop <= self.num_clips
        ):
            raise ValueError(
                f"tile [{texts.start}:{texts.stop}, {clips.start}:{clips.stop}] is empty or "
                f"outside the matrix of {len(self.caption_clip)} texts x {self.num_clips} clips"
            )

    def _check_complete(self) -> None:
        expected = len(self.caption_clip) * self.num_clips
        if self._counted != expected:
            raise ValueError(
                f"tiles cover {self._counted} of {expected} scores: add every tile exactly once"
            )


def collect_own_scores(
    caption_clip: np.ndarray, tiles: Iterable[tuple[int, int, np.ndarray]]
) -> np.ndarray:
    """Picks each caption's score with its own clip out of (first_text, first_clip, tile) tiles.

    Tiles without such an entry may be left out. Returns [T] in the tiles' dtype. Raises ValueError
    if a caption's own score was in no tile.
    """
    caption_clip = np.asarray(caption_clip)
    found = np.zeros(len(caption_clip), bool)
    own = np.zeros(len(caption_clip), np.float32)
    for first_text, first_clip, tile in tiles:
        tile_tv = np.asarray(tile)
        own = own.astype(np.promote_types(own.dtype, tile_tv.dtype), copy=False)
        column_t = caption_clip[first_text : first_text + tile_tv.shape[0]] - first_clip
        rows = np.flatnonzero((column_t >= 0) & (column_t < tile_tv.shape[1]))
        own[first_text + rows] = tile_tv[rows, column_t[rows]]
        found[first_text + rows] = True
    if not found.all():
        raise ValueError(
            f"no tile holds the own score of caption {int(np.argmin(found))} "
            f"({np.count_nonzero(~found)} of {len(found)} are missing)"
        )
    return own


def caption_blocks(caption_clip: np.ndarray, size: int) -> Iterator[slice]:
    """Cuts captions into runs of at most `size` rows that never split a clip's captions.

    A run is longer only where one clip's captions, with what stands between them, are more than
    `size` rows. Raises ValueError if size is not positive.
    """
    if size < 1:
        raise ValueError(f"size: expected at least 1 row, got {size}")
    clip_t = np.asarray(caption_clip)
    places = np.arange(len(clip_t))
    _, group_t = np.unique(clip_t, return_inverse=True)
    last_place = np.zeros(len(clip_t), np.int64)
    np.maximum.at(last_place, group_t, places)
    may_end = np.maximum.accumulate(last_place[group_t]) == places
    start = end = 0
    for candidate in np.flatnonzero(may_end).tolist():
        if candidate + 1 - start > size and end > start:
            yield slice(start, end)
            start = end
        end = candidate + 1
    if end > start:
        yield slice(start, end)


def check_caption_clip(caption_clip: np.ndarray, num_clips: int) -> np.ndarray:
    """Returns the clip of every caption as an integer array [T], or raises ValueError."""
    caption_clip = np.asarray(caption_clip)
    if caption_clip.ndim != 1 or not len(caption_clip):
        raise ValueError(f"caption_clip: expected [T], T > 0, got shape {caption_clip.shape}")
    if not np.issubdtype(caption_clip.dtype, np.integer):
        raise ValueError(f"caption_clip: expected integers, got {caption_clip.dtype}")
    if caption_clip.min() < 0 or caption_clip.max() >= num_clips:
        raise ValueError(
            f"caption_clip: expected indices of {num_clips} clips (0 to {num_clips - 1}), "
            f"got {caption_clip.min()} to {caption_clip.max()}"
        )
    return caption_clip
