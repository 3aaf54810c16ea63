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


def _in_steps(count_v: Array, group: int) -> Array:
    """Videos in steps of `group`, [steps, group], those that many texts ask for first.

    Videos of one step then need about as many rounds. Places that are left over hold V.
    """
    videos = count_v.shape[0]
    busiest_first_v = jnp.argsort(-count_v, stable=True)
    return jnp.pad(busiest_first_v, (0, -videos % group), constant_values=videos).reshape(-1, group)


def scores_of_pairs(
    scores_of_one: Callable[[Array, Any], Scores],
    sentence_td: Array,
    videos: Any,
    columns_tk: Array,
    *,
    texts_a_round: int,
    videos_a_step: int,
) -> Scores:
    """Each text's scores with the videos of its row of columns_tk, every one [T,k].

    scores_of_one(texts [C,D], one video): scores [C]. videos: a tree of arrays that begin with
    the video. columns_tk: int [T,k], indices of videos. texts_a_round, videos_a_step: how many
    are computed at once; results do not depend on them. Not differentiable in reverse.
    """
    pairs = _sorted_by_video(columns_tk, jax.tree.leaves(videos)[0].shape[0])
    steps = _in_steps(pairs.count_v, videos_a_step)
    # Asking for video V, which there is not, gives no pair.
    count_v, start_v = (jnp.append(each, 0) for each in (pairs.count_v, pairs.start_v))

    def round_of(number: Array, videos_g: Array, rows: Any, scores_n: Scores) -> Scores:
        within_c = number * texts_a_round + jnp.arange(texts_a_round)
        place_gc = start_v[videos_g][:, None] + within_c
        asked_gc = within_c < count_v[videos_g][:, None]
        texts_gcd = sentence_td[pairs.text_n.at[place_gc].get(mode="clip")]
        new_gc = jax.vmap(scores_of_one)(texts_gcd, rows)
        place_gc = jnp.where(asked_gc, place_gc, columns_tk.size)
        return {name: scores_n[name].at[place_gc].set(new_gc[name], mode="drop") for name in new_gc}

    def step(index: Array, scores_n: Scores) -> Scores:
        videos_g = steps[index]
        rows = jax.tree.map(lambda leaf: leaf.at[videos_g].get(mode="clip"), videos)
        rounds = -(-count_v[videos_g].max() // texts_a_round)
        return jax.lax.fori_loop(
            0, rounds, lambda number, kept: round_of(number, videos_g, rows, kept), scores_n
        )

    one_video = jax.tree.map(lambda leaf: leaf[0], videos)
    shapes = jax.eval_shape(scores_of_one, sentence_td[:1], one_video)
    empty = {name: jnp.zeros(columns_tk.size, score.dtype) for name, score in shapes.items()}
    by_video = jax.lax.fori_loop(0, steps.shape[0], step, empty)
    back_n = jnp.argsort(pairs.order_n)
    return {name: scores[back_n].reshape(columns_tk.shape) for name, scores in by_video.items()}
