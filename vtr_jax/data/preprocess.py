"""Video files and captions as a retriever's preprocessing settings want them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from vtr_jax.data.frame_choice import order_frames, slice_positions
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.resize import resize_picture
from vtr_jax.data.text import count_tokens, tokenize
from vtr_jax.preprocessing import CLIP_TOKENIZER, Preprocessing

_SHUFFLE_SEED = 0


def read_preprocessed(
    path: str | os.PathLike[str],
    preprocessing: Preprocessing,
    start: float | None = None,
    end: float | None = None,
    thread_type: str = "AUTO",
) -> tuple[np.ndarray, np.ndarray]:
    """Read one clip as a retriever wants it.

    Args:
        path: a video file, or a folder of frames if the frame rule reads folders.
        preprocessing: the retriever's settings; frame_order 2 shuffles by a fixed seed.
        start, end: seconds; None = from the beginning, to the end.
        thread_type: how PyAV decodes: "AUTO", "FRAME", "SLICE" or "NONE".

    Returns:
        frames uint8 [F, R, R, 3] RGB, zeros after the last one, and frame_mask int32 [F].

    Raises:
        UnreadableVideo: the file has no frame for this stretch.
        ValueError: the times make no sense.
    """
    # Tokenizing needs no video decoder.
    from vtr_jax.data.sampling import plan_frames, read_images
    from vtr_jax.data.video import read_video

    rng = np.random.default_rng(_SHUFFLE_SEED)
    if preprocessing.frame_rule in ("opencv", "decord"):
        return read_video(
            path,
            preprocessing.max_frames,
            start,
            end,
            framerate=preprocessing.framerate,  # type: ignore[arg-type]
            slice_framepos=preprocessing.slice_framepos,
            frame_order=preprocessing.frame_order,
            resize=preprocessing.resize,
            rng=rng,
            thread_type=thread_type,
            frame_rule=preprocessing.frame_rule,
        )
    plan = plan_frames(path, _sampling(preprocessing), start, end)
    squares = [
        resize_picture(picture, preprocessing.resize)
        for _, picture in read_images(plan, thread_type)
    ]
    chosen = slice_positions(len(squares), preprocessing.max_frames, preprocessing.slice_framepos)
    kept = np.stack(
        [squares[place] for place in order_frames(chosen, preprocessing.frame_order, rng)]
    )
    frames = np.zeros((preprocessing.max_frames, *kept.shape[1:]), np.uint8)
    frames[: len(kept)] = kept
    return frames, (np.arange(preprocessing.max_frames) < len(kept)).astype(np.int32)


def tokenize_preprocessed(
    texts: Sequence[str], preprocessing: Preprocessing, max_words: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and mask of captions, int32 [T, L], by the retriever's tokenizer.

    max_words: L; None for the retriever's own limit. Raises ValueError as `tokenize`.
    """
    limit = preprocessing.max_words if max_words is None else max_words
    if preprocessing.tokenizer == CLIP_TOKENIZER:
        return tokenize(texts, limit)
    return preprocessing.tokenizer.tokenize(_checked(texts), limit)  # type: ignore[union-attr]


def count_preprocessed(texts: Sequence[str], preprocessing: Preprocessing) -> np.ndarray:
    """Return the tokens that captions need uncut by the retriever's tokenizer, int64 [T]."""
    if preprocessing.tokenizer == CLIP_TOKENIZER:
        return count_tokens(texts)
    return preprocessing.tokenizer.count_tokens(_checked(texts))  # type: ignore[union-attr]


def _sampling(preprocessing: Preprocessing) -> Sampling:
    stated = {"framerate": preprocessing.framerate, "num_frames": preprocessing.num_frames}
    read = {name: value for name, value in stated.items() if value is not None}
    return Sampling(preprocessing.frame_rule, **read)  # type: ignore[arg-type]


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"texts: expected a list of captions (strings), got {str(texts)[:80]!r}")
    return list(texts)
