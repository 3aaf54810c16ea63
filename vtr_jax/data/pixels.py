"""The pixel statistics that CLIP's preprocessing normalises by."""

from __future__ import annotations

import numpy as np

PIXEL_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
PIXEL_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def normalise_frames(frames: np.ndarray) -> np.ndarray:
    """Scale pixels to [0, 1], subtract CLIP's mean and divide by its standard deviation.

    Args:
        frames: uint8 [..., 3], RGB.

    Returns:
        float32 [..., 3].

    Raises:
        ValueError: `frames` is not uint8 with three channels last.
    """
    if frames.dtype != np.uint8 or frames.shape[-1:] != (3,):
        raise ValueError(
            f"frames is {frames.dtype} {frames.shape}, expected uint8 with three channels last"
        )
    return (frames.astype(np.float32) / np.float32(255) - PIXEL_MEAN) / PIXEL_STD
