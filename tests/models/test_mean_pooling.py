"""Cosine with the mean frame, against numbers worked out by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from vtr_jax.models.interactions.mean_pooling import (
    cosine_logits,
    l2_normalise,
    mean_frame,
    mean_pooling_logits,
)

SENTENCES = jnp.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
FRAMES = jnp.array(
    [
        [[5.0, 0.0], [0.0, 1.0]],  # the mean of two unit vectors, whatever their lengths
        [[3.0, 4.0], [9.0, 9.0]],  # the second frame is padding
    ]
)
MASK = jnp.array([[1, 1], [1, 0]])
ROOT = 0.5**0.5


def test_mean_frame_is_of_normalised_real_frames():
    np.testing.assert_allclose(mean_frame(FRAMES, MASK), [[0.5, 0.5], [0.6, 0.8]], atol=1e-6)


def test_logits_are_scaled_cosines_rows_texts():
    logits = mean_pooling_logits(SENTENCES, FRAMES, MASK, jnp.log(10.0))
    expected = [[ROOT, 0.6], [ROOT, 0.8], [1.0, 1.4 * ROOT]]
    np.testing.assert_allclose(logits, 10 * np.array(expected), rtol=1e-5)
    assert logits.dtype == jnp.float32


def test_padded_frames_do_not_reach_the_logits():
    changed = FRAMES.at[1, 1].set(jnp.array([-7.0, 2.0]))
    scale = jnp.array(1.0)
    np.testing.assert_array_equal(
        mean_pooling_logits(SENTENCES, FRAMES, MASK, scale),
        mean_pooling_logits(SENTENCES, changed, MASK, scale),
    )


def test_a_clip_without_frames_is_a_column_of_nan_and_nothing_else_is():
    mask = MASK.at[1].set(0)
    np.testing.assert_array_equal(mean_frame(FRAMES, mask)[1], [0.0, 0.0])
    logits = np.asarray(mean_pooling_logits(SENTENCES, FRAMES, mask, jnp.array(1.0)))
    whole = np.asarray(mean_pooling_logits(SENTENCES, FRAMES, MASK, jnp.array(1.0)))
    assert np.isnan(logits[:, 1]).all()
    np.testing.assert_array_equal(logits[:, 0], whole[:, 0])


def test_a_zero_vector_has_no_direction():
    assert np.isnan(l2_normalise(jnp.zeros((1, 3)))).all()


def test_cosines_ignore_lengths():
    one = cosine_logits(SENTENCES, FRAMES[:, 0], jnp.array(0.0))
    other = cosine_logits(3 * SENTENCES, FRAMES[:, 0] / 7, jnp.array(0.0))
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(one).max() <= 1 + 1e-6
