"""Encoding a split batch by batch; features end up in host memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from vtr_jax.cluster import to_host
from vtr_jax.evaluation.scoring import RECIPE_SCORING, Scoring
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.retriever import Retriever
from vtr_jax.sharding import BATCH_AXES, on_mesh, put_batch

Features = TypeVar("Features", TextFeatures, VideoFeatures)


def rounded_batch_size(batch_size: int, mesh: Mesh) -> int:
    """The batch size, rounded up so that it splits evenly over the mesh."""
    parts = int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
    return -(-batch_size // parts) * parts


def _only_what_is_read(features: Features, reads: frozenset[str]) -> Features:
    """Features with all but the read fields (and the mask) emptied, so that XLA skips them."""
    emptied = {
        field.name: value[:, :0]
        for field in dataclasses.fields(features)
        if field.name not in (*reads, "mask")
        and (value := getattr(features, field.name)) is not None
    }
    return dataclasses.replace(features, **emptied)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode_text(
    scoring: Scoring, mesh: Mesh, retriever: Retriever, token_ids: Array, token_mask: Array
) -> TextFeatures:
    text = on_mesh(retriever.encode_text, mesh)(token_ids, token_mask)
    return _only_what_is_read(text, scoring.reads(retriever.config))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode_video(
    scoring: Scoring, mesh: Mesh, retriever: Retriever, frames: Array, frame_mask: Array
) -> VideoFeatures:
    video = on_mesh(retriever.encode_video, mesh)(frames, frame_mask)
    return _only_what_is_read(video, scoring.reads(retriever.config))


def _valid_rows(features: Features, valid: Array) -> Features:
    """What all processes have encoded, without padding, in host memory."""
    features, valid = to_host((features, valid))
    return jax.tree.map(lambda leaf: leaf[valid], features)


def _concatenate(batches: list[Features]) -> Features:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


def encode_captions(
    retriever: Retriever,
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
    scoring: Scoring = RECIPE_SCORING,
) -> TextFeatures:
    """Features of all captions, in order, as NumPy arrays.

    batches: dicts of token_ids, token_mask [B,L] and valid bool [B], False on padding rows; of a
    global batch, the rows of sharding.process_rows. Fields that scoring does not read are empty
    ([T,0,...]).
    """
    encoded = []
    for batch in batches:
        names = ("token_ids", "token_mask", "valid")
        *arrays, valid = put_batch({name: batch[name] for name in names}, mesh).values()
        encoded.append(_valid_rows(_encode_text(scoring, mesh, retriever, *arrays), valid))
    return _concatenate(encoded)


def encode_clips(
    retriever: Retriever,
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
    scoring: Scoring = RECIPE_SCORING,
) -> VideoFeatures:
    """Features of all video clips, in order, as NumPy arrays.

    batches: dicts of frames [B,F,R,R,3], frame_mask [B,F] and valid bool [B], False on padding
    rows; of a global batch, the rows of sharding.process_rows. Fields that scoring does not read
    are empty ([V,0,...]). Raises ValueError for a clip without a frame.
    """
    encoded = []
    for batch in batches:
        frameless = batch["valid"] & (batch["frame_mask"].sum(axis=1) == 0)
        if frameless.any():
            raise ValueError(
                f"clips {batch['clip_index'][frameless].tolist()} of the split have no frame; "
                "leave them out of it"
            )
        names = ("frames", "frame_mask", "valid")
        *arrays, valid = put_batch({name: batch[name] for name in names}, mesh).values()
        encoded.append(_valid_rows(_encode_video(scoring, mesh, retriever, *arrays), valid))
    return _concatenate(encoded)


def take_rows(features: Any, rows: slice, size: int) -> Any:
    """Some rows of every array, padded to `size` rows by repeating the first of them."""

    def take(leaf: np.ndarray) -> np.ndarray:
        part = leaf[rows]
        padding = np.repeat(part[:1], size - len(part), axis=0)
        return np.concatenate([part, padding])

    return jax.tree.map(take, features)
