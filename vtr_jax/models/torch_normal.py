"""PyTorch's normal draws on the CPU, without PyTorch: what a seed gives in an original program.

Both draw from a 32-bit Mersenne Twister; only how its numbers become normal ones is PyTorch's.
"""

from __future__ import annotations

import numpy as np

CHUNK = 16  # fewer numbers than this are drawn one by one


def _words(generator: np.random.RandomState, count: int) -> np.ndarray:
    return generator.randint(0, 2**32, size=count, dtype=np.uint32)


def _uniform_float32(generator: np.random.RandomState, count: int) -> np.ndarray:
    return (_words(generator, count) & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)


def _uniform_float64(generator: np.random.RandomState) -> float:
    high, low = (int(word) for word in _words(generator, 2))
    return (((high << 32) | low) & (2**53 - 1)) * 2.0**-53


def _box_muller(uniform: np.ndarray) -> np.ndarray:
    """Sixteen uniform numbers to sixteen normal ones: cosines first, then sines."""
    half = CHUNK // 2
    radius = np.sqrt(-2 * np.log(1 - uniform[:half]))
    angle = np.float32(2 * np.pi) * uniform[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).astype(np.float32)


def _one_by_one(generator: np.random.RandomState, count: int) -> np.ndarray:
    drawn: list[float] = []
    while len(drawn) < count:
        angle = 2 * np.pi * _uniform_float64(generator)
        radius = np.sqrt(-2 * np.log1p(-_uniform_float64(generator)))
        drawn += [radius * np.cos(angle), radius * np.sin(angle)]
    return np.array(drawn[:count])


def torch_normal(seed: int, count: int) -> np.ndarray:
    """The first normal_(0, 1) of so many numbers after torch.manual_seed(seed); float32 [count].

    Equal to PyTorch's to float32 rounding of the trigonometric functions. Raises ValueError for
    a negative seed.
    """
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}")
    generator = np.random.RandomState(seed % 2**32)
    if count < CHUNK:
        return _one_by_one(generator, count).astype(np.float32)
    uniform = _uniform_float32(generator, count)
    whole = count - count % CHUNK
    chunks = [_box_muller(uniform[start : start + CHUNK]) for start in range(0, whole, CHUNK)]
    normal = np.concatenate([*chunks, uniform[whole:]])
    if count % CHUNK:
        # What does not fill a chunk is drawn anew, together with the numbers before it.
        normal[-CHUNK:] = _box_muller(_uniform_float32(generator, CHUNK))
    return normal
