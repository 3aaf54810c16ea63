"""Resizing of pictures to the square that a vision tower reads, as the published programs do it.

square = resize_picture(picture, Resize(224, mode="squash"))
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

RESIZE_MODES = ("shortest", "squash", "longest")
# In the order of Pillow's codes 0 to 5, which Hugging Face's `resample` uses.
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
CROP_OFFSETS = ("round", "down")
Color = tuple[int, int, int]
BLACK: Color = (0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Resize:
    """Settings that turn a picture of any size into a square; hashable.

    Attributes:
        resolution: side of the square, pixels.
        mode: "shortest" resizes the shorter side and crops the center, "squash" resizes both
            sides and ignores the aspect ratio, "longest" resizes the longer side and pads.
        interpolation: Pillow's resampling filter, always with antialiasing.
        side: pixels of the resized side before the crop, at least `resolution`; None: the
            resolution itself.
        fill_color: RGB pixel values of the padding, 0-255.
        crop_offset: rounding of half pixels in the crop's offset: "round" (to even, as torchvision
            and OpenAI's CLIP) or "down" (as Hugging Face).

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    resolution: int = 224
    mode: str = "shortest"
    interpolation: str = "bicubic"
    side: int | None = None
    fill_color: Color = BLACK
    crop_offset: str = "round"

    def __post_init__(self) -> None:
        _check_whole("resolution", self.resolution, 1)
        for name, value, choices in (
            ("resize_mode", self.mode, RESIZE_MODES),
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("crop_offset", self.crop_offset, CROP_OFFSETS),
        ):
            if value not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}; got {value!r}")
        if self.side is not None:
            _check_whole("resized_side", self.side, self.resolution)
            if self.mode == "longest" and self.side != self.resolution:
                raise ValueError(
                    f"resized_side: resize_mode 'longest' pads to the resolution "
                    f"{self.resolution} and never crops, got {self.side}; leave it out"
                )

    def __str__(self) -> str:
        text = f"{self.mode}, {self.interpolation}"
        if self.side not in (None, self.resolution):
            text += f", {self.side} pixels before the crop"
        if self.mode == "longest":
            text += f", padding {self.fill_color}"
        return text


def resize_picture(picture: np.ndarray, resize: Resize) -> np.ndarray:
    """Resize, crop and pad one picture.

    Sizes and offsets are rounded as torchvision and open_clip round them.

    Args:
        picture: uint8 [H, W, 3].
        resize: the settings.

    Returns:
        uint8 [R, R, 3].

    Raises:
        ValueError: `picture` is not an 8-bit picture with three channels.
    """
    check_picture(picture)
    side = resize.side or resize.resolution
    if resize.mode == "shortest":
        resized = resize_short_side(picture, side, resize.interpolation)
    elif resize.mode == "squash":
        resized = _resized(picture, side, side, resize.interpolation)
    else:
        resized = _resized(picture, *_longest_sides(picture, side), resize.interpolation)
    return np.ascontiguousarray(_crop(_pad(resized, resize), resize))


def resize_and_crop(image: np.ndarray, resolution: int) -> np.ndarray:
    """Resize the shorter side to `resolution` (Pillow's bicubic) and cut out the middle square.

    The longer side is cut down to a whole pixel and the crop's offset is rounded half to even, as
    CLIP's own preprocessing does.

    Args:
        image: uint8 [H, W, 3].
        resolution: R, pixels.

    Returns:
        uint8 [R, R, 3].

    Raises:
        ValueError: `image` is not an 8-bit picture with three channels, or `resolution` is below 1.
    """
    return resize_picture(image, Resize(resolution))


def resize_short_side(
    image: np.ndarray, short_side: int, interpolation: str = "bicubic"
) -> np.ndarray:
    """Resize the shorter side to `short_side`, the longer one in proportion.

    Args:
        image: uint8 [H, W, 3].
        short_side: pixels.
        interpolation: one of INTERPOLATIONS.

    Raises:
        ValueError: `image` is not an 8-bit picture with three channels.
    """
    check_picture(image)
    short = min(image.shape[:2])
    height, width = (short_side * side // short for side in image.shape[:2])
    return _resized(image, height, width, interpolation)


def check_picture(picture: np.ndarray) -> None:
    """Raise ValueError unless a picture is uint8 [H, W, 3]."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"image is {picture.dtype} {picture.shape}, expected uint8 [H, W, 3]")


def _longest_sides(picture: np.ndarray, side: int) -> tuple[int, int]:
    """Return height and width after resizing the longer side; source: ResizeKeepRatio."""
    height, width = picture.shape[:2]
    ratio = max(height / side, width / side)
    # open_clip would make a very long strip 0 pixels thin, which Pillow rejects.
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _resized(picture: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((width, height), Image.Resampling[interpolation.upper()]))


def _pad(picture: np.ndarray, resize: Resize) -> np.ndarray:
    """Pad both axes to the resolution with the fill color; the extra pixel goes to the end."""
    lacking = [max(resize.resolution - side, 0) for side in picture.shape[:2]]
    if not any(lacking):
        return picture
    height, width = (side + extra for side, extra in zip(picture.shape[:2], lacking, strict=True))
    top, left = (extra // 2 for extra in lacking)
    padded = np.empty((height, width, 3), np.uint8)
    padded[:] = resize.fill_color
    padded[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return padded


def _crop(picture: np.ndarray, resize: Resize) -> np.ndarray:
    resolution = resize.resolution
    rounded = round if resize.crop_offset == "round" else int
    top, left = (rounded((side - resolution) / 2) for side in picture.shape[:2])
    return picture[top : top + resolution, left : left + resolution]


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number, {least} or more, got {value!r}")
