"""Dual softmax over tiles: the same as over the whole matrix, whatever the tiles."""

from __future__ import annotations

import numpy as np
import pytest

from vtr_jax.evaluation.metrics import metrics_of, retrieval_metrics
from vtr_jax.evaluation.normalisation import (
    MatrixTiles,
    SoftmaxSums,
    count_both_ways,
    dual_softmax,
    dual_softmax_scores,
)
from vtr_jax.evaluation.similarity import joined

ONE_CAPTION = np.arange(9)
SEVERAL = np.repeat(np.arange(9), [1, 3, 2, 1, 4, 1, 1, 2, 5])


def scores_of(caption_clip, spread=20.0):
    rng = np.random.default_rng(len(caption_clip))
    return (spread * rng.standard_normal((len(caption_clip), 9))).astype(np.float32)


def softmax(scores, axis):
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=axis, keepdims=True))
    return shifted / shifted.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("tile", [1, 4, 100])
@pytest.mark.parametrize("caption_clip", [ONE_CAPTION, SEVERAL], ids=["one", "several"])
def test_tiles_give_what_the_whole_matrix_gives(caption_clip, tile):
    logits_tv = scores_of(caption_clip)
    ways = dual_softmax(MatrixTiles(logits_tv, caption_clip, tile))
    over_texts = (logits_tv * softmax(logits_tv, 0)).astype(np.float32)
    over_videos = (logits_tv * softmax(logits_tv, 1)).astype(np.float32)
    # The sums are float64, so the order of tiles is below the last digit of float32.
    close = {"rtol": 2e-7, "atol": 1e-30}
    np.testing.assert_allclose(joined(ways["t2v"]), over_texts, **close)
    one_caption = len(caption_clip) == 9
    expected = over_videos if one_caption else over_texts
    np.testing.assert_allclose(joined(ways["v2t"]), expected, **close)
    assert (ways["t2v"] is ways["v2t"]) == (not one_caption)


@pytest.mark.parametrize("tile", [2, 100])
def test_each_direction_is_ranked_by_its_own_matrix(tile):
    logits_tv = scores_of(ONE_CAPTION, spread=2.0)
    counters = count_both_ways(MatrixTiles(logits_tv, ONE_CAPTION, tile), "dual_softmax")
    for way, axis in (("t2v", 0), ("v2t", 1)):
        weighted = (logits_tv * softmax(logits_tv, axis)).astype(np.float32)
        assert metrics_of(counters[way])[way] == retrieval_metrics(weighted, ONE_CAPTION)[way]
    plain = retrieval_metrics(logits_tv, ONE_CAPTION)
    assert metrics_of(counters["t2v"])["t2v"] != plain["t2v"]


def test_without_normalisation_one_count_serves_both_directions():
    logits_tv = scores_of(SEVERAL)
    counters = count_both_ways(MatrixTiles(logits_tv, SEVERAL, 4))
    assert counters["t2v"] is counters["v2t"]
    assert metrics_of(counters["t2v"]) == retrieval_metrics(logits_tv, SEVERAL)


def test_large_scores_do_not_overflow():
    logits_tv = np.array([[3e4, 2e4], [1e4, -3e4]], np.float32)
    weighted = joined(dual_softmax(MatrixTiles(logits_tv, np.arange(2), 1))["t2v"])
    np.testing.assert_array_equal(weighted, [[3e4, 2e4], [0, 0]])


def test_an_undefined_score_spoils_its_own_row_and_column_only():
    logits_tv = scores_of(ONE_CAPTION)
    logits_tv[2, 5] = np.nan
    ways = dual_softmax(MatrixTiles(logits_tv, ONE_CAPTION, 4))
    of_texts, of_videos = np.isnan(joined(ways["t2v"])), np.isnan(joined(ways["v2t"]))
    assert of_texts[:, 5].all() and of_texts.sum() == 9
    assert of_videos[2].all() and of_videos.sum() == 9


def test_sums_count_every_tile_once_in_any_order():
    logits_tv = scores_of(ONE_CAPTION)
    forwards, backwards = SoftmaxSums.empty(0, 9, 9), SoftmaxSums.empty(0, 9, 9)
    tiles = list(MatrixTiles(logits_tv, ONE_CAPTION, 4)())
    for tile in tiles:
        forwards.add(*tile)
    for tile in reversed(tiles):
        backwards.add(*tile)
    np.testing.assert_array_equal(forwards.peak, logits_tv.max(axis=0))
    np.testing.assert_allclose(forwards.total, backwards.total, rtol=1e-14)


def test_an_unknown_normalisation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="normalisation: expected one of none, dual_softmax, inv"):
        count_both_ways(MatrixTiles(scores_of(ONE_CAPTION), ONE_CAPTION, 4), "dsl")


def test_captions_of_clips_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="expected indices of 9 clips"):
        dual_softmax_scores(scores_of(ONE_CAPTION), ONE_CAPTION + 1)
