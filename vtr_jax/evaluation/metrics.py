"""Ranks and recalls from similarity scores, exact for ties, NaN and many captions a video clip.

    ranks = text_to_video_ranks(logits_tv, caption_clip)      # 0 = the right clip came first
    summarise(ranks)                                          # {"R@1": 48.0, ..., "MnR": 13.1}
    retrieval_metrics(logits_tv, caption_clip)                # both directions

A matrix that does not fit into memory is counted by rank_counter.RankCounter and read with
`ranks_of` and `metrics_of`; the functions of a whole matrix are a loop over the same counter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vtr_jax.evaluation.rank_counter import (
    Counts,
    RankCounter,
    caption_blocks,
    check_caption_clip,
)

TIE_RULES = {
    "once": "one rank a query; equal scores stand in gallery order, NaN stands last",
    "pessimistic": "one rank a query; every equal score stands before the right one, NaN last",
    "original": "as CLIP4Clip: with one caption a clip every tied position counts as a query; "
    "with many captions as original-many; queries without a finite right score are left out",
    "original-many": "as CLIP4Clip's protocol for many captions a clip: text to video one rank a "
    "caption and the lower median, video to text the best caption of each clip with every tied "
    "position counted; queries without a finite right score are left out",
    "original-emcl": "as original, with many captions a clip in EMCL-Net's groups: each begins "
    "with the last caption of the clip before, the very last caption is dropped",
}
RECALL_LEVELS = (1, 5, 10, 50)
_DIRECTIONS = ("t2v", "v2t")
_BLOCK_SCORES = 1 << 24


def text_to_video_ranks(
    logits_tv: np.ndarray, caption_clip: np.ndarray, ties: str = "once"
) -> np.ndarray:
    """Ranks the right video clip of every caption, 0 = first.

    logits_tv: float [T,V]; caption_clip: int [T], the clip of each caption; ties: a key of
    TIE_RULES. Returns int64 [T]; the `original` rules repeat tied queries and drop those whose
    right score is infinite or NaN. Raises ValueError for shapes or indices that do not fit.
    """
    counter, rule = _counted(logits_tv, caption_clip, ties)
    return _ORDERS[rule][0](counter.text_counts())


def video_to_text_ranks(
    logits_tv: np.ndarray, caption_clip: np.ndarray, ties: str = "once"
) -> np.ndarray:
    """Ranks the right captions of every video clip that has some, 0 = first, in clip order.

    A clip's captions count as one gallery entry with the score of the best of them, so a rank is
    how many other clips have a caption that beats the clip's own best one. Arguments, return value
    and errors as in `text_to_video_ranks`; `original` refuses clips without captions.
    """
    counter, rule = _counted(logits_tv, caption_clip, ties)
    return _clip_ranks(counter, rule)


def retrieval_metrics(
    logits_tv: np.ndarray, caption_clip: np.ndarray, ties: str = "once"
) -> dict[str, dict[str, float]]:
    """Returns {"t2v": {"R@1": …, "queries": …}, "v2t": …} of a whole similarity matrix [T,V]."""
    return metrics_of(*_counted(logits_tv, caption_clip, ties))


def metrics_of(counter: RankCounter, ties: str = "once") -> dict[str, dict[str, float]]:
    """Returns `summarise` and the number of queries for both directions of `ranks_of`."""
    return {
        direction: summarise_direction(direction, ranks, ties, counter.caption_clip)
        for direction, ranks in ranks_of(counter, ties).items()
    }


def summarise_direction(
    direction: str, ranks: np.ndarray, ties: str, caption_clip: np.ndarray
) -> dict[str, float]:
    """Return `summarise` and the number of queries, with the median that the rule prescribes.

    Args:
        direction: "t2v" or "v2t".
        ranks: 0-based ranks of that direction, [Q].
        ties: a key of TIE_RULES.
        caption_clip: the clip of every caption, int [T].
    """
    many = resolve_ties(ties, caption_clip) == "original-many"
    median = "lower" if many and direction == "t2v" else "middle"
    return summarise(ranks, median) | {"queries": len(ranks)}


def ranks_of(counter: RankCounter, ties: str = "once") -> dict[str, np.ndarray]:
    """Returns {"t2v": ranks, "v2t": ranks} of everything a counter has counted.

    Raises ValueError if tiles are missing, for an unknown rule, and for `original-emcl`, which
    changes the groups: count the rows and groups of `emcl_groups` with `original-many` instead.
    """
    return {direction: ranks_of_direction(counter, direction, ties) for direction in _DIRECTIONS}


def ranks_of_direction(counter: RankCounter, direction: str, ties: str = "once") -> np.ndarray:
    """Return the ranks of one direction, "t2v" or "v2t", as `ranks_of` does."""
    rule = resolve_ties(ties, counter.caption_clip)
    if rule == "original-emcl":
        raise ValueError(
            "ties='original-emcl' changes the groups of captions, which are already counted: "
            "build the RankCounter from emcl_groups() and use ties='original-many'"
        )
    if direction == "v2t":
        return _clip_ranks(counter, rule)
    t2v_order, _ = _ORDERS[rule]
    return t2v_order(counter.text_counts())


def summarise(ranks: np.ndarray, median: str = "middle") -> dict[str, float]:
    """Turns 0-based ranks [Q] into R@1, R@5, R@10, R@50 (percent) and 1-based MdR and MnR.

    median: "middle" is the usual one; "lower" is the lower middle value of an even count, as
    CLIP4Clip takes it for many captions a clip. Raises ValueError if there is no rank.
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or not len(ranks):
        raise ValueError(f"ranks: expected [Q] with at least one query, got shape {ranks.shape}")
    methods = {"middle": "linear", "lower": "lower"}
    if median not in methods:
        raise ValueError(f"median: expected 'middle' or 'lower', got {median!r}")
    count = len(ranks)
    # Whole numbers are divided once and last: 43 of 100 is 43.0, where 100 * mean is 42.99….
    recalls = {f"R@{k}": 100 * int(np.count_nonzero(ranks < k)) / count for k in RECALL_LEVELS}
    middle = float(np.quantile(ranks, 0.5, method=methods[median]))  # type: ignore[call-overload]
    return recalls | {"MdR": middle + 1, "MnR": (float(np.sum(ranks)) + count) / count}


def resolve_ties(ties: str, caption_clip: np.ndarray) -> str:
    """Names the rule that applies: the protocol of `original…` depends on the captions a clip.

    Raises ValueError for an unknown rule, naming the known ones.
    """
    if ties not in TIE_RULES:
        raise ValueError(f"ties: expected one of {', '.join(TIE_RULES)}; got {ties!r}")
    many = len(np.unique(caption_clip)) < len(caption_clip)
    if ties == "original":
        return "original-many" if many else "original"
    if ties == "original-emcl":
        return "original-emcl" if many else "original"
    return ties


def emcl_groups(caption_clip: np.ndarray) -> tuple[slice, np.ndarray]:
    """Returns the rows that EMCL-Net evaluates and the clip it takes each of them for.

    Its list of group ends is reduced by one twice, so group i begins with the last caption of clip
    i - 1 and the last caption of all is dropped. Raises ValueError unless captions stand in clip
    order.
    """
    caption_clip = np.asarray(caption_clip)
    if np.any(np.diff(caption_clip) < 0):
        raise ValueError("ties='original-emcl' expects the captions in the order of their clips")
    return slice(0, len(caption_clip) - 1), caption_clip[1:]


def _counted(logits_tv: np.ndarray, caption_clip: np.ndarray, ties: str) -> tuple[RankCounter, str]:
    logits_tv = np.asarray(logits_tv)
    if logits_tv.ndim != 2 or not logits_tv.size:
        raise ValueError(f"logits_tv: expected [texts, videos], got shape {logits_tv.shape}")
    num_clips = logits_tv.shape[1]
    caption_clip = check_caption_clip(caption_clip, num_clips)
    if len(caption_clip) != len(logits_tv):
        raise ValueError(
            f"logits_tv has {len(logits_tv)} rows but caption_clip names {len(caption_clip)} texts"
        )
    rule = resolve_ties(ties, caption_clip)
    if rule == "original-emcl":
        rows, caption_clip = emcl_groups(caption_clip)
        logits_tv, rule = logits_tv[rows], "original-many"
    own_scores = logits_tv[np.arange(len(caption_clip)), caption_clip]
    counter = RankCounter(own_scores, caption_clip, num_clips)
    for rows in caption_blocks(caption_clip, max(1, _BLOCK_SCORES // num_clips)):
        counter.add(rows.start, 0, logits_tv[rows])
    return counter, rule


def _clip_ranks(counter: RankCounter, rule: str) -> np.ndarray:
    bare = int(np.count_nonzero(counter.captions_of_clip == 0))
    if rule == "original" and bare:
        raise ValueError(
            f"ties='original': {bare} of {counter.num_clips} clips have no caption, and the "
            "original's video to text fails on such a matrix; use ties='once'"
        )
    _, v2t_order = _ORDERS[rule]
    return v2t_order(counter.clip_counts())


def _in_gallery_order(counts: Counts) -> np.ndarray:
    last = counts.gallery - 1
    return np.where(np.isnan(counts.own_scores), last, counts.greater + counts.tied_before)


def _ties_first(counts: Counts) -> np.ndarray:
    last = counts.gallery - 1
    return np.where(np.isnan(counts.own_scores), last, counts.greater + counts.tied)


def _every_tied_position(counts: Counts) -> np.ndarray:
    finite = np.flatnonzero(np.isfinite(counts.own_scores))
    entries = counts.tied[finite] + 1
    first_entry = np.repeat(np.cumsum(entries) - entries, entries)
    return np.repeat(counts.greater[finite], entries) + np.arange(entries.sum()) - first_entry


def _sorted_by_torch(counts: Counts) -> np.ndarray:
    # torch sorts NaN before every number; ties it leaves in any order, here in gallery order.
    ranks = counts.greater + counts.undefined + counts.tied_before
    return ranks[np.isfinite(counts.own_scores)]


_ORDERS: dict[str, tuple[Callable[[Counts], np.ndarray], Callable[[Counts], np.ndarray]]] = {
    "once": (_in_gallery_order, _in_gallery_order),
    "pessimistic": (_ties_first, _ties_first),
    "original": (_every_tied_position, _every_tied_position),
    "original-many": (_sorted_by_torch, _every_tied_position),
}
