"""Reading the pickles inside PyTorch files with a machine that cannot run anything.

Python's own Unpickler calls whatever a file names. Here the standard library parses the
instructions, and this machine applies them to plain lists, dicts and tuples; a name in the file can
only select a row of the tables in torch_types.py.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from vtr_jax.convert.torch_storage import Storage
from vtr_jax.convert.torch_types import (
    Constructor,
    Inert,
    OddKey,
    Opaque,
    ScriptNode,
    known_type,
)

MAX_PICKLE_BYTES = 64 * 2**20
_MAX_INSTRUCTIONS = 5_000_000
_DAMAGED = "the description of its contents is damaged; download the file again"


def read_pickle(stream: BinaryIO | mmap.mmap, persistent_load: Callable[[object], Storage]) -> Any:
    """Read one pickle from the stream; tensors come as LazyTensor, OrderedDict as dict.

    persistent_load turns the file's reference to stored numbers into their Storage. ValueError for
    damage, for an instruction that PyTorch does not write, and for a name outside the tables.
    """
    machine = _Machine(persistent_load)
    for count, (name, argument) in enumerate(_instructions(stream)):
        if count >= _MAX_INSTRUCTIONS:
            raise ValueError(
                f"expected a description of at most {_MAX_INSTRUCTIONS} steps, found more; save "
                "only the weights: torch.save(model.state_dict(), path)"
            )
        machine.step(name, argument)
    return machine.result()


def _instructions(stream: BinaryIO | mmap.mmap) -> Iterator[tuple[str, Any]]:
    """Name and argument of every instruction before STOP."""
    try:
        for opcode, argument, _position in pickletools.genops(cast(BinaryIO, stream)):
            if opcode.name == "STOP":
                return
            yield opcode.name, argument
    except ValueError as error:
        raise ValueError(f"{_DAMAGED} ({str(error)[:100]})") from error


class _Machine:
    """The stack, the marks on it and the memo of pickle's own machine, without its power to call.

    Nothing is copied in a way a file could repeat to fill the memory, and nothing is hashed but
    numbers and text: a tuple nested a million deep would crash the interpreter.
    """

    def __init__(self, persistent_load: Callable[[object], Storage]) -> None:
        self.persistent_load = persistent_load
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Apply one instruction."""
        if name in _VALUES:
            self.stack.append(argument)
            return
        instruction = _INSTRUCTIONS.get(name)
        if instruction is None:
            raise ValueError(
                f"it uses the pickle instruction {name}, which PyTorch does not write for weights, "
                "so it was refused and nothing was executed; get the file from a source you trust"
            )
        instruction(self, argument)

    def result(self) -> Any:
        """The finished object."""
        if len(self.stack) != 1 or self.marks:
            raise ValueError(_DAMAGED)
        return self.stack[0]

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the top of the stack, never from below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError(_DAMAGED)
        return self.stack.pop()

    def top(self) -> Any:
        """The top of the stack, left there."""
        value = self.pop()
        self.stack.append(value)
        return value

    def pop_to_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        if not self.marks:
            raise ValueError(_DAMAGED)
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items


def _mark(machine: _Machine, _argument: object) -> None:
    machine.marks.append(len(machine.stack))


def _put(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.top()


def _memoize(machine: _Machine, _argument: object) -> None:
    machine.memo[len(machine.memo)] = machine.top()


def _get(machine: _Machine, index: int) -> None:
    if index not in machine.memo:
        raise ValueError(_DAMAGED)
    machine.push(machine.memo[index])


def _tuple_of(count: int) -> Callable[[_Machine, object], None]:
    def build(machine: _Machine, _argument: object) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return build


def _extend(machine: _Machine, items: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, Inert):
        return
    if isinstance(target, Opaque):
        target = target.parts
    if not isinstance(target, list):
        raise ValueError(_DAMAGED)
    target.extend(items)


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, Inert):
        return
    if isinstance(target, Opaque):
        target.parts.extend(items)
        return
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError(_DAMAGED)
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Hashing a tuple could recurse without end, so other keys are compared by identity.
        plain = key is None or type(key) in (str, int, float, bool, bytes)
        target[key if plain else OddKey(type(key).__name__)] = value


def _set_one(machine: _Machine, _argument: object) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


def _new_dict(machine: _Machine, _argument: object) -> None:
    items = machine.pop_to_mark()
    machine.push({})
    _set_items(machine, items)


def _global(machine: _Machine, full_name: str) -> None:
    # The parser joins the file's two lines, module and name, with a space.
    module, _, name = full_name.partition(" ")
    machine.push(known_type(module, name))


def _stack_global(machine: _Machine, _argument: object) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise ValueError(_DAMAGED)
    machine.push(known_type(module, name))


def _construct(machine: _Machine, _argument: object) -> None:
    arguments, constructor = machine.pop(), machine.pop()
    if not isinstance(constructor, Constructor) or not isinstance(arguments, tuple):
        raise ValueError(
            f"it applies a {type(constructor).__name__} as if it were a type: refused, "
            "nothing was executed; download the file again from a source you trust"
        )
    machine.push(constructor.build(arguments))


def _set_state(machine: _Machine, _argument: object) -> None:
    state, target = machine.pop(), machine.top()
    if isinstance(target, Opaque):
        target.parts.append(state)
        return
    if isinstance(target, Inert | dict):
        return  # a dict's extra state is torch's _metadata (module versions): no weights
    if not isinstance(target, ScriptNode) or target.attributes:
        raise ValueError(_DAMAGED)
    if not isinstance(state, dict):
        raise ValueError(
            f"the module {target.class_name[:100]} packs its weights (is it quantised?), "
            "expected plain parameters; save the state_dict of the float model"
        )
    target.attributes = state


def _new_set(machine: _Machine, _argument: object) -> None:
    machine.push(Inert("builtins.set"))


def _frozen_set(machine: _Machine, _argument: object) -> None:
    machine.pop_to_mark()
    machine.push(Inert("builtins.frozenset"))


def _add_items(machine: _Machine, _argument: object) -> None:
    machine.pop_to_mark()
    if not isinstance(machine.top(), Inert):
        raise ValueError(_DAMAGED)


def _persistent(machine: _Machine, _argument: object) -> None:
    machine.push(machine.persistent_load(machine.pop()))


def _skip(_machine: _Machine, _argument: object) -> None:
    """An instruction about the encoding, not about the object."""


_VALUES = frozenset(
    {
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    }
)
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _skip,
    "FRAME": _skip,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": _new_set,
    "FROZENSET": _frozen_set,
    "ADDITEMS": _add_items,
    "MARK": _mark,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "DICT": _new_dict,
    "APPEND": lambda machine, _: _extend(machine, [machine.pop()]),
    "APPENDS": lambda machine, _: _extend(machine, machine.pop_to_mark()),
    "SETITEM": _set_one,
    "SETITEMS": lambda machine, _: _set_items(machine, machine.pop_to_mark()),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _memoize,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _construct,
    "NEWOBJ": _construct,
    "BUILD": _set_state,
    "BINPERSID": _persistent,
}
