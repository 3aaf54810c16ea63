"""What a frame store was made with, and which format version it has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vtr_jax.data.frame_rules import FILE_RULES, FOLDER_RULES, Sampling

STORE_VERSION = "1.1.0"
ENCODINGS = ("jpeg", "png")
RULES = (*FILE_RULES, *FOLDER_RULES)


@dataclasses.dataclass(frozen=True)
class StoreSettings:
    """Settings that decide the content of a frame store; stores of other settings never mix.

    framerate: frames per second that are taken, as frame_rule counts (0 with "opencv": every
    frame).
    resolution: side of the square frames that the store gives, pixels.
    encoding: "jpeg" (4:4:4) or "png" (lossless).
    jpeg_quality: 1-95, None for png.
    min_frames: clips with fewer frames are left out as too short.
    frame_rule: a name of RULES. num_frames: of its "xpool" and "cap4video_segments_folder".
    stored_side: None stores squares of `resolution`. A number stores whole pictures, the shorter
    side of larger ones resized to it, 0 stores them as the video has them: for augmentation that
    comes before the crop. They are resized and cropped when they are read.
    """

    framerate: int = 1
    resolution: int = 224
    encoding: str = "jpeg"
    jpeg_quality: int | None = 95
    min_frames: int = 1
    frame_rule: str = "opencv"
    num_frames: int = 12
    stored_side: int | None = None

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding: expected one of {ENCODINGS}, got {self.encoding!r}")
        if self.frame_rule not in RULES:
            raise ValueError(f"frame_rule: expected one of {RULES}, got {self.frame_rule!r}")
        if self.encoding == "png":
            object.__setattr__(self, "jpeg_quality", None)
        self._require("framerate", 0 if self.frame_rule == "opencv" else 1)
        self._require("resolution", 1)
        self._require("min_frames", 1)
        self._require("num_frames", 1)
        if self.encoding == "jpeg":
            self._require("jpeg_quality", 1, 95)
        if self.stored_side not in (None, 0):
            self._require("stored_side", self.resolution)

    def _require(self, name: str, least: int, most: int | None = None) -> None:
        value = getattr(self, name)
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        if not isinstance(value, int) or value < least or (most is not None and value > most):
            raise ValueError(f"{name}: expected a whole number, {allowed}, got {value!r}")

    @property
    def sampling(self) -> Sampling:
        """Which frames are taken."""
        return Sampling(self.frame_rule, self.framerate, self.num_frames)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoreSettings:
        """Settings from what as_dict gave; other keys are ignored, absent ones are defaults."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: values[name] for name in names if name in values})

    def differences(self, other: StoreSettings) -> list[str]:
        """Each setting that differs from `other`, as "name: this one's value, not the other's"."""
        mine, theirs = self.as_dict(), other.as_dict()
        return [
            f"{name} {mine[name]!r}, not {theirs[name]!r}"
            for name in mine
            if mine[name] != theirs[name]
        ]
