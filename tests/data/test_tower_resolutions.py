"""The picture sizes of the larger image towers, 288 and 336, from video file to batch."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vtr_jax.data.decode import frames_at
from vtr_jax.data.frame_store import FrameStore, prepare
from vtr_jax.data.frame_store.encoding import decode_frame
from vtr_jax.data.pipeline import clip_batches
from vtr_jax.data.video import read_video


def square(picture: np.ndarray, side: int) -> np.ndarray:
    """Pillow's own resize of a 64 x 48 picture's shorter side, and the middle of it."""
    image = Image.fromarray(picture).resize((side * 4 // 3, side), Image.Resampling.BICUBIC)
    left = (image.width - side) // 2
    return np.asarray(image.crop((left, 0, left + side, side)))


@pytest.mark.parametrize("side", [288, 336])
def test_frames_of_a_larger_tower_are_stored_and_batched_exactly(
    split_of_files, video_folder, tmp_path, side
):
    split = split_of_files(["clip3.mp4"])
    options = {"resolution": side, "encoding": "png", "workers": 1}
    prepare(split, video_folder, tmp_path / "store", **options)
    store = FrameStore.open(tmp_path / "store")
    indices = range(0, 40, 8)  # five seconds of eight frames
    pictures = [picture for _, picture in frames_at(video_folder / "clip3.mp4", list(indices))]
    expected = np.stack([square(picture, side) for picture in pictures])
    stored = np.stack([decode_frame(frame) for frame in store.read(0)])
    np.testing.assert_array_equal(stored, expected)
    (batch,) = clip_batches(store, split, 1, 5)
    np.testing.assert_array_equal(batch["frames"], expected[None])
    frames, mask = read_video(video_folder / "clip3.mp4", 5, resolution=side)
    np.testing.assert_array_equal(frames, expected)
    assert mask.tolist() == [1] * 5
