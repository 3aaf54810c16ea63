"""What the names in a PyTorch file become: tensors, plain data, or placeholders without a deed.

Nothing is imported and nothing of the file is called. Classes of other programs become Opaque;
functions, and everything else of Python's standard library, are refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.torch_storage import MAX_DIMENSIONS, STORAGE_DTYPES, tensor_view


@dataclass(eq=False)
class ScriptNode:
    """One module of a TorchScript archive: its attributes (tensors, modules, settings) by name."""

    class_name: str
    attributes: dict[Any, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Inert:
    """A harmless object next to the weights (a date, a path, an array); only its type is kept."""

    name: str


@dataclass(eq=False)
class Opaque:
    """An object of a class that only its author's program has: its name and what it contains.

    The class is neither imported nor called. parts: arguments, state and items, as read.
    """

    name: str
    parts: list[Any] = field(default_factory=list, repr=False)

    def count_tensors(self) -> int:
        """Return how many tensors the object contains."""
        found, pending, seen = 0, list(self.parts), set()
        while pending:
            part = pending.pop()
            if isinstance(part, LazyTensor | UnreadableTensor):
                found += 1
            elif isinstance(part, dict | list | tuple | Opaque) and id(part) not in seen:
                seen.add(id(part))
                inside = part.parts if isinstance(part, Opaque) else part
                pending.extend(inside.values() if isinstance(inside, dict) else inside)
        return found


@dataclass(eq=False)
class UnreadableTensor:
    """A tensor that is not stored as plain numbers (distributed, quantized, sparse)."""

    reason: str


@dataclass(eq=False)
class OddKey:
    """A dictionary key that is neither text nor a number; equal to no other key."""

    type_name: str

    def __str__(self) -> str:
        return f"a key of type {self.type_name}"


@dataclass(frozen=True)
class Constructor:
    """What a file may apply to arguments; `build` makes plain data and calls nothing of theirs."""

    name: str
    build: Callable[[tuple], object]


def known_type(module: str, name: str) -> object:
    """Return what a name in a file stands for: a NumPy dtype (storage types), Constructor or Inert.

    Raises:
        ValueError: The standard library's names outside the tables below, and hidden names.
    """
    full_name = f"{module}.{name}"
    if full_name == _SHARDED:
        raise ValueError(f"it has {DISTRIBUTED}")
    if module in ("torch", "torch.storage") and name in STORAGE_DTYPES:
        return STORAGE_DTYPES[name]
    if full_name in _CONSTRUCTORS:
        return Constructor(full_name, _CONSTRUCTORS[full_name])
    if full_name in _UNREADABLE:
        return Constructor(full_name, lambda _arguments: UnreadableTensor(_UNREADABLE[full_name]))
    if _INERT_VALUES.fullmatch(full_name):
        return Inert(full_name)
    if _INERT_TYPES.fullmatch(full_name):
        return Constructor(full_name, lambda _arguments: Inert(full_name))
    if module.split(".", 1)[0] == "__torch__":
        return Constructor(full_name, lambda _arguments: ScriptNode(full_name))
    if module.split(".", 1)[0] in _STANDARD_LIBRARY or not _PUBLIC.fullmatch(full_name):
        raise _hostile(full_name)
    return Constructor(full_name, partial(_opaque, full_name))


def _hostile(full_name: str) -> ValueError:
    return ValueError(
        f"it asks for {full_name[:100]!r}, which is no part of stored weights, so it was refused "
        "and nothing was executed. Do not load it elsewhere unless you know who wrote it; its "
        "author can save the weights alone: torch.save(model.state_dict(), path)"
    )


def _opaque(full_name: str, arguments: tuple) -> Opaque:
    # A class can stand for settings; a call of a function is what hostile files are made of.
    if not full_name.rpartition(".")[2].lstrip("_")[:1].isupper():
        raise _hostile(full_name)
    return Opaque(full_name, list(arguments))


def _reconstructed(arguments: tuple) -> object:
    """Build what copyreg's helper names: (class, base, state), as pickle protocols 0 and 1 do."""
    if not arguments or not isinstance(arguments[0], Constructor):
        raise ValueError("an object without its class: the file is damaged")
    return arguments[0].build(arguments[2:])


def _tensor(arguments: tuple) -> LazyTensor:
    # (storage, offset, shape, strides, requires_grad, hooks, metadata); the first four matter.
    if not 4 <= len(arguments) <= 7 or (len(arguments) == 7 and arguments[6]):
        raise ValueError("a tensor is described in an unknown way; save it again with .clone()")
    return tensor_view(*arguments[:4])


def _tensor_of_type(arguments: tuple) -> object:
    # (function, tensor class, its arguments, attributes): a subclass of torch.Tensor.
    if len(arguments) != 4 or not isinstance(arguments[0], Constructor):
        raise ValueError("a tensor is described in an unknown way; save it again with .clone()")
    function, kind, inner, _attributes = arguments
    if not isinstance(inner, tuple):
        raise ValueError("a tensor without its description: the file is damaged")
    built = function.build(inner)
    if isinstance(built, LazyTensor | UnreadableTensor):
        return built
    return UnreadableTensor(f"a tensor of the class {getattr(kind, 'name', 'unknown')[:100]}")


def _wrapped_tensor(arguments: tuple) -> UnreadableTensor:
    # DTensor and quantized tensors: a class, and attributes that only the class understands.
    kind = getattr(arguments[0], "name", "an unknown class") if arguments else "an unknown class"
    if kind.endswith(".DTensor"):
        return UnreadableTensor(DISTRIBUTED)
    return UnreadableTensor(f"a tensor of the class {kind[:100]}; save plain float tensors")


def _typed_tensor(arguments: tuple) -> UnreadableTensor:
    # (bytes, offset, shape, strides, ..., dtype, metadata): types without a storage class.
    dtype = getattr(arguments[6], "name", "unknown") if len(arguments) > 6 else "unknown"
    return UnreadableTensor(f"a tensor of type {dtype[:50]}; save it as float32")


def _device_tensor(arguments: tuple) -> object:
    return _parameter(arguments)


def _parameter(arguments: tuple) -> LazyTensor | UnreadableTensor:
    if not arguments or not isinstance(arguments[0], LazyTensor | UnreadableTensor):
        raise ValueError("a parameter without its tensor: the file is damaged")
    return arguments[0]


def _dict(arguments: tuple) -> dict[Any, Any]:
    # OrderedDict(), defaultdict(factory), Counter(counts): the items follow, or are the argument.
    given = [item for item in arguments if isinstance(item, dict)]
    if any(isinstance(item, list) for item in arguments):
        raise ValueError("an OrderedDict in the form of Python 2; save the file under Python 3")
    return dict(given[0]) if given else {}


def _size(arguments: tuple) -> tuple:
    sizes = arguments[0] if len(arguments) == 1 else None
    if not isinstance(sizes, tuple | list) or len(sizes) > MAX_DIMENSIONS:
        raise ValueError(f"a torch.Size needs up to {MAX_DIMENSIONS} sizes: the file is damaged")
    return tuple(sizes)


def _same(arguments: tuple) -> object:
    if not arguments:
        raise ValueError("a typed list without its items: the file is damaged")
    return arguments[0]


DISTRIBUTED = (
    "a part of a distributed tensor (DTensor, ShardedTensor), of which other processes have the "
    "rest; save full tensors: get_model_state_dict(model, options=StateDictOptions("
    "full_state_dict=True))"
)
_SHARDED = "torch.distributed._shard.sharded_tensor.api.ShardedTensor"
_SPARSE = "a sparse tensor; save .to_dense()"
_UNREADABLE = {
    "torch._utils._rebuild_qtensor": "a quantized tensor; save the float model's weights",
    "torch._utils._rebuild_sparse_tensor": _SPARSE,
    "torch._utils._rebuild_sparse_csr_tensor": _SPARSE,
    "torch._utils._rebuild_nested_tensor": "a nested tensor; save plain tensors",
    "torch._utils._rebuild_meta_tensor_no_storage": "a meta tensor, which has no numbers; save the "
    "model after its weights are loaded",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of an XLA device; save .cpu()",
}
_CONSTRUCTORS: dict[str, Callable[[tuple], object]] = {
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    "collections.Counter": _dict,
    "builtins.dict": _dict,
    "__builtin__.dict": _dict,
    "copyreg._reconstructor": _reconstructed,
    "copy_reg._reconstructor": _reconstructed,
    "torch._tensor._rebuild_from_type_v2": _tensor_of_type,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _device_tensor,
    "torch._utils._rebuild_wrapper_subclass": _wrapped_tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": _size,
    "torch.jit._pickle.build_intlist": _same,
    "torch.jit._pickle.build_doublelist": _same,
    "torch.jit._pickle.build_boollist": _same,
    "torch.jit._pickle.build_tensorlist": _same,
    "torch.jit._pickle.restore_type_tag": _same,
}
# Harmless types that training programs save next to the weights.
_INERT_TYPES = re.compile(
    r"torch\.(device|Generator|serialization\._get_layout)"
    r"|argparse\.Namespace|types\.SimpleNamespace|operator\.getitem|functools\.partial"
    r"|collections\.(deque|UserDict|UserList|ChainMap)"
    r"|pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path"
    r"|datetime\.(datetime|date|time|timedelta|timezone)|zoneinfo\.ZoneInfo(\._unpickle)?"
    r"|uuid\.UUID|decimal\.Decimal|fractions\.Fraction"
    r"|(builtins|__builtin__)\.(set|frozenset|bytearray|bytes|complex|slice|x?range|list|tuple|int"
    r"|long|float|str|unicode|bool|object)"
    r"|_codecs\.encode|copyreg\.__newobj__"
    r"|numpy\.(ndarray|dtype|dtypes\.\w+|generic|number|integer|floating|(_?core\.)?memmap"
    r"|(float|u?int|complex|bool|str|bytes|void|object|datetime|timedelta|longdouble|long|ulong|half"
    r"|single|double)\w*)"
    r"|numpy\._?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)"
    r"|numpy\.ma\.core\.(_mareconstruct|MaskedArray)"
    r"|numpy\.random\._pickle\.__(randomstate|generator|bit_generator)_ctor"
    r"|numpy\.random\.(mtrand\.|_generator\.)?(RandomState|Generator)"
    r"|numpy\.random\._\w+\.(MT19937|PCG64|PCG64DXSM|Philox|SFC64)"
    r"|numpy\.random\.bit_generator\.(__pyx_unpickle_)?SeedSequence"
    r"|torch\.distributed\.remote_device\._remote_device"
)
_INERT_VALUES = re.compile(
    r"torch\.(u?int\d+|float\d+\w*|bfloat16|complex\d+|bool|qu?int\w+|bits\w+|strided|sparse_\w+"
    r"|contiguous_format|channels_last\w*|preserve_format|per_(tensor|channel)_\w+)"
    r"|typing\.[A-Z]\w*"
)
_STANDARD_LIBRARY = sys.stdlib_module_names | {"__builtin__", "copy_reg"}
# No part that begins with two underscores: such names lead out of a module.
_PUBLIC = re.compile(r"(?!__)\w+(\.(?!__)\w+)+")
