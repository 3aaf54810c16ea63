"""The shortest time that a step can take on a chip, and what that says about its use."""

from __future__ import annotations

import dataclasses

from vtr_jax.compile.chips import Chip


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that each resource is busy in one step if it does nothing else.

    mfu: model FLOP utilisation if all three overlap wholly, so the highest that can be reached.
    """

    compute: float
    memory: float
    interconnect: float
    mfu: float

    @property
    def step(self) -> float:
        """Seconds a step takes at least: those of the busiest resource."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def bound(self) -> str:
        """The busiest resource: compute, memory or interconnect."""
        return max(("compute", "memory", "interconnect"), key=lambda name: getattr(self, name))


def roofline(
    chip: Chip, chips: int, step_flops: float, model_flops: float, traffic: float, sent: float
) -> Roofline:
    """The roofline of a step.

    step_flops, model_flops: of all chips together, with and without what is computed twice.
    traffic: bytes each chip moves to and from its memory. sent: bytes each chip sends.
    """
    peak = chip.flops * chips
    seconds = (step_flops / peak, traffic / chip.hbm_bandwidth, sent / chip.ring_bandwidth)
    return Roofline(*seconds, mfu=model_flops / peak / max(*seconds))
