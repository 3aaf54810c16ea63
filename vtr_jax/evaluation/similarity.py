"""The similarity matrix in tiles of one size, so that nothing recompiles and nothing overflows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from vtr_jax.cluster import to_host
from vtr_jax.evaluation.encode import take_rows
from vtr_jax.evaluation.rank_counter import RankCounter, caption_blocks, collect_own_scores
from vtr_jax.evaluation.scoring import RECIPE_SCORING, Scoring, scored
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.retriever import Retriever
from vtr_jax.sharding import put_beside

Tile = tuple[int, int, np.ndarray]


class Tiles(Protocol):
    """A matrix [T,V] in tiles (first text, first clip, scores [t,v]), as often as wanted."""

    @property
    def caption_clip(self) -> np.ndarray:
        """The clip of every caption, int [T]."""

    @property
    def num_clips(self) -> int:
        """Columns of the matrix."""

    def __call__(self, only_own: bool = False) -> Iterator[Tile]:
        """All tiles; only_own: those in which a caption meets its own clip, at least."""


@dataclasses.dataclass(frozen=True)
class SimilarityTiles:
    """logits_tv [T,V] of encoded captions and clips, computed tile by tile on demand.

    text, video: features as NumPy arrays. caption_clip: int [T], the clip of every caption.
    tile: texts and videos a side. A tile holds all captions of a clip or none of them, and the
    same tile has the same bits every time. Where scores depend on which texts and videos are
    compared together, scoring gets whole rows, in strips that begin at multiples of row_multiple.
    """

    retriever: Retriever
    text: TextFeatures
    video: VideoFeatures
    caption_clip: np.ndarray
    tile: int = 256
    scoring: Scoring = RECIPE_SCORING

    @property
    def num_clips(self) -> int:
        """Columns of the matrix."""
        return len(self.video.mask)

    @property
    def _row_multiple(self) -> int | None:
        return self.scoring.row_multiple(self.retriever.config)

    def _tile(self, rows: slice, columns: slice, height: int) -> Tile:
        width = min(self.tile, self.num_clips)
        text, video = take_rows(self.text, rows, height), take_rows(self.video, columns, width)
        placed = put_beside((text, video), self.retriever.params)
        tile_tv = to_host(scored(self.scoring, self.retriever, *placed))
        count_t, count_v = rows.stop - rows.start, columns.stop - columns.start
        return rows.start, columns.start, tile_tv[:count_t, :count_v]

    def _strip_height(self, multiple: int) -> int:
        return max(multiple, self.tile // multiple * multiple)

    def _strips(self, multiple: int) -> Iterator[np.ndarray]:
        """Whole rows, some at a time; only the last strip may have another height."""
        height, texts = self._strip_height(multiple), len(self.caption_clip)
        video = put_beside(self.video, self.retriever.params)
        for start in range(0, texts, height):
            rows = slice(start, min(start + height, texts))
            text = put_beside(take_rows(self.text, rows, rows.stop - start), self.retriever.params)
            yield to_host(scored(self.scoring, self.retriever, text, video))

    def _whole_rows(self, multiple: int) -> Iterator[Tile]:
        """Strips cut again where a clip's captions end, so that no tile parts them."""
        strips = self._strips(multiple)
        pending_tv = np.empty((0, self.num_clips), np.float32)
        for rows in caption_blocks(self.caption_clip, self._strip_height(multiple)):
            height = rows.stop - rows.start
            while len(pending_tv) < height:
                pending_tv = np.concatenate([pending_tv, next(strips)])
            yield rows.start, 0, pending_tv[:height]
            pending_tv = pending_tv[height:]

    def __call__(self, only_own: bool = False) -> Iterator[Tile]:
        """(first text, first clip, tile [t,v]) row by row.

        only_own: leave out tiles in which no caption meets its own clip.
        """
        if self._row_multiple is not None:
            yield from self._whole_rows(self._row_multiple)
            return
        blocks = list(caption_blocks(self.caption_clip, self.tile))
        height = max(rows.stop - rows.start for rows in blocks)
        for rows in blocks:
            clips = self.caption_clip[rows]
            for start in range(0, self.num_clips, self.tile):
                columns = slice(start, min(start + self.tile, self.num_clips))
                holds_own = np.any((clips >= columns.start) & (clips < columns.stop))
                if holds_own or not only_own:
                    yield self._tile(rows, columns, height)

    def matrix(self) -> np.ndarray:
        """The whole matrix, float32 [T,V]; for sizes that fit into memory."""
        return joined(self)


def joined(tiles: Tiles) -> np.ndarray:
    """The matrix [T,V] that tiles make up, float32; for sizes that fit into memory."""
    logits_tv = np.empty((len(tiles.caption_clip), tiles.num_clips), np.float32)
    for first_text, first_clip, tile_tv in tiles():
        rows, columns = tile_tv.shape
        logits_tv[first_text : first_text + rows, first_clip : first_clip + columns] = tile_tv
    return logits_tv


def count_ranks(tiles: Tiles) -> RankCounter:
    """Everything ranks need, counted without ever holding the matrix."""
    own_scores = collect_own_scores(tiles.caption_clip, tiles(only_own=True))
    counter = RankCounter(own_scores, tiles.caption_clip, tiles.num_clips)
    for first_text, first_clip, tile_tv in tiles():
        counter.add(first_text, first_clip, tile_tv)
    return counter
