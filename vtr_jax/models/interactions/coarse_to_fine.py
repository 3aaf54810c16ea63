"""EERCF's two stages: sentence against whole video for all, gated scores for a text's best few.

A text's row keeps its coarse scores; those of its k best videos become 100 + a sum of all
scores, which lifts them above the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

LIFT = 100.0

Scores = dict[str, Array]


def weighted_sum(
    scores: Mapping[str, Array], weights: Mapping[str, float], start: float = 0.0
) -> Array:
    """start + sum of weights[name] * scores[name], added in the order of the weights.

    The order decides ties: 100 in front costs every score its last digits. For the same reason
    every product is rounded before it is added, and not in one step with the addition.
    """
    total = jnp.asarray(start)
    for name, weight in weights.items():
        score = scores[name]
        # The choice changes no value; it stands between product and sum, which XLA else fuses.
        total = total + jnp.where(jnp.isnan(score), score, weight * score)
    return total


def _best_columns(scores_tv: Array, count: int) -> Array:
    """The columns of the `count` largest scores of each row, in rising order of column."""
    # NaN is the largest, as where the original sorts; a negative one would be the smallest.
    positive_nan_tv = jnp.where(jnp.isnan(scores_tv), jnp.nan, scores_tv)
    return jnp.sort(jax.lax.top_k(positive_nan_tv, count)[1], axis=1)


def _put(scores_tv: Array, columns_tk: Array, values_tk: Array) -> Array:
    return jnp.put_along_axis(scores_tv, columns_tk, values_tk, axis=1, inplace=False)


def coarse_to_fine(
    coarse_tv: Array,
    scores_at: Callable[[Array], Scores],
    *,
    rerantopk: int,
    recall_score: Callable[[Scores], Array],
    final_score: Callable[[Scores], Array],
) -> Array:
    """The matrix that EERCF ranks by, [T,V].

    coarse_tv: what chooses the videos that are looked at again. scores_at(columns_tk): every
    score at these columns of each row, [T,k]. recall_score, final_score: one number a pair from
    those scores. Source: EERCF's eval_epoch, which lifts the rerantopk best columns by
    recall_score + 100, takes the rerantopk best of the row once more, and gives those
    final_score. The second choice is the first unless a coarse score exceeds a lifted one.
    """
    count = min(rerantopk, coarse_tv.shape[1])
    recalled_tk = _best_columns(coarse_tv, count)
    recalled = scores_at(recalled_tk)
    lifted_tv = _put(coarse_tv, recalled_tk, recall_score(recalled) + LIFT)
    chosen_tk = _best_columns(lifted_tv, count)
    chosen = jax.lax.cond(
        jnp.array_equal(chosen_tk, recalled_tk), lambda: recalled, lambda: scores_at(chosen_tk)
    )
    return _put(lifted_tv, chosen_tk, final_score(chosen))
