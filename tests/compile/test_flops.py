"""Operations counted from the traced step, against XLA's count of the same step unrolled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from vtr_jax.compile.analysis import abstract_step, step_flops
from vtr_jax.compile.flops import matmul_flops
from vtr_jax.training.command import read_config
from vtr_jax.training.config import clip_of


def xla_flops(function, *arguments) -> float:
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def layers(x, weights, unroll):
    def layer(x, weight):
        return jax.nn.relu(x @ weight), None

    return jax.lax.scan(layer, x, weights, unroll=unroll)[0]


ARGUMENTS = (
    jax.ShapeDtypeStruct((64, 128), jnp.float32),
    jax.ShapeDtypeStruct((6, 128, 128), jnp.float32),
)


@pytest.mark.parametrize("derivative", [False, True])
def test_a_scan_counts_as_xla_counts_its_unrolled_twin(derivative):
    def loss(x, weights, unroll):
        return layers(x, weights, unroll).sum()

    def function(x, weights, unroll):
        if derivative:
            return jax.grad(loss, argnums=(0, 1))(x, weights, unroll)
        return loss(x, weights, unroll)

    counted = matmul_flops(lambda x, w: function(x, w, 1), *ARGUMENTS)
    assert counted == 2 * 64 * 128 * 128 * 6 * (3 if derivative else 1)
    unrolled = xla_flops(lambda x, w: function(x, w, True), *ARGUMENTS)
    # XLA also counts the activations and the sum, about 1 operation in 100 here.
    assert counted == pytest.approx(unrolled, rel=0.03)
    looped = xla_flops(lambda x, w: function(x, w, 1), *ARGUMENTS)
    assert looped < counted / 3  # the trap that this count is for


def test_rematerialised_layers_count_twice_forwards():
    def loss(x, weights, policy):
        body = policy(lambda x, weight: (jnp.tanh(x @ weight), None))
        return jax.lax.scan(body, x, weights)[0].sum()

    def gradient_of(policy):
        return lambda x, w: jax.grad(loss, argnums=(0, 1))(x, w, policy)

    once = matmul_flops(gradient_of(lambda body: body), *ARGUMENTS)
    twice = matmul_flops(gradient_of(jax.checkpoint), *ARGUMENTS)
    assert twice * 3 == once * 4


def test_convolutions_and_branches_count():
    def convolved(x, kernel):
        return jax.lax.conv(x, kernel, (1, 1), "SAME")

    x = jax.ShapeDtypeStruct((2, 3, 8, 8), jnp.float32)
    kernel = jax.ShapeDtypeStruct((5, 3, 1, 1), jnp.float32)
    assert matmul_flops(convolved, x, kernel) == 2 * 2 * 5 * 8 * 8 * 3

    def either(flag, x):
        return jax.lax.cond(flag, lambda x: x @ x, lambda x: x @ x @ x, x)

    square = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    flag = jax.ShapeDtypeStruct((), bool)
    assert matmul_flops(either, flag, square) == 2 * 2 * 4**3


def test_a_loop_of_unknown_length_is_refused():
    def loop(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="how often"):
        matmul_flops(loop, jax.ShapeDtypeStruct((4, 4), jnp.float32))


@pytest.mark.parametrize(
    "variant",
    ["clip4clip:smoke-seqLSTM", "drl:smoke-wti+cdcr", "emcl:smoke", "eercf:smoke"],
)
def test_the_step_of_every_kind_of_recipe_can_be_counted(variant):
    config = read_config(variant)
    vision = clip_of(config).vision
    tokens = config.batch_size * config.data.max_frames * (vision.patches + 1)
    of_blocks = 3 * 2 * 12 * vision.width**2 * vision.layers * tokens
    assert of_blocks < step_flops(abstract_step(config)) < 10 * of_blocks
