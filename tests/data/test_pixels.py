"""Normalising pixels."""

from __future__ import annotations

import numpy as np
import pytest

from vtr_jax.data.pixels import PIXEL_MEAN, PIXEL_STD, normalise_frames


def test_normalise():
    frames = np.array([[[[0, 128, 255]]]], np.uint8)
    ours = normalise_frames(frames)
    assert ours.dtype == np.float32 and ours.shape == frames.shape
    expected = (np.array([0, 128, 255]) / 255 - PIXEL_MEAN) / PIXEL_STD
    np.testing.assert_allclose(ours[0, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("frames", [np.zeros((1, 3, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_normalise_refuses(frames):
    with pytest.raises(ValueError, match="expected uint8 with three channels last"):
        normalise_frames(frames)
