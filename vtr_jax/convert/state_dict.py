"""Finding the weights inside what a checkpoint file holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from vtr_jax.convert.foreign_files import refuse_parts, refuse_stored_forms
from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.prefixes import (
    clip_prefixes,
    require_one_model,
    take_prefix,
    without_wrappers,
)
from vtr_jax.convert.torch_types import (
    Inert,
    Opaque,
    ScriptNode,
    UnreadableTensor,
)

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
# Averaged copies of the weights, which are taken only if there are no others.
_AVERAGE = re.compile(r"(?i)(^|_)(ema|averaged?|swa|shadow)(_|$)")
_MAX_WRAPPERS = 4
_MAX_MODULE_DEPTH = 64
_MAX_ATTRIBUTES = 1_000_000


def find_state_dict(
    value: Any, entry: str | None = None, prefix: str | None = None
) -> tuple[dict[str, LazyTensor], tuple[str, ...]]:
    """Find the flat {name: tensor} in a file's object, and note what was removed and ignored.

    A TorchScript tree is named by its attribute paths; a dict that wraps the weights is opened;
    prefixes of training wrappers are removed.

    Args:
        value: The object in the file.
        entry: Dotted path of the entry with the weights, e.g. "model_ema"; None to choose.
        prefix: What the wanted names begin with, e.g. "student."; None to infer it.

    Raises:
        ValueError: There are no weights, several candidates, parts of a distributed model, or
            tensors that are not stored as plain numbers.
    """
    if isinstance(value, ScriptNode):
        tensors = dict(_attribute_paths(value))
        if not tensors:
            raise ValueError(
                "the TorchScript module has no parameters (code only?); expected a CLIP model"
            )
        notes: list[str] = []
    else:
        refuse_parts(value)
        value, notes = _entry(value, entry) if entry is not None else _unwrap(value)
        tensors, ignored = _tensors_of(value)
        if ignored:
            notes.append(f"ignored entries that are no tensors: {_some(ignored)}")
    if prefix is not None:
        tensors, taken = take_prefix(tensors, prefix)
        notes.extend(taken)
    tensors, removed = without_wrappers(tensors)
    refuse_stored_forms(tensors)
    require_one_model(tensors)
    return tensors, (*notes, *removed)


def open_clip_model_name(value: Any) -> str | None:
    """Return the run name that open_clip's training stores, None for a file of other programs."""
    if not isinstance(value, dict) or not {"epoch", "state_dict", "optimizer"} <= set(value):
        return None
    name = value.get("name")
    return name if isinstance(name, str) else None


def _tensors_of(value: Any) -> tuple[dict[str, LazyTensor], list[str]]:
    """The tensors of the entry that was chosen, and the names of everything else in it."""
    if isinstance(value, Opaque):
        raise ValueError(_whole_object("it", value))
    if not isinstance(value, dict):
        raise ValueError(
            f"expected a state_dict, found a {type(value).__name__}; in PyTorch save "
            "the weights by name: torch.save(model.state_dict(), path)"
        )
    for key, item in value.items():
        if isinstance(item, UnreadableTensor):
            raise ValueError(f"{str(key)[:100]} is {item.reason}")
        if isinstance(item, Opaque) and item.count_tensors():
            raise ValueError(_whole_object(f"the entry {str(key)[:100]!r}", item))
    tensors = {key: item for key, item in value.items() if isinstance(item, LazyTensor)}
    ignored = [key for key in value if key not in tensors]
    if any(type(key) is not str for key in tensors):
        raise ValueError("its tensors are numbered, not named; expected a model's state_dict")
    return tensors, [str(key) for key in ignored]


def _entry(value: Any, entry: str) -> tuple[Any, list[str]]:
    """The entry at a dotted path (keys may contain dots), and a note."""
    found = _at(value, str(entry))
    if not isinstance(found, dict) or not _holds_tensors(found):
        there = _entries(value)
        raise ValueError(
            f"entry: expected one with weights, got {entry!r}; entries with weights: "
            f"{_some(there) if there else 'none'}"
        )
    return found, [f"took the weights from the entry {entry!r}, as asked"]


def _at(value: Any, path: str) -> Any:
    if not path:
        return value
    if isinstance(value, dict):
        for key in value:
            if type(key) is str and (path == key or path.startswith(f"{key}.")):
                found = _at(value[key], path[len(key) + 1 :])
                if found is not None:
                    return found
    return None


def _entries(value: Any, path: str = "", depth: int = 3) -> list[str]:
    """The dotted paths of all entries that contain weights."""
    if not isinstance(value, dict) or depth < 0:
        return []
    found = [path] if path and _holds_tensors(value) else []
    for key, item in value.items():
        if type(key) is str:
            found += _entries(item, f"{path}.{key}" if path else key, depth - 1)
    return found


def _holds_tensors(value: dict[Any, Any]) -> bool:
    return any(type(key) is str and isinstance(item, LazyTensor) for key, item in value.items())


def _unwrap(value: Any) -> tuple[Any, list[str]]:
    notes: list[str] = []
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(value, dict):
            return value, notes
        _refuse_objects(value)
        key, why = _wrapper_key(value)
        if key is None:
            return value, notes
        notes.append(f"took the weights from the entry {key!r}{why}")
        others = [str(other) for other in value if other != key]
        if others:
            notes.append(f"ignored the entries beside it: {_some(others)}")
        averages = [other for other in _candidates(value) if _AVERAGE.search(other)]
        if averages and key not in averages:
            notes.append(
                f"averaged weights are there too: {_some(averages)} (or: --entry={averages[0]})"
            )
        value = value[key]
    raise ValueError("its weights are wrapped in too many layers; save the state_dict itself")


def _refuse_objects(value: dict[Any, Any]) -> None:
    """Reject objects of unknown classes that contain tensors: the weights may be in there."""
    for key, item in value.items():
        if isinstance(item, Opaque) and item.count_tensors():
            there = _entries(value)
            hint = f", or choose the entry with the weights: --entry={there[0]}" if there else ""
            raise ValueError(_whole_object(f"the entry {str(key)[:60]!r}", item) + hint)


def _whole_object(what: str, item: Opaque) -> str:
    return (
        f"{what} is an object of the class {item.name[:100]} with {item.count_tensors()} tensors; "
        "no class of a file is ever run (nothing was executed), so save its weights by name: "
        "torch.save(model.state_dict(), path)"
    )


def _candidates(value: dict[Any, Any]) -> list[str]:
    return [
        key
        for key, item in value.items()
        if type(key) is str and isinstance(item, dict) and _holds_weights(item, _MAX_WRAPPERS)
    ]


def _wrapper_key(value: dict[Any, Any]) -> tuple[str | None, str]:
    """The entry that holds the weights and why; None if `value` itself holds them."""
    candidates = _candidates(value)
    for key in WRAPPER_KEYS:
        if key in candidates:
            return key, ""
    loose = [key for key, item in value.items() if _is_weight(item)]
    if loose and (not candidates or any(type(key) is str and "." in key for key in loose)):
        return None, ""
    models = [key for key in candidates if not _AVERAGE.search(key)] or candidates
    if len(models) == 1:
        only = ", the only one with weights; they are averaged"
        return models[0], only if _AVERAGE.search(models[0]) else ""
    clips = [key for key in models if clip_prefixes(map(str, value[key]))]
    if len(clips) == 1:
        return clips[0], ", the only one with a CLIP"
    if any(isinstance(item, LazyTensor) for item in value.values()):
        return None, ""
    raise ValueError(_no_weights(value, models))


def _no_weights(value: dict[Any, Any], candidates: list[str]) -> str:
    entries = _some([str(key) for key in value])
    if candidates:
        return (
            f"several entries hold tensors ({_some(candidates)}); choose one: "
            f"--entry={candidates[0]}"
        )
    if "optimizer_state_dict" in value or "param_groups" in value:
        return (
            f"it holds the state of an optimizer (entries: {entries}), expected a model's weights; "
            "give the model's file, e.g. pytorch_model.bin.2 instead of pytorch_opt.bin.2"
        )
    arrays = _numpy_arrays(value)
    if arrays:
        return (
            f"its {arrays} weights are NumPy arrays in a pickle, expected tensors; save them "
            "with safetensors.numpy.save_file(weights, path)"
        )
    there = _entries(value)
    hint = f"; choose one of the entries with weights: --entry={' or '.join(there[:3])}"
    return (
        f"expected a model's weights, found no tensors under any of {', '.join(WRAPPER_KEYS)} "
        f"(entries: {entries}){hint if there else ''}"
    )


def _numpy_arrays(value: dict[Any, Any]) -> int:
    """How many NumPy arrays there are, by name, here or under one of the usual entries."""
    parts = [value, *(value[key] for key in WRAPPER_KEYS if isinstance(value.get(key), dict))]
    kinds = ("._reconstruct", "._frombuffer")
    return max(
        sum(isinstance(item, Inert) and item.name.endswith(kinds) for item in part.values())
        for part in parts
    )


def _is_weight(item: Any) -> bool:
    # States of random generators are integers.
    return isinstance(item, LazyTensor) and item.dtype.kind not in "biu"


def _holds_weights(item: dict[Any, Any], depth: int) -> bool:
    if any(type(key) is str and _is_weight(part) for key, part in item.items()):
        return True
    if any(isinstance(part, UnreadableTensor) for part in item.values()):
        return True
    return depth > 0 and any(
        isinstance(item.get(key), dict) and _holds_weights(item[key], depth - 1)
        for key in WRAPPER_KEYS
    )


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
