"""Pictures become squares exactly as torchvision, open_clip and Hugging Face make them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from vtr_jax.data.resize import CROP_OFFSETS, INTERPOLATIONS, RESIZE_MODES, Resize, resize_picture

SIZES = ((37, 91), (91, 37), (64, 64), (20, 300), (480, 33), (31, 32))


def picture(height, width, seed=0):
    return np.random.default_rng([seed, height, width]).integers(
        0, 256, (height, width, 3), "uint8"
    )


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_size_becomes_a_square(mode, size, interpolation):
    square = resize_picture(picture(*size), Resize(32, mode, interpolation))
    assert square.shape == (32, 32, 3)
    assert square.dtype == np.uint8
    assert square.flags.c_contiguous


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_squash_ignores_the_aspect_ratio(size, name):
    image = picture(*size)
    expected = Image.fromarray(image).resize((32, 32), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(resize_picture(image, Resize(32, "squash", name)), expected)


@pytest.mark.parametrize("size", SIZES)
def test_longest_pads_with_the_fill_color(size):
    image, color = picture(*size), (9, 200, 77)
    ratio = max(size) / 32
    height, width = (max(1, round(side / ratio)) for side in size)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    left, top = (32 - width) // 2, (32 - height) // 2
    border = (left, top, 32 - width - left, 32 - height - top)
    expected = ImageOps.expand(resized, border, color)
    square = resize_picture(image, Resize(32, "longest", fill_color=color))
    np.testing.assert_array_equal(square, expected)


@pytest.mark.parametrize("side", [32, 40])
def test_crop_offset_is_rounded_as_asked(side):
    for width in range(side, side + 12):
        image = picture(side, width)
        for offset, rounded in zip(CROP_OFFSETS, (round, int), strict=True):
            top, left = rounded((side - 32) / 2), rounded((width - 32) / 2)
            square = resize_picture(image, Resize(32, side=side, crop_offset=offset))
            np.testing.assert_array_equal(square, image[top : top + 32, left : left + 32])


def test_offsets_differ_by_half_a_pixel_only():
    image = picture(32, 35)
    round_, down = (resize_picture(image, Resize(32, crop_offset=o)) for o in CROP_OFFSETS)
    np.testing.assert_array_equal(round_[:, :-1], down[:, 1:])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"resolution": 0}, "resolution"),
        ({"mode": "stretch"}, "resize_mode"),
        ({"interpolation": "cubic"}, "interpolation"),
        ({"crop_offset": "up"}, "crop_offset"),
        ({"side": 100}, "resized_side"),
        ({"mode": "longest", "side": 256}, "resized_side"),
    ],
)
def test_impossible_settings_are_named(settings, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        Resize(**settings)
