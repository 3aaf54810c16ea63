"""The mesh: which sizes it takes, where everything lies, and that it changes no result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from vtr_jax.models.clip import clip_config
from vtr_jax.models.parameter_paths import path_name
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import abstract_retriever
from vtr_jax.models.runtime import Runtime
from vtr_jax.models.transformer import Transformer, clip_block_init, product
from vtr_jax.sharding import (
    AXES,
    batch_sharding,
    check_batch_divides,
    left_whole,
    make_mesh,
    placement,
    put_batch,
    shardings,
)

MESH_SCRIPT = Path(__file__).parent / "training" / "mesh_script.py"


@pytest.fixture(scope="module")
def on_meshes():
    """What mesh_script.py found on eight devices, by head."""
    cache = jax.config.jax_compilation_cache_dir
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    if cache:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
    done = subprocess.run(
        [sys.executable, str(MESH_SCRIPT)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("mesh", ["data", "fsdp", "all"])
@pytest.mark.parametrize("head", ["meanP"])
def test_three_steps_equal_those_of_one_device(on_meshes, head, mesh):
    one, many = on_meshes[head]["one"]["history"], on_meshes[head][mesh]["history"]
    assert len(one) == len(many) == 3
    assert one[2]["loss"] != one[0]["loss"]
    # Sums in another order: float32 rounds at 6e-8, some tens of which add up. Adam divides by the
    # gradient's own size, so that where a gradient is nothing but rounding the step is, too. A
    # fresh temporal stack attends sharply, which enlarges rounding in the gradient norm to 1e-5.
    for ours, theirs, tolerance in zip(many, one, (3e-5, 1e-4, 1e-4), strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=tolerance)
    largest, mean = on_meshes[head][mesh]["params"]
    # Each parameter moved by up to 3e-3.
    assert largest < 3e-4
    assert mean < 1e-6


@pytest.mark.parametrize("mesh", ["data", "fsdp", "all"])
@pytest.mark.parametrize("head", ["meanP"])
def test_parameters_and_moments_lie_where_the_table_says(on_meshes, head, mesh):
    report = on_meshes[head][mesh]
    assert report["misplaced"] == []
    fsdp, tensor = {"data": (1, 1), "fsdp": (4, 1), "all": (2, 2)}[mesh]
    seen = set()
    for path, (whole, part) in report["parts"].items():
        split = (fsdp, 1) if path.endswith("embedding") else (1, fsdp, tensor)
        assert [a // b for a, b in zip(whole, split, strict=True)] == part, path
        seen |= {path.split("/")[0]} | ({"mu", "nu"} & set(path.split("/")))
    assert seen == {"params", "ema", "opt_state", "mu", "nu"}
    towers = 3 if head == "seqTransf" else 2
    assert sum("qkv" in path for path in report["parts"]) == 4 * towers


@pytest.mark.parametrize("head", ["meanP"])
def test_saved_on_one_mesh_restored_bit_by_bit_on_others(on_meshes, head):
    assert on_meshes[head]["restored"] == {"fsdp": True, "one": True}


def test_batches_and_features_on_a_mesh(on_meshes):
    whole, part = on_meshes["meanP"]["batch"]
    assert part == [whole[0] // 4, *whole[1:]]
    largest, _ = on_meshes["meanP"]["features"]
    assert largest < 2e-5


def eight_devices(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)


@pytest.mark.parametrize(
    ("sizes", "named", "near"),
    [
        ({"data": 3}, "data=3, fsdp=1, tensor=1", (8, 1, 1)),
        ({"fsdp": 3}, "data=-1, fsdp=3, tensor=1", (2, 4, 1)),
        ({"data": 2, "fsdp": 2}, "data=2, fsdp=2, tensor=1", (4, 2, 1)),
        ({"data": 16}, "data=16, fsdp=1, tensor=1", (8, 1, 1)),
        ({"data": 5, "tensor": 2}, "data=5, fsdp=1, tensor=2", (4, 1, 2)),
        ({"tensor": 16}, "data=-1, fsdp=1, tensor=16", (1, 1, 8)),
    ],
)
def test_sizes_that_do_not_use_every_device_name_the_nearest_that_do(
    monkeypatch, sizes, named, near
):
    eight_devices(monkeypatch)
    options = " ".join(
        f"--config.mesh.{axis}={size}" for axis, size in zip(AXES, near, strict=True)
    )
    message = f"mesh: {named} does not use 8 devices exactly; nearest valid: {options}$"
    with pytest.raises(ValueError, match=message):
        make_mesh(sizes)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"fsdp": -1}, "must be positive, with -1 at most once"),
        (
            {"data": 0, "fsdp": 8},
            "must be positive, with -1 at most once; got data=0, fsdp=8, tensor=1; nearest valid: "
            "--config.mesh.data=1 --config.mesh.fsdp=8 --config.mesh.tensor=1",
        ),
        ({"tensor": -2}, "must be positive"),
        ({"model": 2}, r"unknown axes \['model'\], expected data, fsdp, tensor"),
    ],
)
def test_sizes_that_make_no_mesh_are_refused(monkeypatch, sizes, message):
    eight_devices(monkeypatch)
    with pytest.raises(ValueError, match=message):
        make_mesh(sizes)


def test_one_device_is_a_mesh_of_one():
    mesh = make_mesh()
    assert dict(mesh.shape) == dict.fromkeys(AXES, 1)
    assert dict(make_mesh({"data": 1, "tensor": -1}).shape) == dict(mesh.shape)


@pytest.mark.parametrize(
    ("batch_size", "near"), [(30, (28, 32)), (3, (4,)), (33, (32, 36)), (1, (4,))]
)
def test_batches_that_do_not_divide_name_the_nearest_that_do(batch_size, near):
    mesh = AbstractMesh((2, 2, 2), AXES)
    valid = " or ".join(f"--config.batch_size={size}" for size in near)
    with pytest.raises(
        ValueError, match=f"{batch_size} is not divisible by .* = 4; nearest valid: {valid}$"
    ):
        check_batch_divides(batch_size, mesh)
    check_batch_divides(32, mesh)


def test_what_a_batch_is_cut_into_must_divide_too():
    mesh = AbstractMesh((2, 2, 2), AXES)
    check_batch_divides(24, mesh, gradient_accumulation_steps=3)
    with pytest.raises(
        ValueError,
        match=r"^batch_size / gradient_accumulation_steps 6 is not divisible by .* = 4; "
        r"nearest valid: --config.batch_size=16 or --config.batch_size=32$",
    ):
        check_batch_divides(24, mesh, gradient_accumulation_steps=4)
    check_batch_divides(24, mesh, micro_batch_size=12)
    valid = r"--config.micro_batch_size=4 or --config.micro_batch_size=8"
    with pytest.raises(
        ValueError, match=rf"^micro_batch_size 6 is not divisible by .* = 4; nearest valid: {valid}"
    ):
        check_batch_divides(24, mesh, micro_batch_size=6)
    with pytest.raises(ValueError, match=r"nearest valid: --config.micro_batch_size=4$"):
        check_batch_divides(24, mesh, micro_batch_size=3)


def config_of(width=64, vocab_size=50):
    clip = clip_config(
        embed_dim=64,
        image_resolution=32,
        patch_size=16,
        vision_width=width,
        vision_layers=2,
        text_width=64,
        text_layers=2,
        vocab_size=vocab_size,
    )
    return recipe_named("clip4clip").config(clip, {"sim_header": "seqTransf"})


def test_every_large_matrix_is_split_and_layers_never_are():
    mesh = AbstractMesh((1, 4, 2), AXES)
    params = abstract_retriever(config_of(vocab_size=48)).params
    placed = shardings(params, mesh)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        spec = placed
        for part in path:
            spec = spec[part.key]
        split = tuple(spec.spec)
        if "blocks" in path_name(path):
            assert split[:1] in ((), (None,)), path
            if leaf.ndim == 3:
                assert set(split) == {None, "fsdp", "tensor"}, path
        if path_name(path).endswith(("projection", "token_embedding/embedding")):
            assert split == ("fsdp", None), path


def test_an_axis_that_does_not_divide_stays_whole():
    mesh = AbstractMesh((1, 4, 2), AXES)
    embedding = placement("text/token_embedding/embedding", (50, 64), mesh)
    assert embedding.is_fully_replicated
    path = "visual/transformer/blocks/attn/qkv/kernel"
    assert placement(path, (2, 6, 8), mesh).spec == PartitionSpec(None, None, "tensor")
    # A count beside the moments has no axes at all.
    assert placement(f"count/{path}", (), mesh).spec == PartitionSpec()


def test_parameters_that_a_mesh_does_not_divide_are_told_with_their_size():
    params = abstract_retriever(config_of(vocab_size=48)).params
    assert left_whole(params, AbstractMesh((1, 4, 2), AXES)) == []
    (sentence,) = left_whole(params, AbstractMesh((2, 3, 1), AXES))
    assert sentence.startswith("mesh: fsdp=3 does not divide 15 of the 16 parameters")
    assert "such as aggregation/transformer/blocks/mlp/fc/kernel [4, 64, 256]: every" in sentence
    (sentence,) = left_whole(params, AbstractMesh((2, 1, 5), AXES))
    assert "tensor=5 does not divide" in sentence


def test_what_the_other_axis_splits_is_not_counted_as_whole():
    params = {
        "blocks": {"mlp": {"fc": {"kernel": jax.ShapeDtypeStruct((2, 500, 2000), "float32")}}}
    }
    (alone,) = left_whole(params, AbstractMesh((1, 3, 1), AXES))
    (beside,) = left_whole(params, AbstractMesh((1, 3, 2), AXES))
    assert "every device holds 8 MB" in alone
    assert "every device holds 4 MB" in beside


def test_moments_lie_where_their_parameter_lies():
    mesh = AbstractMesh((1, 2, 2), AXES)
    path = "text/transformer/blocks/mlp/fc/kernel"
    here = placement(path, (2, 64, 256), mesh)
    assert placement(f"opt_state/0/inner_states/mu/{path}", (2, 64, 256), mesh) == here
    assert placement("another_token_embedding/embedding", (64, 64), mesh).is_fully_replicated


def constraints(function, *arguments):
    """The sharding and dtype of every array that a function holds to one, in its order."""
    found = []

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "sharding_constraint":
                found.append((equation.params["sharding"].spec, equation.outvars[0].aval.dtype))
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    visit(inner)

    visit(jax.make_jaxpr(function)(*arguments).jaxpr)
    return found


def test_a_product_gathers_its_matrix_and_its_gradient_goes_back_to_where_it_was():
    layer = nnx.Linear(8, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = jnp.ones((8, 8), jnp.bfloat16)

    def summed(layer, x):
        return product(layer, "visual/transformer/blocks/mlp/proj", x).sum()

    gradients = jax.grad(summed, argnums=(0, 1))

    split, whole = PartitionSpec("tensor", "fsdp"), PartitionSpec("tensor", None)
    with jax.sharding.use_abstract_mesh(AbstractMesh((1, 4, 2), AXES)):
        forward = constraints(summed, layer, x)
        both = constraints(gradients, layer, x)
    assert forward == [(split, jnp.bfloat16), (whole, jnp.bfloat16)]
    # Gathered twice, not kept; then the gradient, in the other order.
    assert both == [*forward, *forward, *reversed(forward)]
    for sizes in ((8, 1, 1), (4, 1, 2)):
        with jax.sharding.use_abstract_mesh(AbstractMesh(sizes, AXES)):
            assert constraints(gradients, layer, x) == []
    assert constraints(gradients, layer, x) == []


def test_every_matrix_of_a_block_is_gathered():
    runtime = Runtime()
    stack = Transformer(8, 2, 2, init=clip_block_init(8, 2), runtime=runtime, rngs=nnx.Rngs(0))
    with jax.sharding.use_abstract_mesh(AbstractMesh((1, 4, 1), AXES)):
        found = constraints(lambda stack, x: stack(x), stack, jnp.ones((4, 3, 8)))
    matrices = [spec for spec, _ in found if len(spec) == 2]
    split = sorted(str(spec) for spec in matrices if "fsdp" in spec)
    into_rows = str(PartitionSpec("fsdp", "tensor"))
    into_columns = str(PartitionSpec("tensor", "fsdp"))
    assert split == sorted([into_rows] * 2 + [into_columns] * 2)
    assert len(matrices) == 8


def test_batches_are_split_over_data_and_fsdp():
    mesh = make_mesh()
    batch = put_batch({"token_ids": np.arange(6, dtype=np.int32).reshape(3, 2)}, mesh)
    assert batch["token_ids"].sharding == batch_sharding(mesh)
    assert batch_sharding(mesh).spec == PartitionSpec(("data", "fsdp"))
    np.testing.assert_array_equal(batch["token_ids"], [[0, 1], [2, 3], [4, 5]])
