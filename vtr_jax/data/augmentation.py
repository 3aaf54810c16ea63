"""RandAugment as EMCL-Net, HBI and BackBone_tvr train with it: one draw a clip, all frames alike.

    operations = RandAugment.parse("rand-m7-n4-mstd0.5-inc1").draw(rng)
    picture = augment(picture, operations)

The operations are Pillow's, as the originals', on 8-bit pictures before they are resized and
cropped; Pillow works outside Python's lock, so the input pipeline's threads run side by side.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

NO_AUGMENTATION = "none"
RAND_AUGMENT = "rand-m7-n4-mstd0.5-inc1"
_FORM = re.compile(r"rand-m(\d+(?:\.\d+)?)-n(\d+)-mstd(\d+(?:\.\d+)?)-inc1")
_MOST = 10.0
_GREY = (128, 128, 128)
_BICUBIC = Image.Resampling.BICUBIC


class Operation(NamedTuple):
    """One drawn operation: a name of OPERATIONS and its argument (0 where it takes none)."""

    name: str
    argument: float


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """magnitude, deviation: of the Normal that m is drawn from, cut to 0..10; count: draws."""

    magnitude: float = 7.0
    count: int = 4
    deviation: float = 0.5

    @classmethod
    def parse(cls, text: str) -> RandAugment | None:
        """Reads "rand-m7-n4-mstd0.5-inc1", the originals' name of it; "none" gives None.

        Raises ValueError for another form.
        """
        if text == NO_AUGMENTATION:
            return None
        found = _FORM.fullmatch(text)
        if found is None or float(found[1]) > _MOST:
            raise ValueError(
                f"augmentation: expected {NO_AUGMENTATION!r} or rand-mM-nN-mstdS-inc1 with M up to "
                f"10, such as {RAND_AUGMENT!r}, got {text!r}"
            )
        return cls(float(found[1]), int(found[2]), float(found[3]))

    def draw(self, rng: np.random.Generator) -> tuple[Operation, ...]:
        """Draws `count` operations with replacement; each happens with probability one half."""
        operations = []
        for name in rng.choice(list(OPERATIONS), self.count).tolist():
            happens, negative = (rng.random(2) > 0.5).tolist()
            m = float(np.clip(rng.normal(self.magnitude, self.deviation), 0.0, _MOST))
            if happens:
                operations.append(Operation(name, _ARGUMENTS[name](m, -1.0 if negative else 1.0)))
        return tuple(operations)


def augment(picture: np.ndarray, operations: Sequence[Operation]) -> np.ndarray:
    """Applies drawn operations in order: uint8 [H,W,3] to uint8 [H,W,3]."""
    if not operations:
        return picture
    image = Image.fromarray(picture)
    for operation in operations:
        image = OPERATIONS[operation.name](image, operation.argument)
    return np.asarray(image)


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=_BICUBIC, fillcolor=_GREY
    )


def _solarize_add(image: Image.Image, amount: float) -> Image.Image:
    table = [min(255, value + int(amount)) if value < 128 else value for value in range(256)]
    return image.point(table * 3)


OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Invert": lambda image, _: ImageOps.invert(image),
    "Rotate": lambda image, degrees: image.rotate(degrees, resample=_BICUBIC, fillcolor=_GREY),
    "PosterizeIncreasing": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "SolarizeIncreasing": lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    "SolarizeAdd": _solarize_add,
    "ColorIncreasing": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "ContrastIncreasing": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "BrightnessIncreasing": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "SharpnessIncreasing": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "ShearX": lambda image, shear: _affine(image, (1, shear, 0, 0, 1, 0)),
    "ShearY": lambda image, shear: _affine(image, (1, 0, 0, shear, 1, 0)),
    "TranslateXRel": lambda image, share: _affine(image, (1, 0, share * image.width, 0, 1, 0)),
    "TranslateYRel": lambda image, share: _affine(image, (1, 0, 0, 0, 1, share * image.height)),
}


def _nothing(m: float, sign: float) -> float:
    return 0.0


def _signed(scale: float, offset: float = 0.0) -> Callable[[float, float], float]:
    return lambda m, sign: offset + sign * (scale * m / _MOST)


# m and a random sign to the argument.
_ARGUMENTS: dict[str, Callable[[float, float], float]] = {
    "AutoContrast": _nothing,
    "Equalize": _nothing,
    "Invert": _nothing,
    "Rotate": _signed(30.0),
    "PosterizeIncreasing": lambda m, sign: 4 - int(4 * m / _MOST),
    "SolarizeIncreasing": lambda m, sign: 256 - int(256 * m / _MOST),
    "SolarizeAdd": lambda m, sign: int(110 * m / _MOST),
    "ColorIncreasing": _signed(0.9, 1.0),
    "ContrastIncreasing": _signed(0.9, 1.0),
    "BrightnessIncreasing": _signed(0.9, 1.0),
    "SharpnessIncreasing": _signed(0.9, 1.0),
    "ShearX": _signed(0.3),
    "ShearY": _signed(0.3),
    "TranslateXRel": _signed(0.45),
    "TranslateYRel": _signed(0.45),
}
