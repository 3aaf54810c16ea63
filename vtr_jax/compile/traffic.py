"""Bytes that a compiled program moves between a chip and its memory, loops multiplied out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator

from vtr_jax.collectives import KINDS as EXCHANGES
from vtr_jax.hlo import Computation, HloArray, Instruction, Program

# They name, wait or call; what they call is counted by itself.
MOVES_NOTHING = frozenset(
    {
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "while",
        "conditional",
        "call",
        "async-start",
        "async-update",
        "after-all",
        "partition-id",
        "opt-barrier",
    }
)
RESHAPES = frozenset({"bitcast", "convert", "copy", "reshape", "transpose"})
SLICES = frozenset({"dynamic-slice", "slice", "gather"})
PRODUCTS = frozenset({"dot", "convolution"})
# What a library computes; "fmha" is cuDNN's attention.
LIBRARY_PRODUCTS = re.compile(r'custom_call_target="[^"]*(gemm|matmul|conv|fmha)', re.IGNORECASE)
# A fusion of these alone computes nothing.
COPIES = frozenset(
    {
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
        *("copy", "transpose", "reshape", "concatenate"),
        *("slice", "dynamic-slice", "dynamic-update-slice"),
    }
)
KINDS = ("products", "exchanges", "copies", "others")
# Where the results of a copy that runs in the background hold its destination.
DESTINATION = {"copy-start": 0, "slice-start": 1}


@dataclasses.dataclass(frozen=True)
class Move:
    """Bytes of one array that an instruction reads or writes, in all its runs together.

    kind: of the instruction, one of KINDS: matrix products with what is fused to them, exchanges
    between devices, copies to another place or layout, all others. shape: of the whole array.
    """

    kind: str
    shape: tuple[int, ...]
    bytes: int


def memory_traffic(program: Program) -> list[Move]:
    """What one run of the program on one device reads and writes in main memory.

    Every instruction outside a fusion reads its operands and writes its result; a fusion that
    only cuts a slice out of an operand reads the slice, one that updates a slice in place writes
    that. Arrays that the compiler keeps on the chip move nothing.
    """
    found = []
    for computation, instruction in program.running():
        if computation.fused or _moves_nothing(instruction):
            continue
        kind = _kind(program, instruction)
        moved = (
            *_reads(program, computation, instruction),
            *_writes(program, computation, instruction),
        )
        found += [Move(kind, shape, computation.times * size) for shape, size in moved]
    return found


def bytes_by_kind(moves: Iterable[Move]) -> dict[str, int]:
    """The bytes of each of KINDS."""
    totals = dict.fromkeys(KINDS, 0)
    for move in moves:
        totals[move.kind] += move.bytes
    return totals


def score_bytes(moves: Iterable[Move], tokens: int) -> int:
    """Bytes of arrays with two axes of that many tokens: scores and weights of an attention."""
    return sum(move.bytes for move in moves if move.shape.count(tokens) > 1)


def _kind(program: Program, instruction: Instruction) -> str:
    inside = list(_inside(program, instruction))
    opcodes = {each.opcode.removesuffix("-start") for each in inside}
    if opcodes & PRODUCTS or any(LIBRARY_PRODUCTS.search(each.attributes) for each in inside):
        return "products"
    if opcodes.intersection(EXCHANGES):
        return "exchanges"
    return "copies" if opcodes <= COPIES else "others"


def _inside(program: Program, instruction: Instruction) -> Iterator[Instruction]:
    """An instruction, or all that its fusion is made of."""
    called = _fused(program, instruction)
    if called is None:
        yield instruction
        return
    for each in called.instructions.values():
        yield from _inside(program, each)


def _moves_nothing(instruction: Instruction) -> bool:
    return instruction.opcode in MOVES_NOTHING or instruction.opcode.endswith("-done")


def _reads(
    program: Program, computation: Computation, instruction: Instruction
) -> Iterator[tuple[tuple[int, ...], int]]:
    for index, name in enumerate(instruction.operands):
        operand = computation.instructions[name]
        if any(array.space for array in operand.arrays):
            continue
        yield _shape(operand.arrays), _part_read(program, instruction, index, operand.bytes)


def _shape(arrays: tuple[HloArray, ...]) -> tuple[int, ...]:
    return arrays[0].shape if len(arrays) == 1 else ()


def _part_read(program: Program, instruction: Instruction, index: int, whole: int) -> int:
    """How much of its index-th operand, whole bytes long, an instruction reads."""
    if instruction.opcode in SLICES and index == 0:
        return min(whole, instruction.bytes)
    if instruction.opcode in DESTINATION:
        return instruction.arrays[DESTINATION[instruction.opcode]].bytes
    if instruction.opcode == "dynamic-update-slice" and index == 0:
        return 0
    called = _fused(program, instruction)
    return _argument_read(program, called, index, whole) if called else whole


def _argument_read(program: Program, called: Computation, index: int, whole: int) -> int:
    arguments = [
        each.name
        for each in called.instructions.values()
        if each.opcode == "parameter" and each.attributes == f"({index})"
    ]
    return min(whole, _used(program, called, arguments[0], whole)) if arguments else whole


def _used(program: Program, called: Computation, name: str, whole: int) -> int:
    total = 0
    for user in called.instructions.values():
        for index, operand in enumerate(user.operands):
            if operand != name:
                continue
            passes_on = user.opcode in RESHAPES and not user.is_root
            total += (
                _used(program, called, user.name, whole)
                if passes_on
                else _part_read(program, user, index, whole)
            )
    return total


def _writes(
    program: Program, computation: Computation, instruction: Instruction
) -> list[tuple[tuple[int, ...], int]]:
    arrays = instruction.arrays
    if instruction.opcode in DESTINATION:
        arrays = arrays[DESTINATION[instruction.opcode] :][:1]
    called = _fused(program, instruction)
    parts = (
        _root_parts(program, called)
        if called
        else [_updated(program, computation, instruction.name)]
    )
    parts += [None] * (len(arrays) - len(parts))
    return [
        (array.shape, array.bytes if part is None else min(part, array.bytes))
        for array, part in zip(arrays, parts, strict=False)
        if not array.space
    ]


def _root_parts(program: Program, called: Computation) -> list[int | None]:
    """Bytes that each result of a fusion really writes, None for the whole array."""
    root = next(each for each in called.instructions.values() if each.is_root)
    results = root.operands if root.opcode == "tuple" else (root.name,)
    return [_updated(program, called, name) for name in results]


def _updated(program: Program, called: Computation, name: str) -> int | None:
    instruction = called.instructions[name]
    if instruction.opcode == "dynamic-update-slice":
        return called.instructions[instruction.operands[1]].bytes
    if called.fused and instruction.opcode in RESHAPES:
        return _updated(program, called, instruction.operands[0])
    inner = _fused(program, instruction)
    return _root_parts(program, inner)[0] if inner else None


def _fused(program: Program, instruction: Instruction) -> Computation | None:
    if instruction.opcode != "fusion":
        return None
    name = instruction.attributes.partition("calls=")[2].lstrip("%").split(",")[0].split(" ")[0]
    return program.computations.get(name)
