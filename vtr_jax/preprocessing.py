"""Preprocessing of a retriever: everything that turns a video or a caption into tower input."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vtr_jax.data.pixels import PIXEL_MEAN, PIXEL_STD

CLIP_TOKENIZER = "clip"
RESIZE_MODES = ("shortest", "squash", "longest")
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
CROP_OFFSETS = ("round", "down")
_FRAME_CHOICES = (0, 1, 2)
_LEAST = {"max_words": 3, "resolution": 1, "max_frames": 1}


class PixelScale(NamedTuple):
    """Arrays that turn pixels into tower input: (pixel * rescale - mean) / std, float32.

    rescale: scalar. mean, std: [3], in RGB order.
    """

    rescale: np.ndarray
    mean: np.ndarray
    std: np.ndarray


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Settings that turn a video or a caption into tower input; hashable.

    Attributes:
        tokenizer: "clip".
        max_words: tokens per caption, start and end of text included.
        resolution: side of the square frames that the vision tower reads, pixels.
        resize_mode: "shortest" resizes the shorter side and crops the center, "squash" resizes
            both sides and ignores the aspect ratio, "longest" resizes the longer side and pads.
        resized_side: pixels of the resized side before the crop; None: the resolution.
        interpolation: Pillow's name of the resampling filter.
        fill_color: RGB pixel values of the padding, 0-255.
        crop_offset: rounding of the crop's offset: "round" (half to even, as torchvision and
            OpenAI) or "down" (as Hugging Face).
        rescale: factor from pixel values to the range of `mean`.
        mean, std: per channel (RGB), subtracted and divided after `rescale`.
        frame_rule, framerate, num_frames: how frames are sampled, as `vtr prepare`.
        max_frames: frames per clip.
        slice_framepos: choice among too many frames: 0 first, 1 last, 2 evenly spaced.
        frame_order: 0 as shown, 1 reversed, 2 shuffled.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    tokenizer: str = CLIP_TOKENIZER
    max_words: int = 32
    resolution: int = 224
    resize_mode: str = "shortest"
    resized_side: int | None = None
    interpolation: str = "bicubic"
    fill_color: tuple[int, int, int] = (0, 0, 0)
    crop_offset: str = "round"
    rescale: float = 1 / 255
    mean: tuple[float, float, float] = tuple(PIXEL_MEAN.tolist())  # type: ignore[assignment]
    std: tuple[float, float, float] = tuple(PIXEL_STD.tolist())  # type: ignore[assignment]
    frame_rule: str = "opencv"
    framerate: float | None = 1
    num_frames: int | None = None
    max_frames: int = 12
    slice_framepos: int = 2
    frame_order: int = 0

    def __post_init__(self) -> None:
        for name in ("fill_color", "mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        for name, least in _LEAST.items():
            _check_whole(name, getattr(self, name), least)
        for name in ("resized_side", "num_frames"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), 1)
        for name, choices in (
            ("resize_mode", RESIZE_MODES),
            ("interpolation", INTERPOLATIONS),
            ("crop_offset", CROP_OFFSETS),
            ("slice_framepos", _FRAME_CHOICES),
            ("frame_order", _FRAME_CHOICES),
        ):
            _check_choice(name, getattr(self, name), choices)
        _check_positive("rescale", self.rescale)
        for deviation in self.std:
            _check_positive("std", deviation)
        if any(not 0 <= value <= 255 or value != int(value) for value in self.fill_color):
            raise ValueError(f"fill_color: expected pixel values 0-255, got {self.fill_color}")
        if self.framerate is not None and not (_is_number(self.framerate) and self.framerate >= 0):
            raise ValueError(
                f"framerate: expected a number, 0 or more, or None, got {self.framerate!r}"
            )

    @property
    def pixel_scale(self) -> PixelScale:
        """The arrays that turn pixels into tower input."""
        return _pixel_scale(self.rescale, self.mean, self.std)

    def replace(self, **changes: Any) -> Preprocessing:
        """Return a copy with some settings changed; raises ValueError as the class."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the settings that `to_json` wrote.

        Raises:
            ValueError: a value is out of its range, or a name is unknown (for example because a
                newer version wrote it).
        """
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ValueError(
                f"preprocessing: unknown settings {', '.join(unknown)}; upgrade vtr_jax"
            )
        return cls(
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in values.items()
            }
        )


@functools.lru_cache(maxsize=64)
def _pixel_scale(
    rescale: float, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> PixelScale:
    return PixelScale(
        np.asarray(rescale, np.float32), np.asarray(mean, np.float32), np.asarray(std, np.float32)
    )


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float | np.number)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _three_numbers(name: str, values: Any) -> tuple[Any, ...]:
    """Return three finite numbers as a plain tuple; raises ValueError naming the setting."""
    try:
        numbers = tuple(np.asarray(values).tolist())
    except (TypeError, AttributeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(map(_is_number, numbers)):
        raise ValueError(f"{name}: expected three numbers (red, green, blue), got {values!r}")
    return numbers


def _check_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number, {least} or more, got {value!r}")


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices or isinstance(value, bool):
        known = ", ".join(map(str, choices))
        raise ValueError(f"{name}: expected one of {known}; got {value!r}")


def _check_positive(name: str, value: Any) -> None:
    if not _is_number(value) or value <= 0:
        raise ValueError(f"{name}: expected a number above 0, got {value!r}")


OPENAI_PIXELS = Preprocessing().pixel_scale
