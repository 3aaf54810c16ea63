"""Whether the frames of a store are what a retriever reads."""

from __future__ import annotations

from typing import Any

from vtr_jax.models.recipes import RetrieverConfig
from vtr_jax.preprocessing import (
    PICTURE_SETTINGS,
    SAMPLING_SETTINGS,
    Preprocessing,
    frames_are_assumed,
)

# A crop that differs by half a pixel of rounding is reported; the other settings are errors.
_REPORTED_ONLY = ("crop_offset",)


def require_same_pictures(store: Any, preprocessing: Preprocessing) -> None:
    """Raise ValueError if a store's frames were resized in another way than a retriever wants.

    The message names both values of every setting that differs.
    """
    require_resolution(store, preprocessing.resolution)
    differences = _differences(store, preprocessing, PICTURE_SETTINGS)
    wrong = {name: found for name, found in differences.items() if name not in _REPORTED_ONLY}
    if wrong:
        found = "; ".join(
            f"{name} is {ours!r}, the retriever wants {theirs!r}"
            for name, (ours, theirs) in wrong.items()
        )
        raise ValueError(
            f"the frame store {store.directory} does not fit this retriever: its {found}; prepare "
            "another store with `vtr prepare --checkpoint=DIR`, DIR being the retriever"
        )


def require_resolution(store: Any, resolution: int) -> None:
    """Raise ValueError if a store's frames are not of the size the vision tower reads."""
    stored = store.settings["resolution"]
    if stored != resolution:
        raise ValueError(
            f"the frame store {store.directory} holds frames of {stored} pixels, this retriever "
            f"reads {resolution}; prepare a store with --resolution={resolution}"
        )


def sampling_differences(store: Any, config: RetrieverConfig) -> tuple[str, ...]:
    """Return one sentence per difference between a store's frames and the retriever's own choice.

    A retriever whose frames are only assumed has no choice of its own.
    """
    names = () if frames_are_assumed(config.assumed) else SAMPLING_SETTINGS
    differences = _differences(store, config.preprocessing, (*names, *_REPORTED_ONLY))
    return tuple(
        f"{name} of the frame store is {ours!r}, the retriever's is {theirs!r}"
        for name, (ours, theirs) in differences.items()
    )


def _differences(
    store: Any, preprocessing: Preprocessing, names: tuple[str, ...]
) -> dict[str, tuple[Any, Any]]:
    """Return {setting: (the store's value, the retriever's)} of those that differ."""
    from vtr_jax.data.frame_store.settings import StoreSettings

    stored = StoreSettings.from_dict(store.settings)
    found = {
        name: (getattr(stored, name), getattr(preprocessing, name))
        for name in names
        if _matters(name, preprocessing)
    }
    return {name: values for name, values in found.items() if _plain(name, *values)}


def _matters(name: str, preprocessing: Preprocessing) -> bool:
    if name == "fill_color":
        return preprocessing.resize_mode == "longest"
    return name != "crop_offset" or preprocessing.resize_mode != "longest"


def _plain(name: str, ours: Any, theirs: Any) -> bool:
    """Whether two values differ; the rules that read no rate or number leave it None."""
    if name in ("framerate", "num_frames"):
        return ours is not None and theirs is not None and ours != theirs
    return bool(ours != theirs)
