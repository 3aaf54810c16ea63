"""Score normalisation: scores that know the other texts and videos of the split.

    counters = count_both_ways(tiles, "dual_softmax")       # {"t2v": RankCounter, "v2t": ...}
    dual_softmax_scores(logits_tv, caption_clip)            # the same of a whole matrix

Dual softmax multiplies every score with its softmax over the rivals of the other direction, at
temperature 1: s * softmax of s over all texts ranks videos for a text, s * softmax over all videos
ranks texts for a video. Where clips have several captions, the original ranks both directions by
the first. Inverted softmax is the same at temperature 0.01, for one caption a clip. Both read every
query of the split at once, so their scores never stand beside others. They are computed tile by
tile, so only the matrix of plain scores is kept. Sources: InternVideo's and EMCL-Net's eval_epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from vtr_jax.evaluation.rank_counter import RankCounter, check_caption_clip
from vtr_jax.evaluation.score_matrix import MatrixTiles, Tile, Tiles
from vtr_jax.evaluation.similarity import count_ranks, joined

# What --normalisation may be, as the protocol card calls it.
NORMALISATIONS = {
    "none": "none",
    "dual_softmax": "dual softmax",
    "inverted_softmax": "inverted softmax",
}
TEMPERATURES = {"dual_softmax": 1.0, "inverted_softmax": 0.01}


@dataclass(frozen=True)
class SoftmaxSums:
    """What the softmax of every row or column needs: its largest score and sum of exponentials.

    axis 0: over texts, peak and total are [V]; axis 1: over videos, [T]. Float64. temperature:
    scores are divided by it first.
    """

    axis: int
    peak: np.ndarray
    total: np.ndarray
    temperature: float = 1.0

    @classmethod
    def empty(cls, axis: int, texts: int, clips: int, temperature: float = 1.0) -> SoftmaxSums:
        """The sums of nothing yet."""
        size = (clips, texts)[axis]
        return cls(axis, np.full(size, -np.inf), np.zeros(size), temperature)

    def _place(self, first_text: int, first_clip: int, shape: tuple[int, ...]) -> slice:
        first = (first_clip, first_text)[self.axis]
        return slice(first, first + shape[1 - self.axis])

    def add(self, first_text: int, first_clip: int, tile_tv: np.ndarray) -> None:
        """Count a tile in; the order of tiles does not matter."""
        place = self._place(first_text, first_clip, tile_tv.shape)
        scores = tile_tv.astype(np.float64) / self.temperature
        peak = np.maximum(self.peak[place], scores.max(axis=self.axis))
        added = np.exp(scores - np.expand_dims(peak, self.axis)).sum(axis=self.axis)
        self.total[place] = self.total[place] * np.exp(self.peak[place] - peak) + added
        self.peak[place] = peak

    def weighted(self, first_text: int, first_clip: int, tile_tv: np.ndarray) -> np.ndarray:
        """The tile's scores times their softmax, float32; every tile must have been counted."""
        place = self._place(first_text, first_clip, tile_tv.shape)
        scores = tile_tv.astype(np.float64)
        peak = np.expand_dims(self.peak[place], self.axis)
        exponent = scores / self.temperature - peak
        share = np.exp(exponent) / np.expand_dims(self.total[place], self.axis)
        return (scores * share).astype(np.float32)


@dataclass(frozen=True)
class WeightedTiles:
    """The tiles of another matrix with every score times its softmax."""

    tiles: Tiles
    sums: SoftmaxSums

    @property
    def caption_clip(self) -> np.ndarray:
        """The clip of every caption, int [T]."""
        return self.tiles.caption_clip

    @property
    def num_clips(self) -> int:
        """Columns of the matrix."""
        return self.tiles.num_clips

    def __call__(self, only_own: bool = False) -> Iterator[Tile]:
        """All tiles, or those with own scores, as of the other matrix."""
        for first_text, first_clip, tile_tv in self.tiles(only_own=only_own):
            yield first_text, first_clip, self.sums.weighted(first_text, first_clip, tile_tv)


def softmax_sums(
    tiles: Tiles, temperatures: tuple[float, float] = (1.0, 1.0)
) -> tuple[SoftmaxSums, SoftmaxSums]:
    """The sums over texts and those over videos, each at its temperature, in one pass."""
    texts, clips = len(tiles.caption_clip), tiles.num_clips
    both = (
        SoftmaxSums.empty(0, texts, clips, temperatures[0]),
        SoftmaxSums.empty(1, texts, clips, temperatures[1]),
    )
    for tile in tiles():
        for sums in both:
            sums.add(*tile)
    return both


def dual_softmax(
    tiles: Tiles, temperatures: tuple[float, float] = (1.0, 1.0)
) -> dict[str, WeightedTiles]:
    """The matrices [T,V] by which each direction ranks: {"t2v": ..., "v2t": ...}.

    They are one and the same where clips have several captions.
    """
    sums_of_both = softmax_sums(tiles, temperatures)
    over_texts, over_videos = (WeightedTiles(tiles, sums) for sums in sums_of_both)
    many = len(np.unique(tiles.caption_clip)) < len(tiles.caption_clip)
    return {"t2v": over_texts, "v2t": over_texts if many else over_videos}


def dual_softmax_scores(logits_tv: np.ndarray, caption_clip: np.ndarray) -> dict[str, np.ndarray]:
    """dual_softmax of a whole matrix [T,V]; both are float32 [T,V], rows texts.

    caption_clip: int [T], the clip of each caption. Raises ValueError for clips out of range.
    """
    check_caption_clip(caption_clip, logits_tv.shape[1])
    ways = dual_softmax(MatrixTiles(logits_tv, caption_clip))
    return {way: joined(matrix) for way, matrix in ways.items()}


def inverted_softmax_scores(
    logits_tv: np.ndarray, t2v_temp: float = 0.01, v2t_temp: float = 0.01
) -> tuple[np.ndarray, np.ndarray]:
    """EMCL-Net's (text to video, video to text) matrices of one caption a clip, float32 [N,N].

    Scores times their softmax over all texts (over all videos), times N, which changes no rank.
    """
    tiles = MatrixTiles(logits_tv, np.arange(len(logits_tv)))
    ways = dual_softmax(tiles, (t2v_temp, v2t_temp))
    t2v, v2t = (len(logits_tv) * joined(ways[way]) for way in ("t2v", "v2t"))
    return t2v, v2t


def count_both_ways(tiles: Tiles, normalisation: str = "none") -> dict[str, RankCounter]:
    """Count what ranks need, by direction.

    Args:
        tiles: the matrix before normalization; it is read up to four times.
        normalisation: a key of NORMALISATIONS.

    Returns:
        {"t2v": counter, "v2t": counter}, the same one if both directions rank by one matrix.

    Raises:
        ValueError: an unknown normalisation.
    """
    if normalisation not in NORMALISATIONS:
        known = ", ".join(NORMALISATIONS)
        raise ValueError(f"normalisation: expected one of {known}; got {normalisation!r}")
    ways: Mapping[str, Tiles] = {"t2v": tiles, "v2t": tiles}
    if normalisation != "none":
        temperature = TEMPERATURES[normalisation]
        ways = dual_softmax(tiles, (temperature, temperature))
    distinct = {id(matrix): matrix for matrix in ways.values()}
    counters = {key: count_ranks(matrix) for key, matrix in distinct.items()}
    return {way: counters[id(matrix)] for way, matrix in ways.items()}
