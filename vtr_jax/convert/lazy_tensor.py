"""A tensor of a checkpoint file that is known by type and shape and read when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class LazyTensor:
    """One tensor of a file; `load` reads it. dtype is NumPy's, bfloat16 that of ml_dtypes."""

    dtype: np.dtype
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray] = field(repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes that `read` returns."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """Read the tensor: a contiguous array of its own, of the file's dtype and `shape`.

        ValueError where the file is damaged, OSError where it cannot be read any more.
        """
        array = self.load()
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(
                f"a tensor of {self.dtype} {self.shape} was promised and {array.dtype} "
                f"{array.shape} was read: the file changed while it was open; start again"
            )
        return array
