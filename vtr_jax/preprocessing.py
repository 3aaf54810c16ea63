"""Preprocessing of a retriever: everything that turns a video or a caption into tower input."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vtr_jax.data.resize import BLACK, Color, Resize
from vtr_jax.data.tokenizer_file import TOKENIZER_FILE, TokenizerFile
from vtr_jax.files import write_atomically

CLIP_TOKENIZER = "clip"
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
# Settings that are choices of an experiment, not properties of the weights.
PROTOCOL_SETTINGS = (
    "max_words",
    "frame_rule",
    "framerate",
    "num_frames",
    "max_frames",
    "slice_framepos",
    "frame_order",
)
# Options of conversion by the setting of Preprocessing that they decide.
PREPROCESSING_OPTIONS = {
    "tokenizer": "tokenizer",
    "image_mean": "mean",
    "image_std": "std",
    "rescale": "rescale",
    "resize_mode": "resize_mode",
    "resized_side": "resized_side",
    "interpolation": "interpolation",
    "fill_color": "fill_color",
    "crop_offset": "crop_offset",
    **{name: name for name in PROTOCOL_SETTINGS},
}
# Settings that decide the content of a frame store: of its pictures, and of their choice.
PICTURE_SETTINGS = (
    "resolution",
    "resize_mode",
    "interpolation",
    "resized_side",
    "fill_color",
    "crop_offset",
)
SAMPLING_SETTINGS = ("frame_rule", "framerate", "num_frames")
STORE_SETTINGS = (*PICTURE_SETTINGS, *SAMPLING_SETTINGS)
_PROTOCOL_PREFIX = "protocol: "
_FRAME_CHOICES = (0, 1, 2)
_LEAST = {"max_words": 3, "max_frames": 1}


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
        tokenizer: "clip", or the tokenizer of a tokenizer.json, equal by the file's sha256.
        max_words: tokens per caption, start and end of text included.
        resolution: side of the square frames that the vision tower reads, pixels.
        resize_mode, interpolation, resized_side, fill_color, crop_offset: how pictures become
            squares, see Resize.
        rescale: factor from pixel values to the range of `mean`.
        mean, std: per channel (RGB), subtracted and divided after `rescale`.
        frame_rule, framerate, num_frames: how frames are sampled, as `vtr prepare`.
        max_frames: frames per clip.
        slice_framepos: choice among too many frames: 0 first, 1 last, 2 evenly spaced.
        frame_order: 0 as shown, 1 reversed, 2 shuffled.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    tokenizer: str | TokenizerFile = CLIP_TOKENIZER
    max_words: int = 32
    resolution: int = 224
    resize_mode: str = "shortest"
    resized_side: int | None = None
    interpolation: str = "bicubic"
    fill_color: Color = BLACK
    crop_offset: str = "round"
    rescale: float = 1 / 255
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
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
        if self.num_frames is not None:
            _check_whole("num_frames", self.num_frames, 1)
        for name in ("slice_framepos", "frame_order"):
            _check_choice(name, getattr(self, name), _FRAME_CHOICES)
        if self.tokenizer != CLIP_TOKENIZER and not isinstance(self.tokenizer, TokenizerFile):
            raise ValueError(
                f"tokenizer: expected 'clip' or a TokenizerFile, got {self.tokenizer!r}"
            )
        _ = self.resize  # checks its settings
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

    @property
    def pixel_text(self) -> str:
        """Rescale, mean and standard deviation in words."""
        scale = "1/255" if self.rescale == 1 / 255 else f"{self.rescale:g}"
        mean, std = (", ".join(f"{x:.4g}" for x in values) for values in (self.mean, self.std))
        return f"pixels times {scale}, mean {mean}, standard deviation {std}"

    def store_settings(self) -> dict[str, Any]:
        """Return the settings of a frame store whose frames this preprocessing describes."""
        values = {name: getattr(self, name) for name in STORE_SETTINGS}
        return {
            name: value
            for name, value in values.items()
            if value is not None or name == "resized_side"
        }

    @property
    def resize(self) -> Resize:
        """How pictures become squares."""
        return Resize(
            self.resolution,
            self.resize_mode,
            self.interpolation,
            self.resized_side,
            self.fill_color,
            self.crop_offset,
        )

    def replace(self, **changes: Any) -> Preprocessing:
        """Return a copy with some settings changed; raises ValueError as the class."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if isinstance(self.tokenizer, TokenizerFile):
            values["tokenizer"] = self.tokenizer.to_json()
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], directory: Path | None = None) -> Preprocessing:
        """Return the settings that `to_json` wrote.

        Args:
            values: the JSON object.
            directory: where a tokenizer.json of these settings is stored.

        Raises:
            FileNotFoundError: the tokenizer.json is missing.
            ValueError: a value is out of its range, or a name is unknown (for example because a
                newer version wrote it).
        """
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ValueError(
                f"preprocessing: unknown settings {', '.join(unknown)}; upgrade vtr_jax"
            )
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        if isinstance(plain.get("tokenizer"), Mapping):
            plain["tokenizer"] = TokenizerFile.from_json(plain["tokenizer"], directory)
        return cls(**plain)

    def write_tokenizer(self, directory: Path) -> None:
        """Write the tokenizer.json of these settings, if they have one, into a directory."""
        if isinstance(self.tokenizer, TokenizerFile):
            write_atomically(directory / TOKENIZER_FILE, self.tokenizer.content)


def protocol_assumption(preprocessing: Preprocessing, known: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each protocol setting that is not among the known ones."""
    if "max_words" not in known:
        yield (
            f"{_PROTOCOL_PREFIX}{preprocessing.max_words} tokens per caption, as the published "
            "programs (or: --max_words=N)"
        )
    if not {"max_frames", "framerate", "frame_rule"} <= set(known):
        yield (
            f"{_PROTOCOL_PREFIX}{preprocessing.max_frames} frames per clip, "
            f"{preprocessing.framerate} per second by the rule {preprocessing.frame_rule}, evenly "
            "spaced, as CLIP4Clip (or: --max_frames=N --framerate=N --frame_rule=NAME)"
        )


def frames_are_assumed(assumed: Iterable[str]) -> bool:
    """Whether the choice of frames is among the assumptions."""
    return any(
        sentence.startswith(_PROTOCOL_PREFIX) and " frames per clip" in sentence
        for sentence in assumed
    )


def without_protocol(assumed: Iterable[str]) -> tuple[str, ...]:
    """Return assumptions without those on protocol settings, which training replaces."""
    return tuple(sentence for sentence in assumed if not sentence.startswith(_PROTOCOL_PREFIX))


def check_tokenizer_path(preprocessing: Preprocessing, directory: Path) -> None:
    """Raise FileExistsError if writing the tokenizer would replace another tokenizer.json."""
    tokenizer, path = preprocessing.tokenizer, directory / TOKENIZER_FILE
    if isinstance(tokenizer, str) or not path.exists():
        return
    if path.read_bytes() != tokenizer.content:
        raise FileExistsError(
            f"{path}: expected no file, or the tokenizer {tokenizer.name} of this retriever, found "
            "another one; choose another folder"
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
