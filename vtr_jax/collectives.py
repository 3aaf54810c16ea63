"""What the devices of a compiled program send to one another: kinds, numbers, bytes."""

from __future__ import annotations

import dataclasses
import math
import re

from vtr_jax.hlo import Computation, Instruction, Program, read_program

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange of a program.

    times: how often a step runs it. bytes: of the whole array that a device has before (reductions,
    all-to-all, permute) or after it (all-gather). devices: how many take part in one group.
    """

    kind: str
    name: str
    times: int
    bytes: int
    devices: int

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a step if the exchange goes around a ring."""
        share = (self.devices - 1) / self.devices
        rounds = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return self.times * self.bytes * rounds


def collectives(program: Program | str, devices: int) -> list[Collective]:
    """Every exchange of a compiled program between more than one device.

    program: as read, or its text. devices: that it runs on, meant where a group names none.
    """
    if isinstance(program, str):
        program = read_program(program)
    found: dict[str, Collective] = {}
    for computation, instruction in program.running():
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        collective = _collective(kind, computation, instruction, devices)
        # A TPU spreads one exchange over the fusions that it hides behind: same channel, and each
        # of them repeats the instruction.
        channel = re.search(r"channel_id=(\d+)", instruction.attributes)
        key = f"channel {channel.group(1)}" if computation.fused and channel else instruction.name
        if collective.devices > 1:
            found.setdefault(key, collective)
    return list(found.values())


def collective_totals(found: list[Collective]) -> dict[str, dict[str, int]]:
    """{kind: {"number": ..., "bytes": ...}} of one step, the sizes as in Collective.bytes."""
    totals: dict[str, dict[str, int]] = {}
    for each in found:
        total = totals.setdefault(each.kind, {"number": 0, "bytes": 0})
        total["number"] += each.times
        total["bytes"] += each.times * each.bytes
    return totals


def _collective(
    kind: str, computation: Computation, instruction: Instruction, devices: int
) -> Collective:
    before = sum(computation.instructions[name].bytes for name in instruction.operands)
    size = before
    if kind == "all-gather":
        # The result of a start also holds what it started from.
        size = instruction.bytes - (before if instruction.opcode.endswith("-start") else 0)
    if kind == "all-reduce" and "all-reduce-scatter" in computation.name:
        kind = "reduce-scatter"
    group = devices if kind == "collective-permute" else _group(instruction.attributes, devices)
    return Collective(kind, instruction.name, computation.times, size, group)


def _group(attributes: str, devices: int) -> int:
    """Devices in a group, of the three spellings of replica_groups."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    if listed:
        return len(listed.group(1).split(","))
    counted = re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes)
    if counted:
        return int(counted.group(2))
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes)
    if named:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named.group(1)))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", named.group(2)))
    return devices
