"""The similarity matrix in tiles: every tile size gives the same matrix and the same ranks."""

from __future__ import annotations

import numpy as np
import pytest

from vtr_jax.evaluation.metrics import metrics_of, ranks_of, retrieval_metrics
from vtr_jax.evaluation.rank_counter import collect_own_scores
from vtr_jax.evaluation.scoring import scored
from vtr_jax.evaluation.similarity import SimilarityTiles, count_ranks
from vtr_jax.models.features import TextFeatures, VideoFeatures

CLIPS, FRAMES, WIDTH = 13, 3, 32
RELATIONS = {
    "one caption a clip": np.arange(CLIPS),
    "many captions a clip": np.repeat(np.arange(CLIPS), [1, 5, 2, 1, 1, 3, 1, 1, 2, 1, 9, 1, 1]),
    "captions in any order": np.random.default_rng(1).permutation(np.repeat(np.arange(CLIPS), 2)),
    "clips without captions": np.array([0, 2, 2, 5, 11, 11]),
}


@pytest.fixture(scope="module")
def retriever(tiny_retriever):
    return tiny_retriever("clip4clip")


def features(texts):
    rng = np.random.default_rng(0)
    mask = (np.arange(FRAMES) < rng.integers(1, FRAMES + 1, (CLIPS, 1))).astype(np.int32)
    text = TextFeatures(
        rng.normal(size=(texts, WIDTH)).astype(np.float32),
        np.zeros((texts, 0, WIDTH), np.float32),
        np.ones((texts, 8), np.int32),
    )
    temporal = rng.normal(size=(CLIPS, FRAMES, WIDTH)).astype(np.float32)
    return text, VideoFeatures(temporal[:, :0], temporal, None, None, mask)


def matrix_by_numpy(retriever, text, video):
    """Cosine with the mean of the normalised frames, times the scale, in double precision."""

    def normalised(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    weights = video.mask[..., None].astype(np.float64)
    mean_vd = (normalised(video.temporal.astype(np.float64)) * weights).sum(1) / weights.sum(1)
    cosine_tv = normalised(text.sentence.astype(np.float64)) @ normalised(mean_vd).T
    return np.exp(float(retriever.params["logit_scale"])) * cosine_tv


@pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)
@pytest.mark.parametrize("tile", [1, 5, 13, 400])
def test_every_tile_size_gives_the_whole_matrix_and_its_ranks(retriever, relation, tile):
    text, video = features(len(relation))
    tiles = SimilarityTiles(retriever, text, video, relation, tile)
    expected = matrix_by_numpy(retriever, text, video)
    matrix_tv = tiles.matrix()
    np.testing.assert_allclose(matrix_tv, expected, rtol=1e-4, atol=1e-5)
    assert matrix_tv.dtype == np.float32
    counter = count_ranks(tiles)
    assert metrics_of(counter) == retrieval_metrics(expected, relation)
    ranks = ranks_of(counter)["t2v"]
    by_sorting = [
        np.flatnonzero(np.argsort(-row) == clip)[0]
        for row, clip in zip(expected, relation, strict=True)
    ]
    np.testing.assert_array_equal(ranks, by_sorting)


def test_tiles_hold_all_captions_of_a_clip_and_one_shape(retriever):
    relation = RELATIONS["many captions a clip"]
    text, video = features(len(relation))
    tiles = SimilarityTiles(retriever, text, video, relation, tile=4)
    before = scored._cache_size()
    seen = np.zeros((len(relation), CLIPS), int)
    for first_text, first_clip, tile_tv in tiles():
        rows = slice(first_text, first_text + tile_tv.shape[0])
        seen[rows, first_clip : first_clip + tile_tv.shape[1]] += 1
        others = np.delete(relation, np.arange(rows.start, rows.stop))
        assert not set(relation[rows]) & set(others)
    assert (seen == 1).all()
    # The last tiles are padded to the shape of the first.
    assert scored._cache_size() == before + 1


def test_the_same_tile_has_the_same_bits_every_time(retriever):
    text, video = features(CLIPS)
    tiles = SimilarityTiles(retriever, text, video, np.arange(CLIPS), tile=5)
    for (*place, ours), (*again, theirs) in zip(tiles(), tiles(), strict=True):
        assert place == again
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)
def test_tiles_with_own_pairs_hold_every_own_score(retriever, relation):
    text, video = features(len(relation))
    tiles = SimilarityTiles(retriever, text, video, relation, tile=3)
    own = collect_own_scores(relation, tiles(only_own=True))
    matrix_tv = tiles.matrix()
    np.testing.assert_array_equal(own, matrix_tv[np.arange(len(relation)), relation])


def test_tiles_without_own_pairs_are_left_out(retriever):
    text, video = features(CLIPS)
    tiles = SimilarityTiles(retriever, text, video, np.arange(CLIPS), tile=5)
    assert (len(list(tiles(only_own=True))), len(list(tiles()))) == (3, 9)


def test_equal_scores_stand_in_gallery_order(retriever):
    text, video = features(4)
    video.temporal[:] = video.temporal[:1]
    video.mask[:] = 1
    tiles = SimilarityTiles(retriever, text, video, np.array([0, 3, 6, 12]), tile=5)
    np.testing.assert_array_equal(ranks_of(count_ranks(tiles))["t2v"], [0, 3, 6, 12])
    np.testing.assert_array_equal(ranks_of(count_ranks(tiles), "pessimistic")["t2v"], [12] * 4)
