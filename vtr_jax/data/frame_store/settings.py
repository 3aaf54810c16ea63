"""What a frame store was made with, and which format version it has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

STORE_VERSION = "1.0.0"
ENCODINGS = ("jpeg", "png")


@dataclasses.dataclass(frozen=True)
class StoreSettings:
    """Settings that decide the content of a frame store; stores of other settings never mix.

    framerate: frames per second that are taken, whole seconds rule (0: every frame).
    resolution: side of the square frames, pixels.
    encoding: "jpeg" (4:4:4) or "png" (lossless).
    jpeg_quality: 1-95, None for png.
    min_frames: clips with fewer frames are left out as too short.
    """

    framerate: int = 1
    resolution: int = 224
    encoding: str = "jpeg"
    jpeg_quality: int | None = 95
    min_frames: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding: expected one of {ENCODINGS}, got {self.encoding!r}")
        if self.encoding == "png":
            object.__setattr__(self, "jpeg_quality", None)
        self._require("framerate", 0)
        self._require("resolution", 1)
        self._require("min_frames", 1)
        if self.encoding == "jpeg":
            self._require("jpeg_quality", 1, 95)

    def _require(self, name: str, least: int, most: int | None = None) -> None:
        value = getattr(self, name)
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        if not isinstance(value, int) or value < least or (most is not None and value > most):
            raise ValueError(f"{name}: expected a whole number, {allowed}, got {value!r}")

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoreSettings:
        """Settings from what as_dict gave; other keys are ignored."""
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
