"""The only names a PyTorch file may ask for, and what each becomes: nothing that can act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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
    """Something a file holds beside weights (options, counters); only its type's name is kept."""

    name: str


@dataclass(frozen=True)
class Constructor:
    """What a file may apply to arguments; `build` makes plain data and calls nothing of theirs."""

    name: str
    build: Callable[[tuple], object]


def known_type(module: str, name: str) -> object:
    """What the name stands for: a NumPy dtype (storage types), a Constructor, or an Inert value.

    ValueError for every name outside the tables below.
    """
    full_name = f"{module}.{name}"
    if module == "torch" and name in STORAGE_DTYPES:
        return STORAGE_DTYPES[name]
    if full_name in _CONSTRUCTORS:
        return Constructor(full_name, _CONSTRUCTORS[full_name])
    if full_name in _INERT_VALUES:
        return Inert(full_name)
    if full_name in _INERT_TYPES:
        return Constructor(full_name, lambda _arguments: Inert(full_name))
    if module.split(".", 1)[0] == "__torch__":
        return Constructor(full_name, lambda _arguments: ScriptNode(full_name))
    raise ValueError(
        f"it asks for {full_name[:100]!r}, which is no part of stored weights, so it was refused "
        "and nothing was executed. Do not load it elsewhere unless you know who wrote it; its "
        "author can save the weights alone: torch.save(model.state_dict(), path)"
    )


def _tensor(arguments: tuple) -> LazyTensor:
    # (storage, offset, shape, strides, requires_grad, hooks, metadata); the first four matter.
    if not 4 <= len(arguments) <= 7 or (len(arguments) == 7 and arguments[6]):
        raise ValueError("a tensor is described in an unknown way; save it again with .clone()")
    return tensor_view(*arguments[:4])


def _parameter(arguments: tuple) -> LazyTensor:
    if not arguments or not isinstance(arguments[0], LazyTensor):
        raise ValueError("a parameter without its tensor: the file is damaged")
    return arguments[0]


def _ordered_dict(arguments: tuple) -> dict[Any, Any]:
    if arguments:
        raise ValueError("an OrderedDict in the form of Python 2; save the file under Python 3")
    return {}


def _size(arguments: tuple) -> tuple:
    sizes = arguments[0] if len(arguments) == 1 else None
    if not isinstance(sizes, tuple | list) or len(sizes) > MAX_DIMENSIONS:
        raise ValueError(f"a torch.Size needs up to {MAX_DIMENSIONS} sizes: the file is damaged")
    return tuple(sizes)


def _same(arguments: tuple) -> object:
    if not arguments:
        raise ValueError("a typed list without its items: the file is damaged")
    return arguments[0]


_CONSTRUCTORS: dict[str, Callable[[tuple], object]] = {
    "collections.OrderedDict": _ordered_dict,
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
# Found beside the weights in training checkpoints.
_INERT_TYPES = frozenset(
    {
        "torch.device",
        "argparse.Namespace",
        "collections.Counter",
        "collections.defaultdict",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "_codecs.encode",
        "numpy.dtype",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
    }
)
_INERT_VALUES = frozenset(
    {
        "torch.float16",
        "torch.bfloat16",
        "torch.float32",
        "torch.float64",
        "torch.int64",
        "builtins.dict",
        "builtins.list",
        "builtins.int",
        "__builtin__.dict",
        "__builtin__.list",
        "__builtin__.int",
    }
)
