"""The mesh, and the one table that places every parameter on it.

Moments, averages and other copies of parameters lie where the parameter lies: rules are matched
on the end of a path, so `opt_state/mu/visual/...` finds the rule of `visual/...`.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vtr_jax.cluster import to_host
from vtr_jax.models.parameter_paths import path_name

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# First match wins. What is named are the last axes of an array: layers that are stacked, and the
# taps of a patch embedding, are never split.
PLACEMENT: tuple[tuple[str, PartitionSpec], ...] = (
    (r"blocks/attn/qkv/kernel", PartitionSpec("fsdp", "tensor")),
    (r"blocks/attn/qkv/bias", PartitionSpec("tensor")),
    (r"blocks/attn/out/kernel", PartitionSpec("tensor", "fsdp")),
    (r"blocks/mlp/fc/kernel", PartitionSpec("fsdp", "tensor")),
    (r"blocks/mlp/fc/bias", PartitionSpec("tensor")),
    (r"blocks/mlp/proj/kernel", PartitionSpec("tensor", "fsdp")),
    (r"token_embedding/embedding", PartitionSpec("fsdp", None)),
    (r"(visual|text)/projection", PartitionSpec("fsdp", None)),
    (r"patch_embedding(_3d)?/kernel", PartitionSpec("fsdp")),
    (r"(input|hidden)_kernel", PartitionSpec("fsdp", "tensor")),  # LSTM
    (r"pooler/kernel", PartitionSpec("fsdp", None)),  # cross-encoder
    (r"(text|video)_weight/linear_0/kernel", PartitionSpec("fsdp", None)),  # token weights
    (r"gating/sentence_matrix", PartitionSpec("fsdp", None)),
    (r".*", PartitionSpec()),
)


def make_mesh(
    sizes: Mapping[str, int] | None = None, among: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh over all devices with the axes data, fsdp, tensor.

    sizes: axis name to size, -1 (at most once) for what is left; data defaults to -1, the others
    to 1. among: the devices, default those that there are; those of a described pod will do.
    Raises ValueError with the numbers if the sizes do not use every device.
    """
    wanted = {"data": -1, "fsdp": 1, "tensor": 1, **(sizes or {})}
    unknown = [name for name in wanted if name not in AXES]
    if unknown:
        raise ValueError(f"mesh: unknown axes {unknown}, expected {', '.join(AXES)}")
    devices = jax.device_count() if among is None else len(among)
    fixed = 1
    for size in wanted.values():
        fixed *= size if size > 0 else 1
    open_axes = [name for name, size in wanted.items() if size == -1]
    if len(open_axes) > 1 or any(size < 1 and size != -1 for size in wanted.values()):
        text = ", ".join(f"{name}={size}" for name, size in wanted.items())
        near = _options_nearest({n: s if s > 0 else -1 for n, s in wanted.items()}, devices)
        raise ValueError(
            f"mesh: sizes must be positive, with -1 at most once; got {text}; nearest valid: {near}"
        )
    if open_axes and devices % fixed == 0:
        wanted[open_axes[0]] = devices // fixed
        fixed = devices
    if fixed != devices:
        text = ", ".join(f"{name}={size}" for name, size in wanted.items())
        near = _options_nearest(wanted, devices)
        raise ValueError(
            f"mesh: {text} does not use {devices} devices exactly; nearest valid: {near}"
        )
    shape = tuple(wanted[name] for name in AXES)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=among)


def _options_nearest(wanted: Mapping[str, int], devices: int) -> str:
    nearest = _nearest(wanted, devices)
    return " ".join(f"--config.mesh.{name}={size}" for name, size in nearest.items())


def _nearest(wanted: Mapping[str, int], devices: int) -> dict[str, int]:
    """The sizes that use every device and are the least factor away from those wanted."""
    divisors = [size for size in range(1, devices + 1) if devices % size == 0]
    valid: list[tuple[int, ...]] = [
        sizes for sizes in itertools.product(divisors, repeat=3) if math.prod(sizes) == devices
    ]

    def distance(sizes: tuple[int, ...]) -> tuple[float, ...]:
        asked = [wanted[name] for name in AXES]
        away = [
            abs(math.log(size / ask)) for size, ask in zip(sizes, asked, strict=True) if ask != -1
        ]
        # Of equals, the one that leaves the most to data, then to fsdp.
        return (round(sum(away), 6), -sizes[0], -sizes[1])

    nearest = min(valid, key=distance)
    return dict(zip(AXES, nearest, strict=True))


def local_mesh() -> Mesh:
    """A mesh over one device of this process."""
    devices = np.array(jax.local_devices()[:1]).reshape(1, 1, 1)
    return Mesh(devices, AXES)


def _rule(path: str) -> PartitionSpec:
    return next(spec for rule, spec in PLACEMENT if re.search(rf"(^|/)(?:{rule})$", path))


def placement(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Where the array at a slash-separated path lies: the first rule that fits its end.

    An axis that its mesh axis does not divide is left whole.
    """
    spec = _rule(path)
    if len(spec) > len(shape):
        return NamedSharding(mesh, PartitionSpec())
    whole = [None] * (len(shape) - len(spec))
    fitting = [
        axis if axis is not None and size % mesh.shape[axis] == 0 else None
        for axis, size in zip([*whole, *spec], shape, strict=True)
    ]
    return NamedSharding(mesh, PartitionSpec(*fitting))


def left_whole(params: Any, mesh: Mesh | AbstractMesh) -> list[str]:
    """One sentence for each mesh axis whose size does not divide all parameters it should split.

    params: a (possibly abstract) tree. Those named lie whole on every device of that axis.
    """
    leaves = [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
    sentences = []
    for axis in ("fsdp", "tensor"):
        if mesh.shape[axis] == 1:
            continue
        wanted = [(path, leaf) for path, leaf in leaves if axis in _rule(path)]
        placed = [(path, leaf, placement(path, leaf.shape, mesh)) for path, leaf in wanted]
        kept = [each for each in placed if axis not in each[2].spec]
        if not kept:
            continue
        path, leaf, _ = max(kept, key=lambda each: each[1].size)
        size = sum(
            math.prod(at.shard_shape(leaf.shape)) * leaf.dtype.itemsize for _, leaf, at in kept
        )
        sentences.append(
            f"mesh: {axis}={mesh.shape[axis]} does not divide {len(kept)} of the {len(wanted)} "
            f"parameters that it should split, such as {path} {list(leaf.shape)}: every device "
            f"holds {size / 1e6:.0f} MB of these, and as much again for each moment; a power of "
            "two divides most"
        )
    return sentences


def shardings(tree: Any, mesh: Mesh) -> Any:
    """The placement of every leaf of a (possibly abstract) tree, as a tree of NamedSharding."""

    def of_leaf(path: Any, leaf: Any) -> NamedSharding:
        name = path_name(path)
        return placement(name, tuple(leaf.shape), mesh)

    return jax.tree_util.tree_map_with_path(of_leaf, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Where batches lie: their first axis split over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def on_mesh(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """A function to be jitted, in which `rows_split` knows the mesh."""

    def call(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return call


def rows_split(array: jax.Array) -> jax.Array:
    """An array inside a jitted function, its rows held to be split as a batch is.

    Without this XLA may take over the layout of a parameter: a device then computes a part of
    every row. Nothing happens in functions that are not `on_mesh`, or where the rows do not
    divide.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names != AXES or mesh.size == 1:
        return array
    if array.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return array
    others = [PartitionSpec.UNCONSTRAINED] * (array.ndim - 1)
    return jax.lax.with_sharding_constraint(array, PartitionSpec(BATCH_AXES, *others))


def gathered(module: Any, name: str, dtype: np.dtype) -> Any:
    """A module inside a jitted function whose matrices every device of the axis fsdp holds whole.

    name: of the module, as in PLACEMENT. dtype: in which it computes, and its matrices travel.
    Gradients come back to where the parameters lie. Without this XLA may leave a matrix where it
    is and multiply by a part of it at a time, writing and reading the far larger sum of products
    once a part. Nothing happens in functions that are not `on_mesh`, or where fsdp is 1.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names != AXES or mesh.shape["fsdp"] == 1:
        return module

    def of_leaf(path: Any, leaf: Any) -> Any:
        inside = path_name(path)
        parameter = f"{name}/{inside}".removesuffix("/value")  # an nnx.Param is a node of its own
        split = placement(parameter, leaf.shape, mesh).spec
        if "fsdp" not in split:
            return leaf
        whole = PartitionSpec(*(None if axis == "fsdp" else axis for axis in split))
        # In the backward pass gradients are first summed whole, and a part of them is kept. Asked
        # for the part alone, XLA may compute it from all rows once for each part.
        part = jax.lax.with_sharding_constraint(leaf.astype(dtype), split)
        return jax.lax.with_sharding_constraint(part, whole)

    return jax.tree_util.tree_map_with_path(of_leaf, module)


def check_batch_divides(
    batch_size: int,
    mesh: Mesh | AbstractMesh,
    gradient_accumulation_steps: int = 1,
    micro_batch_size: int = 0,
) -> None:
    """Raise ValueError if a global batch, or what it is cut into, cannot be split over the mesh.

    gradient_accumulation_steps, micro_batch_size: the settings of these names, divisors of
    batch_size. The message names the setting that is wrong and its nearest valid sizes.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    smallest = parts * gradient_accumulation_steps
    if batch_size % smallest:
        cut = " / gradient_accumulation_steps" if gradient_accumulation_steps > 1 else ""
        found = f"batch_size{cut} {batch_size // gradient_accumulation_steps}"
        valid = range(smallest, batch_size + smallest + 1, smallest)
        near = nearest_valid("batch_size", batch_size, valid)
        raise ValueError(f"{found} is not divisible by data x fsdp = {parts}; {near}")
    if micro_batch_size % parts:
        valid = range(parts, batch_size + 1, parts)
        divisors = [size for size in valid if batch_size % size == 0]
        near = nearest_valid("micro_batch_size", micro_batch_size, divisors)
        raise ValueError(
            f"micro_batch_size {micro_batch_size} is not divisible by data x fsdp = {parts}; {near}"
        )


def nearest_valid(setting: str, wanted: int, valid: Iterable[int]) -> str:
    """How an error names the values of a setting next below and above one that is not valid.

    valid: in rising order. As "nearest valid: --config.SETTING=4 or --config.SETTING=8".
    """
    values = list(valid)
    at = bisect.bisect(values, wanted)
    near = values[max(at - 1, 0) : at + 1]
    return "nearest valid: " + " or ".join(f"--config.{setting}={value}" for value in near)


def process_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a global batch that this process's devices hold, int [B'], in rising order.

    Processes that hold parts of the same parameters (tensor) hold the same rows.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows in places.values()]))


def put_tree(tree: Any, placed: Any) -> Any:
    """A tree's arrays, whole in every process, laid out as a tree of shardings says."""

    def put(array: Any, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_addressable:
            return jax.device_put(array, sharding)
        whole = to_host(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    return jax.tree.map(put, tree, placed)


def put_beside(tree: Any, params: Any) -> Any:
    """A tree's arrays, whole in every process, whole on every device that holds parameters."""
    beside = getattr(jax.tree.leaves(params)[0], "sharding", None)
    if not isinstance(beside, NamedSharding):
        return jax.tree.map(jax.numpy.asarray, tree)
    whole = NamedSharding(beside.mesh, PartitionSpec())
    return put_tree(tree, jax.tree.map(lambda _: whole, tree))


def put_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """A batch as global arrays, split over data and fsdp, from the rows of process_rows."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
