"""Finding the weights inside what a checkpoint file holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.torch_types import ScriptNode

# In order of preference where a file has several, e.g. the weights and a copy of them.
WRAPPER_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
)
_MAX_WRAPPERS = 4
_MAX_MODULE_DEPTH = 64
_MAX_ATTRIBUTES = 1_000_000


def find_state_dict(value: Any) -> tuple[dict[str, LazyTensor], tuple[str, ...]]:
    """The flat {name: tensor} inside a file's object, and notes on what was taken off and ignored.

    A TorchScript tree is named by its attribute paths; a dict that wraps the weights is opened; the
    prefix `module.` of data-parallel training is removed where every name has it. ValueError where
    there are no weights or several candidates.
    """
    if isinstance(value, ScriptNode):
        tensors = dict(_attribute_paths(value))
        if not tensors:
            raise ValueError("the TorchScript module has no parameters; expected a CLIP model")
        return tensors, ()
    value, notes = _unwrap(value)
    tensors = {key: item for key, item in value.items() if isinstance(item, LazyTensor)}
    ignored = [str(key) for key in value if key not in tensors]
    if ignored:
        notes.append(f"ignored entries that are no tensors: {_some(ignored)}")
    if any(type(key) is not str for key in tensors):
        raise ValueError("its tensors are numbered, not named; expected a model's state_dict")
    tensors, removed = _without_module(tensors)
    return tensors, (*notes, *removed)


def _unwrap(value: Any) -> tuple[dict[Any, Any], list[str]]:
    notes: list[str] = []
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(value, dict):
            raise ValueError(
                f"expected a state_dict, found a {type(value).__name__}; in PyTorch save "
                "the weights by name: torch.save(model.state_dict(), path)"
            )
        key = _wrapper_key(value)
        if key is None:
            return value, notes
        notes.append(f"took the weights from the entry {key!r}")
        others = [str(other) for other in value if other != key]
        if others:
            notes.append(f"ignored the entries beside it: {_some(others)}")
        value = value[key]
    raise ValueError("its weights are wrapped in too many layers; save the state_dict itself")


def _wrapper_key(value: dict[Any, Any]) -> str | None:
    """The entry that holds the weights; None where `value` itself holds them."""
    candidates = [
        key
        for key, item in value.items()
        if type(key) is str and isinstance(item, dict) and _holds_weights(item, _MAX_WRAPPERS)
    ]
    for key in WRAPPER_KEYS:
        if key in candidates:
            return key
    if any(isinstance(item, LazyTensor) for item in value.values()):
        return None
    if len(candidates) == 1:
        return candidates[0]
    entries = _some([str(key) for key in value])
    if candidates:
        raise ValueError(
            f"several entries hold tensors ({_some(candidates)}); save the one that is meant alone"
        )
    if "optimizer_state_dict" in value or "param_groups" in value:
        raise ValueError(
            f"it holds the state of an optimizer (entries: {entries}), expected a model's weights; "
            "give the model's file, e.g. pytorch_model.bin.2 instead of pytorch_opt.bin.2"
        )
    raise ValueError(
        f"expected a model's weights, found no tensors under any of {', '.join(WRAPPER_KEYS)} "
        f"(entries: {entries})"
    )


def _holds_weights(item: dict[Any, Any], depth: int) -> bool:
    if any(type(key) is str and isinstance(part, LazyTensor) for key, part in item.items()):
        return True
    return depth > 0 and any(
        isinstance(item.get(key), dict) and _holds_weights(item[key], depth - 1)
        for key in WRAPPER_KEYS
    )


def _without_module(
    tensors: dict[str, LazyTensor],
) -> tuple[dict[str, LazyTensor], tuple[str, ...]]:
    prefix = "module."
    if not tensors or not all(key.startswith(prefix) for key in tensors):
        return tensors, ()
    stripped = {key.removeprefix(prefix): item for key, item in tensors.items()}
    return stripped, (f"removed the prefix {prefix!r} from every name",)


def _attribute_paths(root: ScriptNode) -> Iterator[tuple[str, LazyTensor]]:
    """Tensors of a module tree by dotted path, in the order of the file."""
    budget = _MAX_ATTRIBUTES
    pending: list[tuple[str, int, Any]] = [("", 0, root)]
    while pending:
        path, depth, node = pending.pop()
        if isinstance(node, LazyTensor):
            yield path, node
            continue
        budget -= len(node.attributes)
        # Shared or circular modules could otherwise be walked for ever.
        if budget < 0 or depth > _MAX_MODULE_DEPTH:
            raise ValueError("its modules are nested without end: the file is damaged")
        if not all(type(name) is str for name in node.attributes):
            raise ValueError(f"the module {path or 'root'} has unnamed parts: the file is damaged")
        pending.extend(
            (f"{path}.{name}" if path else name, depth + 1, item)
            for name, item in reversed(node.attributes.items())
            if isinstance(item, LazyTensor | ScriptNode)
        )


def _some(names: list[str], limit: int = 8) -> str:
    shown = ", ".join(name[:60] for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
