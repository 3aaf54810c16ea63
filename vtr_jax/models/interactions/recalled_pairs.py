"""Scores of a few videos a text, computed video by video.

A text's videos lie anywhere, and gathering the patches of each would move a megabyte a pair. So
pairs are sorted by video: each video is read once and meets all the texts that asked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Scores = dict[str, Array]


class _Pairs(NamedTuple):
    """Pairs in the order of their videos.

    order_n, text_n: each pair's place in the unsorted list, and its text. start_v, count_v: where
    a video's pairs begin and how many they are.
    """

    order_n: Array
    text_n: Array
    start_v: Array
    count_v: Array


def _sorted_by_video(columns_tk: Array, videos: int) -> _Pairs:
    flat_n = columns_tk.reshape(-1)
    order_n = jnp.argsort(flat_n, stable=True)
    count_v = jnp.bincount(flat_n, length=videos)
    start_v = jnp.cumsum(count_v) - count_v
    return _Pairs(order_n, order_n // columns_tk.shape[1], start_v, count_v)


def scores_of_pairs(
    scores_of_one: Callable[[Array, Any], Scores],
    prepare: Callable[[Any], Any],
    sentence_td: Array,
    videos: Any,
    columns_tk: Array,
    texts_a_round: int,
) -> Scores:
    """Each text's scores with the videos of its row of columns_tk, every one [T,k].

    prepare(one video): what of it does not depend on texts, computed once a video.
    scores_of_one(texts [C,D], prepared video): scores [C]. videos: a tree of arrays that begin
    with the video. columns_tk: int [T,k], indices of videos. texts_a_round: texts that meet a
    video at once; results do not depend on it. Not differentiable in reverse.
    """
    pairs = _sorted_by_video(columns_tk, jax.tree.leaves(videos)[0].shape[0])

    def of_video(video: Array, scores_n: Scores) -> Scores:
        prepared = prepare(jax.tree.map(lambda leaf: leaf[video], videos))
        start, count = pairs.start_v[video], pairs.count_v[video]

        def one_round(number: Array, kept_n: Scores) -> Scores:
            within_c = number * texts_a_round + jnp.arange(texts_a_round)
            texts_cd = sentence_td[pairs.text_n.at[start + within_c].get(mode="clip")]
            # Places beyond the video's own pairs are beyond all pairs: nothing is written there.
            place_c = jnp.where(within_c < count, start + within_c, columns_tk.size)
            new_c = scores_of_one(texts_cd, prepared)
            return {name: kept_n[name].at[place_c].set(new_c[name], mode="drop") for name in new_c}

        return jax.lax.fori_loop(0, -(-count // texts_a_round), one_round, scores_n)

    one_video = jax.tree.map(lambda leaf: leaf[0], videos)
    shapes = jax.eval_shape(lambda: scores_of_one(sentence_td[:1], prepare(one_video)))
    empty = {name: jnp.zeros(columns_tk.size, score.dtype) for name, score in shapes.items()}
    by_video = jax.lax.fori_loop(0, pairs.count_v.shape[0], of_video, empty)
    back_n = jnp.argsort(pairs.order_n)
    return {name: scores[back_n].reshape(columns_tk.shape) for name, scores in by_video.items()}
