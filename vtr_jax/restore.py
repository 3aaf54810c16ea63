"""Restore a tree of saved arrays, checked leaf by leaf, with errors of one sentence."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from vtr_jax.checksums import DamagedFiles
from vtr_jax.models.parameter_paths import path_name

# Errors of the system for a file that is absent, or is something else.
LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


def _shapes_by_path(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {path_name(path): tuple(leaf.shape) for path, leaf in leaves}


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"missing: {name}" for name in wanted if name not in stored)
    yield from (f"unexpected: {name}" for name in stored if name not in wanted)
    for name in wanted:
        if name in stored and stored[name] != wanted[name]:
            yield f"wrong shape: {name}: expected {wanted[name]}, found {stored[name]}"


def brief(error: Exception) -> str:
    """Return the first line of an error of Orbax or TensorStore, shortened."""
    first, *_ = str(error).splitlines() or [type(error).__name__]
    # The cause is at the end: "...: No space left on device".
    return first if len(first) <= 400 else f"{first[:200]} ... {first[-200:]}"


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    """Return the first cause, without the state that TensorStore appends."""
    cause = _first_cause(error)
    first, *_ = str(cause).splitlines() or [type(cause).__name__]
    for rest in (
        " [tensorstore_spec=",
        " [source locations=",
        " [os_error_code=",
        " See full TensorStore",
    ):
        first = first.partition(rest)[0]
    return first if len(first) <= 240 else f"{first[:100]} ... {first[-140:]}"


def restore_tree(folder: Path, target: Any) -> Any:
    """Return the tree saved in a folder.

    Args:
        folder: what Orbax wrote.
        target: tree of ShapeDtypeStruct with shardings; dtypes are converted to it.

    Raises:
        ValueError: lists every missing, unexpected and misshapen array.
        DamagedFiles: files are damaged.
        OSError, MemoryError: intact files cannot be read.
    """
    import orbax.checkpoint as ocp
    from etils import epath

    handler = ocp.StandardCheckpointHandler()
    path = epath.Path(folder.absolute())
    try:
        stored = handler.metadata(path).tree
    except (OSError, MemoryError, ValueError, KeyError, AttributeError) as error:
        raise _unreadable(folder, error) from error
    differences = list(_differences(_shapes_by_path(stored), _shapes_by_path(target)))
    if differences:
        raise ValueError("\n  ".join([f"{folder}: does not fit its description", *differences]))
    try:
        return handler.restore(path, args=ocp.args.StandardRestore(target))
    except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> Exception:
    """Return the exception to raise: of the machine if it is at fault, else of the files."""
    reason = _reason(error)
    cause = _first_cause(error)
    if isinstance(cause, MemoryError) or "RESOURCE_EXHAUSTED: Out of memory" in str(cause):
        return MemoryError(f"{folder}: out of memory while it was read ({reason})")
    code = _system_error(cause)
    if code is not None and code not in LOST:
        return OSError(code, f"the saved arrays cannot be read ({reason})", str(folder))
    return DamagedFiles(f"{folder}: the saved arrays are damaged or were copied in part ({reason})")


def _system_error(error: BaseException) -> int | None:
    """Return the errno of an error; TensorStore states it in its text only."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"os_error_code='(\d+)'", str(error))
    return int(told[1]) if told else None
