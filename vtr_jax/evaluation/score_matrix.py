"""A similarity matrix on the host, read in tiles.

logits_tv = empty_matrix(texts, videos)                 # in memory, or in a temporary file
for first_text, first_clip, tile_tv in MatrixTiles(logits_tv, caption_clip, tile=256)():
    ...
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vtr_jax.cluster import is_first
from vtr_jax.evaluation.rank_counter import caption_blocks

Tile = tuple[int, int, np.ndarray]

# Bytes. Larger matrices are kept in a temporary file: 2 GiB are 59,800 captions x 8,977 clips.
LARGEST_IN_MEMORY = 2 << 30


class Tiles(Protocol):
    """A matrix [T,V] in tiles (first text, first clip, scores [t,v]); may be iterated repeatedly.

    A tile contains all captions of a clip or none of them.
    """

    @property
    def caption_clip(self) -> np.ndarray:
        """The clip of every caption, int [T]."""

    @property
    def num_clips(self) -> int:
        """Columns of the matrix."""

    def __call__(self, only_own: bool = False) -> Iterator[Tile]:
        """All tiles; only_own: those in which a caption meets its own clip."""


@dataclass(frozen=True)
class MatrixTiles:
    """A matrix on the host in tiles.

    Attributes:
        logits_tv: scores, float [T, V].
        caption_clip: the clip of every caption, int [T].
        tile: rows per tile, at most, unless one clip has more captions.
        width: columns per tile; None = as many as rows.
    """

    logits_tv: np.ndarray
    caption_clip: np.ndarray
    tile: int = 4096
    width: int | None = None

    @property
    def num_clips(self) -> int:
        """Columns of the matrix."""
        return self.logits_tv.shape[1]

    def __call__(self, only_own: bool = False) -> Iterator[Tile]:
        """Views of the matrix, row by row; only_own: those in which a caption meets its clip."""
        for rows, columns in tile_places(
            self.caption_clip, self.num_clips, self.tile, self.width or self.tile
        ):
            clips = self.caption_clip[rows]
            if not only_own or np.any((clips >= columns.start) & (clips < columns.stop)):
                yield rows.start, columns.start, self.logits_tv[rows, columns]


def tile_places(
    caption_clip: np.ndarray, num_clips: int, height: int, width: int
) -> Iterator[tuple[slice, slice]]:
    """Cut a matrix into tiles that never separate the captions of a clip.

    Args:
        caption_clip: the clip of every caption, int [T].
        num_clips: columns of the matrix.
        height: rows per tile, as in `caption_blocks`.
        width: columns per tile.

    Yields:
        rows and columns of each tile, row by row.
    """
    for rows in caption_blocks(caption_clip, height):
        for start in range(0, num_clips, width):
            yield rows, slice(start, min(start + width, num_clips))


def empty_matrix(texts: int, videos: int, largest_in_memory: int = LARGEST_IN_MEMORY) -> np.ndarray:
    """Return an uninitialized float32 matrix [texts, videos].

    A matrix of more than `largest_in_memory` bytes is mapped from a temporary file. The file has
    no name, so the system removes it with the array, also if the process is killed.

    Raises:
        OSError: the folder of temporary files has too little space.
    """
    size = 4 * texts * videos
    if size <= largest_in_memory:
        return np.empty((texts, videos), np.float32)
    folder = tempfile.gettempdir()
    with tempfile.TemporaryFile(dir=folder) as file:
        _reserve(file.fileno(), size, folder)
        if is_first():
            print(
                f"score matrix: {texts} x {videos} scores ({size / 2**30:.1f} GiB) in a temporary "
                f"file in {folder}, removed after the evaluation; TMPDIR chooses another folder",
                file=sys.stderr,
                flush=True,
            )
        return np.memmap(file, np.float32, "r+", shape=(texts, videos))


def _reserve(descriptor: int, size: int, folder: str) -> None:
    # Writing into a mapped file on a full disk would end the process with a bus error.
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        raise OSError(
            f"{folder}: expected room for a score matrix of {size / 2**30:.1f} GiB, found too "
            f"little ({os.strerror(error.errno)}); set TMPDIR to a folder with more space"
        ) from error
