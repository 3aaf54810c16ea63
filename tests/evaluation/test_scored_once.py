"""Every text is compared with every video exactly once per evaluation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from vtr_jax.checkpoint import load_retriever
from vtr_jax.data.annotations import read_split
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.evaluation import evaluate, similarity
from vtr_jax.evaluation.evaluate import EvaluationSettings, evaluate_split
from vtr_jax.evaluation.normalisation import NORMALISATIONS, count_both_ways
from vtr_jax.evaluation.rank_counter import RankCounter, caption_blocks
from vtr_jax.evaluation.scoring import RECIPE_SCORING, EmclScoring
from vtr_jax.evaluation.similarity import SimilarityTiles
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.recipes import RECIPES
from vtr_jax.sharding import make_mesh

CLIPS, TILE = 11, 8
RELATIONS = {
    "one caption": np.arange(CLIPS),
    "several captions": np.repeat(np.arange(CLIPS), [1, 5, 2, 1, 1, 3, 1, 1, 2, 1, 9]),
}
SCORINGS = {name: (name, RECIPE_SCORING) for name in sorted(RECIPES)}
SCORINGS["emcl over clip4clip"] = ("clip4clip", EmclScoring(batch_size_val=4))


def numbered_features(texts):
    """Features that are the numbers of their text and video."""
    text = TextFeatures(
        np.arange(texts, dtype=np.float32)[:, None],
        np.zeros((texts, 0, 1), np.float32),
        np.ones((texts, 1), np.int32),
    )
    places_vfd = np.arange(CLIPS, dtype=np.float32)[:, None, None]
    return text, VideoFeatures(places_vfd[:, :0], places_vfd, None, None, np.ones((CLIPS, 1), int))


@pytest.fixture
def compared(monkeypatch):
    """How often each text met each video [T, V], and the pairs of each call; scores are 0."""

    class Record:
        counts = np.zeros((40, CLIPS), int)
        pairs: list[int] = []

    record = Record()
    record.pairs = []
    record.counts = np.zeros((40, CLIPS), int)

    def scored(scoring, retriever, text, video):
        texts = np.asarray(text.sentence)[:, 0].astype(int)
        videos = np.asarray(video.temporal)[:, 0, 0].astype(int)
        # Padding repeats rows of a tile, so distinct numbers are what was needed.
        record.counts[np.ix_(np.unique(texts), np.unique(videos))] += 1
        record.pairs.append(len(texts) * len(videos))
        return np.zeros((len(texts), len(videos)), np.float32)

    monkeypatch.setattr(similarity, "scored", scored)
    return record


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)
@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS)
def test_each_pair_is_computed_once(tiny_retriever, compared, scoring, relation, normalisation):
    recipe, scoring = scoring
    retriever = tiny_retriever(recipe)
    text, video = numbered_features(len(relation))
    tiles = SimilarityTiles(retriever, text, video, relation, TILE, scoring)
    count_both_ways(tiles, normalisation)
    tiles.matrix()
    count_both_ways(tiles, normalisation)
    assert (compared.counts[: len(relation)] == 1).all()
    assert not compared.counts[len(relation) :].any()
    needed = len(relation) * CLIPS
    if scoring.row_multiple(retriever.config) is not None:
        assert sum(compared.pairs) == needed
        return
    # All tiles have the size of the largest, so that one program is compiled.
    blocks = [rows.stop - rows.start for rows in caption_blocks(relation, TILE)]
    assert set(compared.pairs) == {max(blocks) * TILE}
    assert sum(compared.pairs) == len(blocks) * max(blocks) * math.ceil(CLIPS / TILE) * TILE


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_an_evaluation_ranks_each_direction_once(
    tiny_run, tiny_store, tiny_dataset, monkeypatch, normalisation
):
    split = read_split("table", tiny_dataset.captions_file, "train")
    pairs, scored = [], similarity.scored

    def counted(scoring, retriever, text, video):
        logits_tv = scored(scoring, retriever, text, video)
        pairs.append(logits_tv.size)
        return logits_tv

    directions, ranks_of_direction = [], evaluate.ranks_of_direction

    def ranked(counter, direction, ties):
        directions.append(direction)
        return ranks_of_direction(counter, direction, ties)

    monkeypatch.setattr(similarity, "scored", counted)
    monkeypatch.setattr(evaluate, "ranks_of_direction", ranked)
    settings = EvaluationSettings(12, 4, batch_size=8, tile=16, normalisation=normalisation)
    evaluation = evaluate_split(
        load_retriever(tiny_run), FrameStore.open(tiny_store), split, settings, make_mesh()
    )
    assert sum(pairs) == len(split.captions) * len(split.clips) == evaluation.tiles.matrix().size
    assert directions == ["t2v", "v2t"]


@pytest.mark.parametrize("several", [False, True])
def test_ranks_are_counted_once_per_matrix(monkeypatch, several):
    """Dual softmax ranks both directions by one matrix if clips have several captions."""
    relation = RELATIONS["several captions" if several else "one caption"]
    rng = np.random.default_rng(0)
    logits_tv = rng.normal(size=(len(relation), CLIPS)).astype(np.float32)
    tiles = similarity.MatrixTiles(logits_tv, relation, TILE)
    added, add = [], RankCounter.add

    def counted(self, first_text, first_clip, tile_tv):
        added.append(tile_tv.size)
        add(self, first_text, first_clip, tile_tv)

    monkeypatch.setattr(RankCounter, "add", counted)
    for normalisation, matrices in (("none", 1), ("dual_softmax", 1 if several else 2)):
        added.clear()
        count_both_ways(tiles, normalisation)
        assert sum(added) == matrices * logits_tv.size


def test_the_matrix_is_the_same_in_memory_and_in_a_file(tiny_retriever, monkeypatch):
    rng = np.random.default_rng(1)
    relation = RELATIONS["several captions"]
    scores_tv = rng.normal(size=(len(relation), CLIPS)).astype(np.float32)
    scores_tv[3, 4], scores_tv[5], scores_tv[:, 7] = np.nan, np.inf, scores_tv[:, 6]
    monkeypatch.setattr(
        similarity,
        "scored",
        lambda scoring, retriever, text, video: scores_tv[
            np.ix_(
                np.asarray(text.sentence)[:, 0].astype(int),
                np.asarray(video.temporal)[:, 0, 0].astype(int),
            )
        ],
    )
    tiles = SimilarityTiles(
        tiny_retriever("clip4clip"), *numbered_features(len(relation)), relation, TILE
    )
    in_file = dataclasses.replace(tiles, largest_in_memory=0)
    assert isinstance(in_file.matrix(), np.memmap) and not isinstance(tiles.matrix(), np.memmap)
    assert tiles.matrix().tobytes() == in_file.matrix().tobytes() == scores_tv.tobytes()
