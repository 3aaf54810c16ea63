"""Reading parameters from a state dict, and writing them back, by the rows of a name table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vtr_jax.convert.names.row import NameTable, Row
from vtr_jax.finite import nonfinite_message
from vtr_jax.models.module_spec import Params


def leaf_at(params: Params, path: str) -> Any | None:
    """The leaf at a slash-separated path of a nested dict, or None."""
    node: Any = params
    for part in path.split("/"):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node


def set_leaf(params: Params, path: str, value: Any) -> None:
    """Put a leaf at a slash-separated path of a nested dict, making the way to it."""
    *parents, last = path.split("/")
    for part in parents:
        params = params.setdefault(part, {})
    params[last] = value


def original_keys(row: Row, leaf: Any) -> list[str]:
    """The keys a row stands for, given our leaf (whose first axis is layers if stacked)."""
    return [row.original.format(i) for i in range(leaf.shape[0])] if row.stacked else [row.original]


def original_shape(row: Row, leaf: Any) -> tuple[int, ...]:
    """The shape the original stores one such parameter in."""
    shape = leaf.shape[1:] if row.stacked else leaf.shape
    if not row.axes:
        return tuple(shape)
    return tuple(shape[ours] for ours in np.argsort(row.axes))


def applicable_rows(table: NameTable, params: Params) -> Iterator[tuple[Row, Any]]:
    """The rows whose parameter these (possibly abstract) params have, with the leaf."""
    for row in table.rows:
        leaf = leaf_at(params, row.ours)
        if leaf is not None:
            yield row, leaf


def _dtype(tensor: Any) -> np.dtype:
    return tensor.dtype if hasattr(tensor, "read") else np.asarray(tensor).dtype


def _read(tensor: Any, axes: tuple[int, ...]) -> np.ndarray:
    array = tensor.read() if hasattr(tensor, "read") else np.asarray(tensor)
    return array.transpose(axes) if axes else array


def _read_row(
    row: Row,
    leaf: Any,
    tensors: Mapping[str, Any],
    dtype: np.dtype | None,
    nonfinite: dict[str, int],
) -> np.ndarray:
    """One of our arrays, filled layer by layer so that it is in memory once.

    nonfinite: receives how many values of a tensor are NaN or infinite, by its name.
    """
    keys = original_keys(row, leaf)
    if dtype is None:
        stored = {_dtype(tensors[key]) for key in keys}
        dtype = stored.pop() if len(stored) == 1 else np.dtype(np.float32)
    filled = np.empty(leaf.shape, dtype)
    layers = list(filled) if row.stacked else [filled]
    for layer, key in zip(layers, keys, strict=True):
        layer[...] = _read(tensors[key], row.axes)
        if not np.isfinite(layer).all():
            nonfinite[key] = int(layer.size - np.isfinite(layer).sum())
    return filled


def _message(what: str, problems: Mapping[str, list[str]]) -> str:
    """Every name under its problem; how many there are of each is the last line."""
    lines = [f"{what}: its names do not fit"]
    for title, names in problems.items():
        lines += [f"  {title}:", *(f"    {name}" for name in names)]
    counts = ", ".join(f"{len(names)} {title}" for title, names in problems.items())
    return "\n".join([*lines, f"nothing was loaded from {what}: {counts}"])


def expected_shapes(table: NameTable, abstract: Params) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter that a table and abstract params ask for, by original key."""
    return {
        key: original_shape(row, leaf)
        for row, leaf in applicable_rows(table, abstract)
        for key in original_keys(row, leaf)
    }


def check_names(tensors: Mapping[str, Any], table: NameTable, abstract: Params, what: str) -> None:
    """Compare a state dict with what a table and abstract params ask for.

    tensors: anything with a shape by original key. Raises one ValueError that lists every
    missing, unexpected, mis-shaped and mistyped name.
    """
    expected = expected_shapes(table, abstract)
    problems = {
        "missing": [f"{key} {shape}" for key, shape in expected.items() if key not in tensors],
        "unexpected": [
            f"{key} {tuple(np.shape(tensor))}"
            for key, tensor in tensors.items()
            if key not in expected and key not in table.ignored
        ],
        "wrong shape": [
            f"{key}: expected {shape}, found {tuple(np.shape(tensors[key]))}"
            for key, shape in expected.items()
            if key in tensors and tuple(np.shape(tensors[key])) != shape
        ],
        # Whole numbers are weights that were quantised; their scale would be missing.
        "wrong type": [
            f"{key}: expected floating point, found {_dtype(tensors[key])}"
            for key in expected
            if key in tensors and _dtype(tensors[key]).kind in "biuc"
        ],
    }
    problems = {title: names for title, names in problems.items() if names}
    if problems:
        raise ValueError(_message(what, problems))


def params_from_original(
    tensors: Mapping[str, Any],
    table: NameTable,
    abstract: Params,
    *,
    dtype: np.dtype | None = np.dtype(np.float32),  # noqa: B008
    what: str = "state dict",
    allow_nonfinite: bool = False,
) -> Params:
    """Nested params from a state dict {original key: array or lazy tensor}.

    abstract: the params to fill, as shapes. dtype None keeps the file's (float32 for a stack
    of several). Tensors are read one at a time. Raises ValueError as check_names, and one that
    lists all tensors with NaN or infinite values unless allow_nonfinite.
    """
    check_names(tensors, table, abstract, what)
    params: Params = {}
    nonfinite: dict[str, int] = {}
    for row, leaf in applicable_rows(table, abstract):
        set_leaf(params, row.ours, _read_row(row, leaf, tensors, dtype, nonfinite))
    if nonfinite and not allow_nonfinite:
        raise ValueError(nonfinite_message(what, nonfinite))
    return params


def original_from_params(params: Params, table: NameTable) -> dict[str, np.ndarray]:
    """State dict by original keys, the inverse of params_from_original; float32 arrays.

    Raises ValueError if a parameter has no row.
    """
    state_dict: dict[str, np.ndarray] = {}
    covered = set()
    for row, leaf in applicable_rows(table, params):
        covered.add(row.ours)
        array = np.asarray(leaf)
        layers = list(array) if row.stacked else [array]
        back = np.argsort(row.axes) if row.axes else None
        for key, layer in zip(original_keys(row, leaf), layers, strict=True):
            state_dict[key] = np.ascontiguousarray(layer.transpose(back)) if row.axes else layer
    uncovered = [path for path, _ in _paths(params) if path not in covered]
    if uncovered:
        raise ValueError(f"no row in the name table for: {', '.join(uncovered)}")
    return state_dict


def _paths(params: Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value
