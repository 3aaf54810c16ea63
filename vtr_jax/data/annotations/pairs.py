"""Splits from pairs of a clip and one caption, as every item of the originals is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vtr_jax.data.split import Split, VideoClip


def split_of_pairs(
    dataset: str, name: str, pairs: Sequence[tuple[VideoClip, str]], notes: tuple[str, ...] = ()
) -> Split:
    """The split of the pairs: captions in their order, each clip once where it first occurs."""
    clips = tuple(dict.fromkeys(clip for clip, _ in pairs))
    index_of = {clip: index for index, clip in enumerate(clips)}
    captions = tuple(caption for _, caption in pairs)
    relation = np.array([index_of[clip] for clip, _ in pairs], np.int32)
    return Split(dataset, name, clips, captions, relation, notes)


def timed_id(name: str, start: float | None, end: float | None) -> str:
    """The id of a stretch of a video: `name#start-end` in seconds, `name` for the whole video."""
    if start is None and end is None:
        return name
    return f"{name}#{_short(start)}-{_short(end)}"


def _short(seconds: float | None) -> str:
    return "end" if seconds is None else repr(seconds).removesuffix(".0")
