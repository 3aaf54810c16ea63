"""Image settings of a checkpoint: open_clip's preprocess_cfg, Hugging Face's image processors.

Each reader returns the settings that the file states, by the names of Preprocessing. A setting
that cannot be applied exactly is an error that names the file and the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtr_jax.data.resize import INTERPOLATIONS
from vtr_jax.preprocessing import Preprocessing

_OPEN_CLIP_KEYS = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")

# Of Hugging Face's image processors: what is read, and what changes no pixel.
_READ = frozenset(
    ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale")
    + ("rescale_factor", "do_normalize", "image_mean", "image_std", "default_to_square")
)
_NO_EFFECT = frozenset(
    ("image_processor_type", "feature_extractor_type", "video_processor_type", "processor_class")
    + ("_processor_class", "_valid_processor_keys", "auto_map", "do_convert_rgb", "data_format")
    + ("input_data_format", "device", "return_tensors", "disable_grouping", "return_metadata")
    + ("image_seq_length", "transformers_version", "backend")
)
# The defaults of CLIPImageProcessor; sizes default to the vision tower's.
_CLIP_PROCESSOR: dict[str, Any] = {
    "do_resize": True,
    "resample": 3,
    "do_center_crop": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(Preprocessing().mean),
    "image_std": list(Preprocessing().std),
}
_CLIP_PROCESSOR_TYPES = (
    None,
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "CLIPImageProcessorPil",
    "CLIPFeatureExtractor",
    "CLIPVideoProcessor",
)


def open_clip_image_settings(
    preprocess_cfg: Mapping[str, Any], resolution: int, path: Path
) -> dict[str, Any]:
    """Return the settings of an open_clip preprocess_cfg; keys it lacks are left out.

    resolution: of the vision tower. Raises ValueError naming `path` and the key.
    """
    stated = {name: value for name, value in preprocess_cfg.items() if value is not None}
    unknown = sorted(stated.keys() - set(_OPEN_CLIP_KEYS))
    if unknown:
        raise _cannot(path, f"preprocess_cfg.{unknown[0]}", stated[unknown[0]], "no such key")
    if stated.get("mode", "RGB") != "RGB":
        raise _cannot(path, "preprocess_cfg.mode", stated["mode"], "RGB")
    if "size" in stated:
        _check_size(_open_clip_sides(stated["size"]), resolution, path, "preprocess_cfg.size")
    settings = {name: stated[name] for name in ("resize_mode",) if name in stated}
    for name in ("mean", "std"):
        if name in stated:
            settings[name] = _three(stated[name], path, f"preprocess_cfg.{name}")
    if "interpolation" in stated:
        # "random" is a matter of training; open_clip evaluates it as bicubic.
        known = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
        if stated["interpolation"] not in known:
            raise _cannot(
                path, "preprocess_cfg.interpolation", stated["interpolation"], "bicubic or bilinear"
            )
        settings["interpolation"] = known[stated["interpolation"]]
    if "fill_color" in stated:
        settings["fill_color"] = _color(stated["fill_color"], path)
    return _checked(settings, resolution, path)


def huggingface_image_settings(
    processor: Mapping[str, Any], resolution: int, path: Path
) -> dict[str, Any]:
    """Return the settings of an image (or video) processor's configuration.

    Keys that are absent have CLIPImageProcessor's defaults; a processor of another type must
    state them. resolution: of the vision tower. Raises ValueError naming `path` and the key.
    """
    stated = {name: value for name, value in processor.items() if value is not None}
    for name in sorted(stated.keys() - _READ - _NO_EFFECT):
        if stated[name] is not False:
            raise _cannot(path, name, stated[name], "no such key")
    kind = next((stated[name] for name in _TYPE_KEYS if name in stated), None)
    if kind not in _CLIP_PROCESSOR_TYPES:
        _require_stated(stated, str(kind), path)
    sides = {"size": {"shortest_edge": resolution}, "crop_size": resolution}
    values = {**_CLIP_PROCESSOR, **sides, **stated}
    if not values["do_resize"]:
        raise _cannot(path, "do_resize", False, "true: frames must become squares")
    settings = _sides(values, resolution, path)
    settings["interpolation"] = _resampling(values["resample"], path)
    settings["rescale"] = _factor(values["rescale_factor"], path) if values["do_rescale"] else 1.0
    settings["mean"], settings["std"] = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if values["do_normalize"]:
        settings["mean"] = _three(values["image_mean"], path, "image_mean")
        settings["std"] = _three(values["image_std"], path, "image_std")
    return _checked(settings, resolution, path)


_TYPE_KEYS = ("image_processor_type", "video_processor_type", "feature_extractor_type")


def _require_stated(stated: Mapping[str, Any], kind: str, path: Path) -> None:
    """Raise ValueError if a processor that is not CLIP's leaves a setting to its program."""
    needed = ["do_resize", "size", "resample", "do_center_crop", "do_rescale", "do_normalize"]
    needed += ["crop_size"] if stated.get("do_center_crop") else []
    needed += ["image_mean", "image_std"] if stated.get("do_normalize") else []
    absent = [name for name in needed if name not in stated]
    if absent:
        raise ValueError(
            f"{path}: expected {', '.join(absent)} to be stated, because the image processor is "
            f"{kind[:60]!r} instead of CLIPImageProcessor and its defaults are not known here; add "
            "them to this file"
        )


def _sides(values: Mapping[str, Any], resolution: int, path: Path) -> dict[str, Any]:
    """Return resize_mode, resized_side and crop_offset of a processor's size and crop_size."""
    height, width, shortest = _resized_sides(values["size"], path)
    if not values["do_center_crop"]:
        if shortest:
            raise _cannot(
                path, "do_center_crop", False, "true with size.shortest_edge: frames are squares"
            )
        _check_size((height, width), resolution, path, "size")
        return {"resize_mode": "squash"}
    crop = _crop_sides(values["crop_size"], path)
    _check_size(crop, resolution, path, "crop_size")
    if min(height, width) < resolution:
        raise _cannot(
            path, "crop_size", values["crop_size"], f"at most size ({min(height, width)} pixels)"
        )
    if height != width:
        raise _cannot(path, "size", values["size"], "equal height and width")
    side = {} if height == resolution else {"resized_side": height}
    if shortest:
        return {"resize_mode": "shortest", "crop_offset": "down", **side}
    return {"resize_mode": "squash", **({"crop_offset": "down", **side} if side else {})}


def _resized_sides(size: Any, path: Path) -> tuple[int, int, bool]:
    """Return (height, width, whether it is the shorter side) of a processor's size."""
    if _is_whole(size):
        return size, size, True
    if isinstance(size, Mapping):
        stated = {name: value for name, value in size.items() if value is not None}
        if stated.keys() == {"shortest_edge"} and _is_whole(stated["shortest_edge"]):
            return stated["shortest_edge"], stated["shortest_edge"], True
        if stated.keys() == {"height", "width"} and all(map(_is_whole, stated.values())):
            return stated["height"], stated["width"], False
    raise _cannot(path, "size", size, "an integer, shortest_edge, or height and width")


def _crop_sides(size: Any, path: Path) -> tuple[int, int]:
    if _is_whole(size):
        return size, size
    if isinstance(size, Mapping) and size.keys() == {"height", "width"}:
        return size["height"], size["width"]
    raise _cannot(path, "crop_size", size, "an integer, or height and width")


def _open_clip_sides(size: Any) -> tuple[Any, ...]:
    return tuple(size) if isinstance(size, list | tuple) else (size, size)


def _check_size(sides: tuple[Any, ...], resolution: int, path: Path, key: str) -> None:
    sides = sides * 2 if len(sides) == 1 else sides
    if sides != (resolution, resolution) or not all(map(_is_whole, sides)):
        raise _cannot(
            path, key, list(sides), f"{resolution} x {resolution}, which the vision tower reads"
        )


def _resampling(resample: Any, path: Path) -> str:
    if isinstance(resample, bool) or resample not in range(len(INTERPOLATIONS)):
        raise _cannot(path, "resample", resample, f"0 to {len(INTERPOLATIONS) - 1}")
    return INTERPOLATIONS[int(resample)]


def _factor(value: Any, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _cannot(path, "rescale_factor", value, "a number")
    # 1/255 with fewer digits is meant as 1/255.
    return 1 / 255 if abs(value * 255 - 1) < 1e-6 else float(value)


def _three(values: Any, path: Path, key: str) -> tuple[Any, ...]:
    numbers = tuple(values) if isinstance(values, list | tuple) else (values,) * 3
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(
        isinstance(number, int | float) and not isinstance(number, bool) for number in numbers
    ):
        raise _cannot(path, key, values, "three numbers")
    return tuple(float(number) for number in numbers)


def _color(value: Any, path: Path) -> tuple[int, ...]:
    color = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    if len(color) != 3 or not all(_is_whole(number) or number == 0 for number in color):
        raise _cannot(path, "preprocess_cfg.fill_color", value, "pixel values 0-255")
    return color


def _checked(settings: dict[str, Any], resolution: int, path: Path) -> dict[str, Any]:
    """Return the settings after Preprocessing has accepted them; its error names `path`."""
    try:
        Preprocessing(resolution=resolution, **settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return settings


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _cannot(path: Path, key: str, found: Any, expected: str) -> ValueError:
    return ValueError(
        f"{path}: {key}: expected {expected}, found {str(found)[:80]!r}; pictures cannot be "
        "prepared exactly so, and ignoring it would change every score"
    )


def huggingface_processor(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the preprocessor_config.json of CLIPImageProcessor for these settings.

    Its crops round half pixels down, whatever the retriever's do. Raises ValueError for padding,
    which that processor does not have.
    """
    if preprocessing.resize_mode == "longest":
        raise ValueError(
            "resize_mode 'longest' pads, and CLIPImageProcessor cannot: only shortest and squash "
            "can be written as preprocessor_config.json"
        )
    resolution = preprocessing.resolution
    side = preprocessing.resized_side or resolution
    squash = preprocessing.resize_mode == "squash"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side} if squash else {"shortest_edge": side},
        "resample": INTERPOLATIONS.index(preprocessing.interpolation),
        "do_center_crop": not squash or side != resolution,
        "crop_size": {"height": resolution, "width": resolution},
        "do_rescale": True,
        "rescale_factor": preprocessing.rescale,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
