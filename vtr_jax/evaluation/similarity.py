"""The similarity matrix, computed once in tiles of one size, so that nothing recompiles."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from vtr_jax.cluster import to_host
from vtr_jax.evaluation.encode import take_rows
from vtr_jax.evaluation.rank_counter import RankCounter, caption_blocks, collect_own_scores
from vtr_jax.evaluation.score_matrix import (
    LARGEST_IN_MEMORY,
    MatrixTiles,
    Tile,
    Tiles,
    empty_matrix,
    tile_places,
)
from vtr_jax.evaluation.scoring import RECIPE_SCORING, Scoring, scored
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.retriever import Retriever
from vtr_jax.sharding import put_beside


@dataclasses.dataclass(frozen=True)
class SimilarityTiles:
    """logits_tv [T, V] of encoded captions and clips.

    The first use computes all tiles, each once, and keeps the matrix on the host; every later use
    reads it. Where scores depend on which texts and videos are compared together, scoring gets
    full rows, in strips that begin at multiples of its row_multiple.

    Attributes:
        retriever: the retriever whose features these are.
        text, video: features as NumPy arrays.
        caption_clip: the clip of every caption, int [T].
        tile: texts and videos per side of a tile. A tile contains all captions of a clip or none
            of them. The last tile of a row or column is padded to this size.
        scoring: compares texts and videos.
        largest_in_memory: bytes; a larger matrix is kept in a temporary file.
    """

    retriever: Retriever
    text: TextFeatures
    video: VideoFeatures
    caption_clip: np.ndarray
    tile: int = 256
    scoring: Scoring = RECIPE_SCORING
    largest_in_memory: int = LARGEST_IN_MEMORY

    @property
    def num_clips(self) -> int:
        """Columns of the matrix."""
        return len(self.video.mask)

    def __call__(self, only_own: bool = False) -> Iterator[Tile]:
        """(first text, first clip, tile [t, v]) row by row.

        only_own: leave out tiles in which no caption meets its own clip.
        """
        return self._matrix_tiles(only_own)

    def matrix(self) -> np.ndarray:
        """Return the full matrix, float32 [T, V]; it is not a copy."""
        return self._matrix_tiles.logits_tv

    @functools.cached_property
    def _matrix_tiles(self) -> MatrixTiles:
        logits_tv = empty_matrix(len(self.caption_clip), self.num_clips, self.largest_in_memory)
        multiple = self.scoring.row_multiple(self.retriever.config)
        computed = self._tiles() if multiple is None else self._strips(self._height(multiple))
        for first_text, first_clip, tile_tv in computed:
            rows, columns = tile_tv.shape
            logits_tv[first_text : first_text + rows, first_clip : first_clip + columns] = tile_tv
        if multiple is None:
            return MatrixTiles(logits_tv, self.caption_clip, self.tile)
        return MatrixTiles(
            logits_tv, self.caption_clip, self._height(multiple), width=self.num_clips
        )

    def _tiles(self) -> Iterator[Tile]:
        """Compute all tiles, each padded to one size."""
        height = max(r.stop - r.start for r in caption_blocks(self.caption_clip, self.tile))
        width = min(self.tile, self.num_clips)
        for rows, columns in tile_places(self.caption_clip, self.num_clips, self.tile, self.tile):
            text, video = take_rows(self.text, rows, height), take_rows(self.video, columns, width)
            placed = put_beside((text, video), self.retriever.params)
            tile_tv = to_host(scored(self.scoring, self.retriever, *placed))
            count_t, count_v = rows.stop - rows.start, columns.stop - columns.start
            yield rows.start, columns.start, tile_tv[:count_t, :count_v]

    def _height(self, multiple: int) -> int:
        return max(multiple, self.tile // multiple * multiple)

    def _strips(self, height: int) -> Iterator[Tile]:
        """Compute full rows, `height` at a time; only the last strip may be lower."""
        texts = len(self.caption_clip)
        video = put_beside(self.video, self.retriever.params)
        for start in range(0, texts, height):
            rows = slice(start, min(start + height, texts))
            text = put_beside(take_rows(self.text, rows, rows.stop - start), self.retriever.params)
            yield start, 0, to_host(scored(self.scoring, self.retriever, text, video))


def joined(tiles: Tiles) -> np.ndarray:
    """The matrix [T,V] that tiles make up, float32; for sizes that fit into memory."""
    logits_tv = np.empty((len(tiles.caption_clip), tiles.num_clips), np.float32)
    for first_text, first_clip, tile_tv in tiles():
        rows, columns = tile_tv.shape
        logits_tv[first_text : first_text + rows, first_clip : first_clip + columns] = tile_tv
    return logits_tv


def count_ranks(tiles: Tiles) -> RankCounter:
    """Count everything that ranks need."""
    own_scores = collect_own_scores(tiles.caption_clip, tiles(only_own=True))
    counter = RankCounter(own_scores, tiles.caption_clip, tiles.num_clips)
    for first_text, first_clip, tile_tv in tiles():
        counter.add(first_text, first_clip, tile_tv)
    return counter
