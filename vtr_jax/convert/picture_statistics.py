"""The mean and deviation of colours a checkpoint was trained with, where a file says them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vtr_jax.data.pixels import PIXEL_MEAN, PIXEL_STD


def check_picture_statistics(
    settings: Mapping[str, Any], path: Path, names: tuple[str, str] = ("mean", "std")
) -> None:
    """Refuse settings of other statistics than OpenAI's: frames would be normalised wrongly.

    settings: what a configuration says of pictures; what it does not say is not checked. names:
    of its entries. Raises ValueError naming `path`.
    """
    for name, expected in zip(names, (PIXEL_MEAN, PIXEL_STD), strict=True):
        found = settings.get(name)
        if found is None:
            continue
        try:
            same = np.allclose(np.asarray(found, np.float64), expected, atol=1e-6)
        except (TypeError, ValueError):
            same = False
        if not same:
            ours = [round(float(x), 4) for x in expected]
            raise ValueError(
                f"{path}: its pictures are normalised by {name} {str(found)[:80]}, and frames "
                f"here by OpenAI's {ours}; such weights cannot be converted"
            )
