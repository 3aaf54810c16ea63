"""Reading a compiled XLA program's text: its instructions, and how often each one runs.

XLA's own analysis counts the body of a loop once, whatever its number of turns; here loops are
multiplied out, so that a scan over 24 layers counts 24 times.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)|branch_computations=\{([^}]*)"
)


@dataclasses.dataclass(frozen=True)
class HloArray:
    """One array of an instruction's result. space: 0 main memory, others on the chip."""

    bytes: int
    space: int
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program.

    operands: names of instructions of the same computation. attributes: what follows them; of a
    constant or a parameter what stands in its parentheses.
    """

    name: str
    opcode: str
    arrays: tuple[HloArray, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """Bytes of its result, all arrays of a tuple together."""
        return sum(array.bytes for array in self.arrays)


@dataclasses.dataclass
class Computation:
    """A function of the program. times: its runs in one run of the program."""

    name: str
    instructions: dict[str, Instruction] = dataclasses.field(default_factory=dict)
    times: int = 0
    fused: bool = False


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program. unknown_loops: loops whose number of turns it does not tell."""

    computations: dict[str, Computation]
    unknown_loops: tuple[str, ...]

    def running(self) -> Iterator[tuple[Computation, Instruction]]:
        """Every instruction that runs, with its computation."""
        for computation in self.computations.values():
            if computation.times:
                for instruction in computation.instructions.values():
                    yield computation, instruction


def read_program(text: str) -> Program:
    """The program that `compiled.as_text()` prints; ValueError where it has no entry."""
    computations, entry, current = {}, None, None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = Computation(header.group(2))
            computations[current.name] = current
            entry = current if header.group(1) else entry
        elif current is not None and (match := _INSTRUCTION.match(line)):
            instruction = _instruction(match.group(2), match.group(3), bool(match.group(1)))
            current.instructions[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text of a compiled program has no ENTRY computation")
    unknown: list[str] = []
    _run(computations, entry, 1, False, unknown)
    return Program(computations, tuple(unknown))


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
    kind = text[: _closing(text, 0) + 1] if text.startswith("(") else text.split(" ", 1)[0]
    rest = text[len(kind) :].lstrip()
    opcode, _, _ = rest.partition("(")
    end = _closing(rest, len(opcode))
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[len(opcode) : end]))
    attributes = rest[end + 1 :]
    if opcode in ("constant", "parameter"):
        attributes = rest[len(opcode) : end + 1]
    return Instruction(name, opcode, _arrays(kind), operands, attributes, is_root)


def _closing(text: str, start: int) -> int:
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match.group() == "(" else -1
        if depth == 0:
            return match.start()
    return len(text) - 1


def _arrays(kind: str) -> tuple[HloArray, ...]:
    found = []
    for dtype, sizes, layout in _ARRAY.findall(kind):
        shape = tuple(int(size) for size in sizes.split(",") if size)
        count = 1
        for size in shape:
            count *= size
        space = re.search(r"S\((\d+)\)", layout)
        found.append(
            HloArray(count * _bits(dtype) // 8, int(space.group(1)) if space else 0, shape)
        )
    return tuple(found)


def _bits(dtype: str) -> int:
    """Bits of one value: f32 has 32, bf16 16, f8e4m3fn 8."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.search(r"\d+", dtype)
    return int(digits.group()) if digits else 0


def _run(
    computations: dict[str, Computation],
    computation: Computation,
    times: int,
    fused: bool,
    unknown: list[str],
) -> None:
    computation.times += times
    computation.fused = fused
    for instruction in computation.instructions.values():
        turns = 1
        if instruction.opcode == "while":
            turns = _turns(computations, instruction, unknown)
        for single, several in _CALLED.findall(instruction.attributes):
            for name in re.findall(r"[\w.\-]+", single or several):
                if name in computations:
                    inside = fused or instruction.opcode == "fusion"
                    _run(computations, computations[name], times * turns, inside, unknown)


def _turns(computations: dict[str, Computation], loop: Instruction, unknown: list[str]) -> int:
    """Turns of a loop: what the compiler says, or what its counter is compared with."""
    known = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.attributes)
    if known:
        return int(known.group(1))
    name = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
    condition = computations.get(name.group(1)) if name else None
    limits = [
        int(number.group(1))
        for each in (condition.instructions.values() if condition else ())
        if each.opcode == "constant" and (number := re.fullmatch(r"\((\d+)\)", each.attributes))
    ]
    if len(limits) == 1:
        return limits[0]
    unknown.append(loop.name)
    return 1
