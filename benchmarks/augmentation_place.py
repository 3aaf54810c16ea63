"""Where RandAugment costs least: on the host with Pillow, or batched on the device.

    python benchmarks/augmentation_place.py [--frames 12] [--side 224]

Five of its fifteen operations turn, shear or move a picture by bicubic resampling, the dearest of
all. Times one of them on a whole clip with Pillow, on one core, and as one batched program of the
device (sixteen gathered neighbours a pixel), and a whole drawn RandAugment with Pillow. The two
take turns; prints one JSON line with medians and the largest difference of a pixel.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
from interleaved import add_whole_numbers, functions_in_turns, machine
from jax import Array

from vtr_jax.data.augmentation import RAND_AUGMENT, Operation, RandAugment, augment

SHEAR = 0.21


def cubic(distance: Array) -> Array:
    """The weight of a neighbour, as Pillow's bicubic filter for transforms has it (a = -0.5)."""
    x = jnp.abs(distance)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))


@jax.jit
def sheared(frames_fhwc: Array, shear: Array) -> Array:
    """Shear along x of uint8 frames, grey where nothing is; uint8 [F,H,W,3]."""
    height, width = frames_fhwc.shape[1:3]
    y, x = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    source_x, source_y = x + shear * y - 0.5, y - 0.5
    left, top = jnp.floor(source_x), jnp.floor(source_y)
    total = jnp.zeros(frames_fhwc.shape, jnp.float32)
    for row in range(-1, 3):
        for column in range(-1, 3):
            weight_hw = cubic(source_x - left - column) * cubic(source_y - top - row)
            at_x = jnp.clip(left + column, 0, width - 1).astype(jnp.int32)
            at_y = jnp.clip(top + row, 0, height - 1).astype(jnp.int32)
            total += weight_hw[..., None] * frames_fhwc[:, at_y, at_x]
    inside = (source_x >= -0.5) & (source_x < width - 0.5)
    pixels = jnp.clip(jnp.round(total), 0, 255)
    return jnp.where(inside[..., None], pixels, 128).astype(jnp.uint8)


def milliseconds(measured: Iterable[float]) -> float:
    """The median of some seconds, in milliseconds."""
    return round(1e3 * median(measured), 2)


def main() -> None:
    """Measure all three and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add_whole_numbers(parser, frames=12, side=224, rounds=30)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (arguments.frames, 14, 14, 3), np.uint8)
    clip = np.asarray(
        jax.image.resize(small, (arguments.frames, arguments.side, arguments.side, 3), "linear")
    ).astype(np.uint8)
    on_device, drawn = jax.device_put(clip), RandAugment.parse(RAND_AUGMENT)
    assert drawn is not None
    draws = itertools.cycle([drawn.draw(rng) for _ in range(arguments.rounds)])

    def augmented() -> list[np.ndarray]:
        operations = next(draws)
        return [augment(frame, operations) for frame in clip]

    pillow, device, whole = functions_in_turns(
        (
            lambda: np.stack([augment(frame, [Operation("ShearX", SHEAR)]) for frame in clip]),
            lambda: np.asarray(sheared(on_device, SHEAR)),
            augmented,
        ),
        arguments.rounds,
    )
    difference = np.abs(pillow[0].result.astype(int) - device[0].result)
    times = {"pillow_shear": pillow, "device_shear": device, "pillow_randaugment": whole}
    row = {
        "device": jax.devices()[0].device_kind,
        "machine": machine(),
        **vars(arguments),
        **{f"{name}_ms": milliseconds(run.seconds for run in runs) for name, runs in times.items()},
        **{
            f"{name}_processor_ms": milliseconds(run.processor for run in runs)
            for name, runs in times.items()
        },
        "pixels_that_differ_by_more_than_2": float((difference > 2).mean()),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
