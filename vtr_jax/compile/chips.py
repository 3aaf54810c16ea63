"""What one chip of each kind can do, as its maker publishes it; sources in docs/scaling.md."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip.

    hbm: bytes of memory that a program can have. flops: bfloat16 operations a second.
    hbm_bandwidth: bytes a second. links: bytes a second that all its links to other chips send
    together, one way. axes: of the torus that the links make; an exchange along one mesh axis is
    counted on one of them.
    """

    name: str
    hbm: int
    flops: float
    hbm_bandwidth: float
    links: float
    axes: int

    @property
    def ring_bandwidth(self) -> float:
        """Bytes a second that a chip sends in an exchange along one axis of the torus."""
        return self.links / self.axes


GIB = 2**30

# By what JAX calls the device.
CHIPS: dict[str, Chip] = {
    "TPU v4": Chip("v4", 32 * GIB, 275e12, 1200e9, 300e9, 3),
    # libtpu's compiler gives a program 15.75 of the 16 GiB.
    "TPU v5 lite": Chip("v5e", 63 * GIB // 4, 197e12, 819e9, 200e9, 2),
    "TPU v5": Chip("v5p", 95 * GIB, 459e12, 2765e9, 600e9, 3),
    "TPU v6 lite": Chip("v6e", 32 * GIB, 918e12, 1638e9, 400e9, 2),
    "NVIDIA A100-SXM4-80GB": Chip("A100", 80 * GIB, 312e12, 2039e9, 300e9, 1),
    "NVIDIA H100 80GB HBM3": Chip("H100", 80 * GIB, 989e12, 3350e9, 450e9, 1),
    "NVIDIA H200": Chip("H200", 141 * 10**9, 989e12, 4800e9, 450e9, 1),
}


def chip_of(device_kind: str) -> Chip | None:
    """The figures of a kind of device, None for one that the table lacks (a CPU, say)."""
    return CHIPS.get(device_kind)
