"""Tie rules, summaries and refusals of the rank metrics."""

from __future__ import annotations

import numpy as np
import pytest

from vtr_jax.evaluation.metrics import (
    TIE_RULES,
    emcl_groups,
    metrics_of,
    ranks_of,
    resolve_ties,
    retrieval_metrics,
    summarise,
    text_to_video_ranks,
    video_to_text_ranks,
)
from vtr_jax.evaluation.rank_counter import RankCounter

HAND_MADE = np.array(
    [[0.9, 0.1, 0.9, 0.3], [0.5, 0.4, 0.6, 0.4], [0.2, 0.2, 0.2, 0.2], [0.0, 0.7, 0.1, 0.8]],
    np.float32,
)
DIAGONAL = np.arange(4)


def sorted_rank(scores: np.ndarray, right: int) -> int:
    """The place of the right entry after a stable descending sort, NaN last."""
    comparable = np.where(np.isnan(scores), -np.inf, scores)
    order = sorted(range(len(scores)), key=lambda i: (np.isnan(scores[i]), -comparable[i], i))
    return order.index(right)


def test_hand_made_matrix():
    assert text_to_video_ranks(HAND_MADE, DIAGONAL).tolist() == [0, 2, 2, 0]
    assert text_to_video_ranks(HAND_MADE, DIAGONAL, "pessimistic").tolist() == [1, 3, 3, 0]
    assert text_to_video_ranks(HAND_MADE, DIAGONAL, "original").tolist() == [
        *(0, 1),
        *(2, 3),
        *(0, 1, 2, 3),
        0,
    ]
    assert video_to_text_ranks(HAND_MADE, DIAGONAL).tolist() == [0, 1, 2, 0]


def test_many_captions_by_hand():
    # Clip 1 has two captions; the better one speaks for it when videos ask for texts.
    logits_tv = np.array([[0.5, 0.6], [0.9, 0.1], [0.2, 0.8]], np.float32)
    caption_clip = np.array([0, 1, 1])
    assert text_to_video_ranks(logits_tv, caption_clip).tolist() == [1, 1, 0]
    assert video_to_text_ranks(logits_tv, caption_clip).tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(8))
def test_once_is_a_stable_sort_with_nan_last(seed):
    rng = np.random.default_rng(seed)
    clips = int(rng.integers(2, 9))
    caption_clip = rng.permutation(np.concatenate([np.arange(clips), rng.integers(0, clips, 7)]))
    logits_tv = rng.integers(0, 4, (len(caption_clip), clips)).astype(np.float32)
    logits_tv[rng.random(logits_tv.shape) < 0.1] = np.nan
    logits_tv[rng.random(logits_tv.shape) < 0.1] = -np.inf
    own = logits_tv[np.arange(len(caption_clip)), caption_clip]
    t2v = [
        clips - 1 if np.isnan(own[t]) else sorted_rank(logits_tv[t], caption_clip[t])
        for t in range(len(caption_clip))
    ]
    assert text_to_video_ranks(logits_tv, caption_clip).tolist() == t2v
    best_gv = np.stack([np.fmax.reduce(logits_tv[caption_clip == g]) for g in range(clips)])
    v2t = [
        clips - 1 if np.isnan(best_gv[v, v]) else sorted_rank(best_gv[:, v], v)
        for v in range(clips)
    ]
    assert video_to_text_ranks(logits_tv, caption_clip).tolist() == v2t


@pytest.mark.parametrize("ties", TIE_RULES)
def test_distinct_scores_leave_nothing_to_the_tie_rule(ties):
    logits_tv = np.random.default_rng(0).permutation(400).reshape(20, 20).astype(np.float32)
    expected = retrieval_metrics(logits_tv, np.arange(20), "once")
    ours = retrieval_metrics(logits_tv, np.arange(20), ties)
    if ties == "original-many":
        median = summarise(text_to_video_ranks(logits_tv, np.arange(20)), "lower")["MdR"]
        expected["t2v"]["MdR"] = median
    assert ours == expected


@pytest.mark.parametrize(("value", "recall"), [(0.0, 1.0), (np.inf, 1.0), (np.nan, 0.0)])
def test_constant_scores_reach_chance_and_no_more(value, recall):
    constant = np.full((100, 100), value, np.float32)
    metrics = retrieval_metrics(constant, np.arange(100))
    assert metrics["t2v"]["R@1"] == metrics["v2t"]["R@1"] == recall
    worst = retrieval_metrics(constant, np.arange(100), "pessimistic")
    assert worst["t2v"]["R@1"] == 0.0
    assert worst["t2v"]["MnR"] == 100.0


def test_every_query_counts_once_by_default():
    constant = np.zeros((6, 3), np.float32)
    caption_clip = np.repeat(np.arange(3), 2)
    metrics = retrieval_metrics(constant, caption_clip)
    assert (metrics["t2v"]["queries"], metrics["v2t"]["queries"]) == (6, 3)
    assert retrieval_metrics(np.zeros((3, 3)), np.arange(3), "original")["t2v"]["queries"] == 9


def test_nan_of_the_right_pair_is_counted_and_loses():
    logits_tv = np.eye(3, dtype=np.float32)
    logits_tv[1, 1] = np.nan
    assert text_to_video_ranks(logits_tv, np.arange(3)).tolist() == [0, 2, 0]
    assert text_to_video_ranks(logits_tv, np.arange(3), "pessimistic").tolist() == [0, 2, 0]
    assert text_to_video_ranks(logits_tv, np.arange(3), "original").tolist() == [0, 0]


def test_nan_of_another_pair_never_wins():
    logits_tv = np.array([[0.1, np.nan], [np.nan, 0.1]], np.float32)
    for ties in ("once", "pessimistic", "original"):
        assert text_to_video_ranks(logits_tv, np.arange(2), ties).tolist() == [0, 0]
        assert video_to_text_ranks(logits_tv, np.arange(2), ties).tolist() == [0, 0]


def test_the_original_sorts_nan_first_with_many_captions():
    logits_tv = np.array([[0.1, np.nan], [0.2, 0.3], [np.inf, 0.5]], np.float32)
    caption_clip = np.array([0, 1, 1])
    assert text_to_video_ranks(logits_tv, caption_clip, "original").tolist() == [1, 0, 1]
    logits_tv[2, 1] = np.inf
    assert text_to_video_ranks(logits_tv, caption_clip, "original").tolist() == [1, 0]


def test_captions_need_not_stand_in_clip_order():
    rng = np.random.default_rng(3)
    logits_tv = rng.random((12, 4), np.float32)
    caption_clip = np.repeat(np.arange(4), 3)
    order = rng.permutation(12)
    t2v = text_to_video_ranks(logits_tv, caption_clip)
    np.testing.assert_array_equal(
        text_to_video_ranks(logits_tv[order], caption_clip[order]), t2v[order]
    )
    np.testing.assert_array_equal(
        video_to_text_ranks(logits_tv[order], caption_clip[order]),
        video_to_text_ranks(logits_tv, caption_clip),
    )


def test_clips_without_captions_stay_in_the_gallery_but_ask_nothing():
    logits_tv = np.array([[0.5, 0.9, 0.1], [0.3, 0.8, 0.4]], np.float32)
    caption_clip = np.array([0, 2])
    assert text_to_video_ranks(logits_tv, caption_clip).tolist() == [1, 1]
    assert video_to_text_ranks(logits_tv, caption_clip).tolist() == [0, 0]


def test_summary_by_hand():
    ranks = np.array([0, 0, 3, 9, 49, 50])
    assert summarise(ranks) == pytest.approx(
        {"R@1": 100 / 3, "R@5": 50, "R@10": 200 / 3, "R@50": 500 / 6, "MdR": 7, "MnR": 19.5}
    )
    assert summarise(ranks, "lower")["MdR"] == 4
    assert summarise(np.array([2]))["MdR"] == 3


def test_emcl_takes_the_last_caption_of_the_clip_before():
    rows, caption_clip = emcl_groups(np.array([0, 0, 1, 1, 1, 2]))
    assert (rows.start, rows.stop) == (0, 5)
    assert caption_clip.tolist() == [0, 1, 1, 1, 2]


def test_original_follows_the_captions_a_clip():
    assert resolve_ties("original", np.array([0, 1, 2])) == "original"
    assert resolve_ties("original", np.array([0, 1, 1])) == "original-many"
    assert resolve_ties("original-emcl", np.array([0, 1, 2])) == "original"


def test_refusals_name_what_was_found():
    square = np.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match="expected one of once, pessimistic.*got 'best'"):
        retrieval_metrics(square, np.arange(2), "best")
    with pytest.raises(ValueError, match=r"\[texts, videos\], got shape \(2,\)"):
        retrieval_metrics(square[0], np.arange(2))
    with pytest.raises(ValueError, match=r"got shape \(0, 2\)"):
        retrieval_metrics(square[:0], np.arange(0))
    with pytest.raises(ValueError, match="2 rows but caption_clip names 1"):
        retrieval_metrics(square, np.arange(1))
    with pytest.raises(ValueError, match=r"of 2 clips \(0 to 1\), got 0 to 2"):
        retrieval_metrics(square, np.array([0, 2]))
    with pytest.raises(ValueError, match="expected integers, got float64"):
        retrieval_metrics(square, np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="at least one query"):
        summarise(np.array([], np.int64))
    with pytest.raises(ValueError, match="'middle' or 'lower', got 'upper'"):
        summarise(np.array([1]), "upper")
    with pytest.raises(ValueError, match="order of their clips"):
        emcl_groups(np.array([1, 0, 0]))


def test_all_queries_dropped_by_the_original_rule_is_an_error_not_a_score():
    with pytest.raises(ValueError, match="at least one query"):
        retrieval_metrics(np.full((2, 2), np.nan, np.float32), np.arange(2), "original")


def test_a_counter_cannot_change_its_groups_afterwards():
    logits_tv = np.random.default_rng(0).random((5, 2), np.float32)
    caption_clip = np.array([0, 0, 1, 1, 1])
    counter = RankCounter(logits_tv[np.arange(5), caption_clip], caption_clip, 2)
    counter.add(0, 0, logits_tv)
    with pytest.raises(ValueError, match="emcl_groups"):
        ranks_of(counter, "original-emcl")
    rows, shifted = emcl_groups(caption_clip)
    again = RankCounter(logits_tv[rows][np.arange(4), shifted], shifted, 2)
    again.add(0, 0, logits_tv[rows])
    assert metrics_of(again, "original-many") == retrieval_metrics(
        logits_tv, caption_clip, "original-emcl"
    )


@pytest.mark.parametrize("queries", [100, 1000, 670])
def test_percentages_are_those_of_whole_numbers(queries):
    """43 of 100 is 43.0, not 42.99999999999999."""
    for hits in range(queries + 1):
        ranks = np.where(np.arange(queries) < hits, 0, 99)
        assert summarise(ranks)["R@1"] == 100 * hits / queries
        assert summarise(ranks)["MnR"] == (100 * queries - 99 * hits) / queries
