"""What a frame store was made with, and which format version it has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vtr_jax.data.frame_rules import FILE_RULES, FOLDER_RULES, Sampling
from vtr_jax.data.resize import BLACK, Resize

STORE_VERSION = "1.1.0"
ENCODINGS = ("jpeg", "png")
RULES = (*FILE_RULES, *FOLDER_RULES)
# Settings that not every rule or encoding reads: who does, and the value if not told.
_READERS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "framerate": ("frame_rule", ("opencv", "decord", "emcl_folder"), 1),
    "num_frames": ("frame_rule", ("xpool", "cap4video_segments_folder"), 12),
    "jpeg_quality": ("encoding", ("jpeg",), 95),
}
_RANGES: dict[str, tuple[int, int | None]] = {
    "framerate": (0, None),
    "resolution": (1, None),
    "min_frames": (1, None),
    "num_frames": (1, None),
    "jpeg_quality": (1, 95),
}


@dataclasses.dataclass(frozen=True)
class StoreSettings:
    """Settings that decide the content of a frame store; stores of other settings never mix.

    frame_rule: a name of RULES.
    framerate: frames a second that are taken, as frame_rule counts (0 with "opencv": every frame;
    1 if not told), None with a rule that reads none.
    num_frames: of "xpool" and "cap4video_segments_folder" (12 if not told), else None.
    resolution: side of the square frames that the store gives, pixels.
    encoding: "jpeg" (4:4:4) or "png" (lossless).
    jpeg_quality: 1-95 (95 if not told), None for png.
    min_frames: clips with fewer frames are left out as too short.
    stored_side: None stores squares of `resolution`. A number stores whole pictures, the shorter
    side of larger ones resized to it, 0 stores them as the video has them: for augmentation that
    comes before the crop. They are resized and cropped when they are read.
    resize_mode, interpolation, resized_side, fill_color, crop_offset: as Resize; stores of earlier
    versions have its defaults.
    """

    framerate: int | None = None
    resolution: int = 224
    encoding: str = "jpeg"
    jpeg_quality: int | None = None
    min_frames: int = 1
    frame_rule: str = "opencv"
    num_frames: int | None = None
    stored_side: int | None = None
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
    resized_side: int | None = None
    fill_color: tuple[int, int, int] = BLACK
    crop_offset: str = "round"

    def __post_init__(self) -> None:
        object.__setattr__(self, "fill_color", tuple(self.fill_color))
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding: expected one of {ENCODINGS}, got {self.encoding!r}")
        if self.frame_rule not in RULES:
            raise ValueError(f"frame_rule: expected one of {RULES}, got {self.frame_rule!r}")
        for name, (chosen_by, readers, default) in _READERS.items():
            chosen, value = getattr(self, chosen_by), getattr(self, name)
            if value is None and chosen in readers:
                object.__setattr__(self, name, default)
            if value is not None and chosen not in readers:
                raise ValueError(
                    f"{name}: {chosen_by} {chosen!r} does not read it, leave it out; "
                    f"{' and '.join(readers)} read it, got {value!r}"
                )
        for name, (least, most) in _RANGES.items():
            if getattr(self, name) is not None:
                self._require(name, least, most)
        if self.framerate == 0 and self.frame_rule != "opencv":
            self._require("framerate", 1)
        if self.stored_side not in (None, 0):
            self._require("stored_side", self.resolution)
        _ = self.resize  # checks its settings

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

    def _require(self, name: str, least: int, most: int | None = None) -> None:
        value = getattr(self, name)
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        if not isinstance(value, int) or value < least or (most is not None and value > most):
            raise ValueError(f"{name}: expected a whole number, {allowed}, got {value!r}")

    @property
    def sampling(self) -> Sampling:
        """Which frames are taken."""
        told = {"framerate": self.framerate, "num_frames": self.num_frames}
        read = {name: value for name, value in told.items() if value is not None}
        return Sampling(self.frame_rule, **read)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for JSON."""
        return {**dataclasses.asdict(self), "fill_color": list(self.fill_color)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoreSettings:
        """Settings from what as_dict gave; other keys are ignored, absent ones are defaults.

        Former versions also noted what the rule or encoding does not read; that is left out.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        known = {name: values[name] for name in names if name in values}
        for name, (chosen_by, readers, _) in _READERS.items():
            if known.get(chosen_by, getattr(cls, chosen_by)) not in readers:
                known.pop(name, None)
        return cls(**known)

    def differences(self, other: StoreSettings) -> list[str]:
        """Each setting that differs from `other`, as "name: this one's value, not the other's"."""
        mine, theirs = self.as_dict(), other.as_dict()
        return [
            f"{name} {mine[name]!r}, not {theirs[name]!r}"
            for name in mine
            if mine[name] != theirs[name]
        ]
