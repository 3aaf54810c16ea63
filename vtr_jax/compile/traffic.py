"""Bytes that a compiled program moves between a chip and its memory, loops multiplied out."""

from __future__ import annotations

from collections.abc import Iterator

from vtr_jax.hlo import Computation, Instruction, Program

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
# Where the results of a copy that runs in the background hold its destination.
DESTINATION = {"copy-start": 0, "slice-start": 1}


def memory_traffic(program: Program) -> int:
    """Bytes read and written in main memory by one run of the program on one device.

    Every instruction outside a fusion reads its operands and writes its result; a fusion that
    only cuts a slice out of an operand reads the slice, one that updates a slice in place writes
    that. Arrays that the compiler keeps on the chip move nothing.
    """
    total = 0
    for computation, instruction in program.running():
        if computation.fused or _moves_nothing(instruction):
            continue
        read = sum(_reads(program, computation, instruction))
        total += computation.times * (read + _writes(program, computation, instruction))
    return total


def _moves_nothing(instruction: Instruction) -> bool:
    return instruction.opcode in MOVES_NOTHING or instruction.opcode.endswith("-done")


def _reads(program: Program, computation: Computation, instruction: Instruction) -> Iterator[int]:
    for index, name in enumerate(instruction.operands):
        operand = computation.instructions[name]
        if any(array.space for array in operand.arrays):
            continue
        yield _part_read(program, instruction, index, operand.bytes)


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


def _writes(program: Program, computation: Computation, instruction: Instruction) -> int:
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
    return sum(
        array.bytes if part is None else min(part, array.bytes)
        for array, part in zip(arrays, parts, strict=False)
        if not array.space
    )


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
