"""Features of a split: batches and padding leave no trace in them."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from vtr_jax.evaluation import encode
from vtr_jax.evaluation.encode import (
    encode_captions,
    encode_clips,
    rounded_batch_size,
    take_rows,
)
from vtr_jax.sharding import AXES, make_mesh


@pytest.fixture(scope="module")
def retriever(tiny_retriever):
    return tiny_retriever("clip4clip", sim_header="seqTransf")


def in_batches(batch, size, garbage=0):
    """Batches of `size` rows; what fills up the last one is `garbage`."""
    total = len(next(iter(batch.values())))
    for start in range(0, total, size):
        rows = {name: array[start : start + size] for name, array in batch.items()}
        count = len(next(iter(rows.values())))
        filled = {
            name: np.concatenate(
                [array, np.full((size - count, *array.shape[1:]), garbage, array.dtype)]
            )
            for name, array in rows.items()
        }
        index = np.where(np.arange(size) < count, start + np.arange(size), -1)
        yield filled | {"valid": np.arange(size) < count, "clip_index": index}


def assert_close(ours, theirs):
    # Another batch size is another order of sums.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs)


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("garbage", [0, 1])
def test_captions_in_batches_are_the_captions(retriever, tiny_batch, size, garbage):
    tokens = {name: tiny_batch[name] for name in ("token_ids", "token_mask")}
    text = encode_captions(retriever, in_batches(tokens, size, garbage), make_mesh())
    whole = retriever.encode_text(**tokens)
    assert_close(text.sentence, whole.sentence)
    np.testing.assert_array_equal(text.mask, whole.mask)
    # Mean pooling reads no tokens: they are not even computed.
    assert text.tokens.shape == (3, 0, 32)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(text))


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("garbage", [0, 1])
def test_clips_in_batches_are_the_clips(retriever, tiny_batch, size, garbage):
    frames = {name: tiny_batch[name] for name in ("frames", "frame_mask")}
    video = encode_clips(retriever, in_batches(frames, size, garbage), make_mesh())
    whole = retriever.encode_video(**frames)
    assert_close(video.temporal, whole.temporal)
    np.testing.assert_array_equal(video.mask, whole.mask)
    assert video.frames.shape == (3, 0, 32) and video.pooled is None


def test_padding_frames_do_not_matter(retriever, tiny_batch):
    frames = {name: tiny_batch[name].copy() for name in ("frames", "frame_mask")}
    before = encode_clips(retriever, in_batches(frames, 2), make_mesh())
    frames["frames"][frames["frame_mask"] == 0] = 255
    after = encode_clips(retriever, in_batches(frames, 2), make_mesh())
    np.testing.assert_array_equal(before.temporal, after.temporal)


def test_a_clip_without_frames_is_refused_and_padding_is_not(retriever, tiny_batch):
    frames = {name: tiny_batch[name].copy() for name in ("frames", "frame_mask")}
    frames["frame_mask"][2] = 0
    with pytest.raises(ValueError, match=r"clips \[2\] of the split have no frame; leave them out"):
        encode_clips(retriever, in_batches(frames, 2), make_mesh())


def test_all_batches_share_one_compilation(retriever, tiny_batch):
    tokens = {name: np.repeat(tiny_batch[name], 3, axis=0) for name in ("token_ids", "token_mask")}
    before = encode._encode_text._cache_size()
    encode_captions(retriever, in_batches(tokens, 4), make_mesh())
    assert encode._encode_text._cache_size() == before + 1


@pytest.mark.parametrize(("wanted", "rounded"), [(1, 4), (4, 4), (5, 8), (64, 64)])
def test_batch_sizes_are_rounded_up_to_the_mesh(wanted, rounded):
    assert rounded_batch_size(wanted, AbstractMesh((2, 2, 2), AXES)) == rounded
    assert rounded_batch_size(wanted, make_mesh()) == wanted


def test_rows_are_padded_with_the_first_of_them():
    rows = take_rows({"a": np.arange(10).reshape(5, 2)}, slice(3, 5), 4)
    np.testing.assert_array_equal(rows["a"], [[6, 7], [8, 9], [6, 7], [6, 7]])
