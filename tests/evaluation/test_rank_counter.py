"""Tiles in any order give the ranks of the whole matrix, and incomplete ones are refused."""

from __future__ import annotations

import numpy as np
import pytest

from vtr_jax.evaluation.metrics import TIE_RULES, metrics_of, ranks_of, retrieval_metrics
from vtr_jax.evaluation.rank_counter import RankCounter, caption_blocks, collect_own_scores

COUNTING_RULES = [rule for rule in TIE_RULES if rule != "original-emcl"]


def tiles_of(logits_tv, caption_clip, rows, columns, rng):
    blocks = [
        (block.start, first, logits_tv[block, first : first + columns])
        for block in caption_blocks(caption_clip, rows)
        for first in range(0, logits_tv.shape[1], columns)
    ]
    return [blocks[i] for i in rng.permutation(len(blocks))]


@pytest.mark.parametrize("ties", COUNTING_RULES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 3), (7, 100), (100, 2)])
@pytest.mark.parametrize("captions", ["one", "many", "mixed order"])
def test_tiles_equal_the_whole_matrix(ties, rows, columns, captions):
    rng = np.random.default_rng([rows, columns])
    clips = 11
    caption_clip = np.arange(clips)
    if captions != "one":
        caption_clip = np.repeat(caption_clip, rng.integers(1, 5, clips))
    if captions == "mixed order":
        caption_clip = rng.permutation(caption_clip)
    logits_tv = rng.integers(0, 6, (len(caption_clip), clips)).astype(np.float32)
    logits_tv[rng.random(logits_tv.shape) < 0.05] = np.nan
    logits_tv[rng.random(logits_tv.shape) < 0.05] = -np.inf
    tiles = tiles_of(logits_tv, caption_clip, rows, columns, rng)
    own_scores = collect_own_scores(caption_clip, tiles)
    np.testing.assert_array_equal(own_scores, logits_tv[np.arange(len(caption_clip)), caption_clip])
    counter = RankCounter(own_scores, caption_clip, clips)
    for tile in tiles:
        counter.add(*tile)
    assert metrics_of(counter, ties) == retrieval_metrics(logits_tv, caption_clip, ties)


def test_the_right_entry_never_beats_itself():
    # The own scores come from another arithmetic here, one float32 step below the tile's.
    logits_tv = np.eye(3, dtype=np.float32)
    counter = RankCounter(np.nextafter(np.ones(3, np.float32), 0), np.arange(3), 3)
    counter.add(0, 0, logits_tv)
    assert ranks_of(counter)["t2v"].tolist() == [0, 0, 0]
    assert ranks_of(counter)["v2t"].tolist() == [0, 0, 0]


def test_blocks_keep_the_captions_of_a_clip_together():
    grouped = np.repeat([0, 1, 2, 3], [2, 3, 1, 6])
    assert [(b.start, b.stop) for b in caption_blocks(grouped, 5)] == [(0, 5), (5, 6), (6, 12)]
    assert [(b.start, b.stop) for b in caption_blocks(np.array([4, 0, 4, 2]), 1)] == [
        (0, 3),
        (3, 4),
    ]
    assert [(b.start, b.stop) for b in caption_blocks(np.arange(5), 2)] == [(0, 2), (2, 4), (4, 5)]
    assert list(caption_blocks(np.array([], np.int64), 2)) == []
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        list(caption_blocks(grouped, 0))


def test_tiles_that_do_not_fit_are_refused():
    caption_clip = np.array([0, 0, 1])
    counter = RankCounter(np.zeros(3, np.float32), caption_clip, 2)
    with pytest.raises(ValueError, match="only some captions of clip 0.*caption_blocks"):
        counter.add(0, 0, np.zeros((1, 2), np.float32))
    with pytest.raises(ValueError, match="outside the matrix of 3 texts x 2 clips"):
        counter.add(0, 1, np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="is empty or outside"):
        counter.add(0, 0, np.zeros((0, 2), np.float32))
    with pytest.raises(ValueError, match="for each of 3 captions, got shape"):
        RankCounter(np.zeros(2, np.float32), caption_clip, 2)


def test_missing_and_repeated_tiles_are_refused():
    counter = RankCounter(np.zeros(2, np.float32), np.arange(2), 2)
    counter.add(0, 0, np.zeros((2, 1), np.float32))
    with pytest.raises(ValueError, match="cover 2 of 4 scores"):
        ranks_of(counter)
    counter.add(0, 0, np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="cover 6 of 4 scores"):
        ranks_of(counter)


def test_a_missing_own_score_is_named():
    with pytest.raises(ValueError, match=r"own score of caption 1 \(1 of 2 are missing\)"):
        collect_own_scores(np.arange(2), [(0, 0, np.zeros((2, 1), np.float32))])
