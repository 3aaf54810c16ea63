"""What the towers hand to interactions, and the checks on what is handed to the towers."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TextFeatures:
    """Encoded captions, float32, not normalised.

    sentence [B,D]: the end-of-text token. tokens [B,L,W]: every token, as the interaction
    reads it. mask [B,L]: 1 on real tokens.
    """

    sentence: Array
    tokens: Array
    mask: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VideoFeatures:
    """Encoded video clips, float32, not normalised.

    frames [B,F,D]: the tower's vector of each frame. temporal [B,F,D]: after frame
    aggregation (the same as frames where there is none). pooled [B,D] or None: one vector a
    clip from towers that give one. patches [B,F,P,D] or None. mask [B,F]: 1 on real frames.
    """

    frames: Array
    temporal: Array
    pooled: Array | None
    patches: Array | None
    mask: Array


class VisionFeatures(NamedTuple):
    """What a vision tower makes of frames, float32, not normalised.

    frames [B,F,D]: one vector a frame. patches [B,F,P,D]: one a patch, or None where they are not
    kept. pooled [B,D]: one a clip, or None from towers that relate no frames.
    """

    frames: Array
    patches: Array | None = None
    pooled: Array | None = None


def check_tokens(token_ids: ArrayLike, token_mask: ArrayLike, context_length: int) -> None:
    """Refuse token arrays the text tower cannot read; raises ValueError naming the shapes."""
    ids_shape, mask_shape = jax.numpy.shape(token_ids), jax.numpy.shape(token_mask)
    if len(ids_shape) != 2:
        raise ValueError(f"token_ids: expected [batch, tokens], got shape {ids_shape}")
    if mask_shape != ids_shape:
        raise ValueError(
            f"token_mask: expected the shape of token_ids {ids_shape}, got {mask_shape}"
        )
    if ids_shape[1] > context_length:
        raise ValueError(
            f"token_ids: {ids_shape[1]} tokens a caption, but this text tower has "
            f"{context_length} positions; tokenize with max_words={context_length} or less"
        )


def check_frames(frames: Array, frame_mask: ArrayLike, resolution: int) -> None:
    """Refuse frames the vision tower cannot read; raises ValueError naming the shapes."""
    expected = f"[batch, frames, {resolution}, {resolution}, 3]"
    if frames.ndim != 5 or frames.shape[2:] != (resolution, resolution, 3):
        hint = "; one clip needs a batch axis: frames[None]" if frames.ndim == 4 else ""
        raise ValueError(f"frames: expected {expected}, got shape {frames.shape}{hint}")
    if frames.dtype != jax.numpy.uint8 and not jax.numpy.issubdtype(
        frames.dtype, jax.numpy.floating
    ):
        raise ValueError(
            f"frames: expected uint8 pixels or normalised floats, got dtype {frames.dtype}"
        )
    mask_shape = jax.numpy.shape(frame_mask)
    if mask_shape != frames.shape[:2]:
        raise ValueError(
            f"frame_mask: expected [batch, frames] = {frames.shape[:2]}, got {mask_shape}"
        )


def check_sides(text: TextFeatures, video: VideoFeatures) -> None:
    """Refuse features that are not those of encode_text, then those of encode_video.

    Raises ValueError naming what came instead.
    """
    if isinstance(text, TextFeatures) and isinstance(video, VideoFeatures):
        return
    found = f"{type(text).__name__}, then {type(video).__name__}"
    swapped = isinstance(text, VideoFeatures) and isinstance(video, TextFeatures)
    hint = ": they are swapped" if swapped else ""
    raise ValueError(
        "expected (text, video): what encode_text gives, then what encode_video gives; got "
        f"{found}{hint}"
    )


def check_pairs(
    text: TextFeatures, video: VideoFeatures, picks: tuple[ArrayLike, ArrayLike] | None
) -> None:
    """Refuse a batch whose texts and videos do not pair up; raises ValueError naming the shapes.

    picks: the positions of one token a text and one frame a video; values out of range are
    refused where they are known (not while a function is being compiled).
    """
    count_t, count_v = text.mask.shape[0], video.mask.shape[0]
    if count_t != count_v:
        raise ValueError(
            f"a loss pairs the i-th text with the i-th video, got {count_t} texts and "
            f"{count_v} videos"
        )
    if picks is None:
        return
    limits = (text.mask.shape[1], video.mask.shape[1])
    for name, pick, limit in zip(("text_index", "video_index"), picks, limits, strict=True):
        if jax.numpy.shape(pick) != (count_t,):
            raise ValueError(
                f"picks: expected {name} of shape ({count_t},), got {jax.numpy.shape(pick)}"
            )
        if isinstance(pick, jax.core.Tracer):
            continue
        values = np.asarray(pick)
        if ((values < 0) | (values >= limit)).any():
            raise ValueError(f"picks: {name} must lie in 0..{limit - 1}, got {values.tolist()}")
