"""Blocks and stacks: what each option means, and what may not change a number."""

from __future__ import annotations

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.runtime import Runtime
from vtr_jax.models.transformer import (
    Transformer,
    bert_block_init,
    exact_gelu,
    fused_attention,
    key_mask_bias,
    layer_norm,
    quick_gelu,
)


@dataclasses.dataclass(frozen=True)
class StackConfig:
    width: int = 16
    layers: int = 3
    heads: int = 2
    activation: str = "quick_gelu"
    eps: float = 1e-5


def stack(config, runtime, *, rngs):
    return Transformer(
        config.width,
        config.layers,
        config.heads,
        activation=config.activation,
        eps=config.eps,
        init=bert_block_init(),
        runtime=runtime,
        rngs=rngs,
    )


def spec_of(runtime=None, **changes) -> ModuleSpec:
    return ModuleSpec(stack, StackConfig(**changes), runtime or Runtime())


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        spread = leaf.shape[-2] ** -0.5 if leaf.ndim == 3 else 0.1
        is_scale = path[-1].key == "scale"
        return np.float32(spread * rng.standard_normal(leaf.shape) + is_scale)

    return jax.tree_util.tree_map_with_path(draw, spec_of().abstract())


@pytest.fixture(scope="module")
def x_blw():
    return jax.random.normal(jax.random.key(1), (2, 5, 16))


def run(spec, params, *args, **options):
    return np.asarray(jax.jit(lambda p, *a: spec.bind(p)(*a, **options))(params, *args))


def test_a_stack_has_one_leading_layer_axis(params):
    shapes = jax.tree.map(lambda leaf: leaf.shape, params["blocks"])
    assert shapes["attn"]["qkv"] == {"kernel": (3, 16, 48), "bias": (3, 48)}
    assert shapes["mlp"]["fc"]["kernel"] == (3, 16, 64)
    assert shapes["ln_1"]["scale"] == (3, 16)


def test_last_of_layer_outputs_is_the_call(params, x_blw):
    spec = spec_of()
    layers = jax.jit(lambda p, x: spec.bind(p).layer_outputs(x))(params, x_blw)
    assert layers.shape == (3, 2, 5, 16)
    np.testing.assert_allclose(layers[-1], run(spec, params, x_blw), atol=1e-6)
    assert not np.allclose(layers[0], layers[1])


def test_remat_changes_neither_outputs_nor_gradients(params, x_blw):
    def value_and_gradient(spec):
        return jax.jit(jax.value_and_grad(lambda p: jnp.sum(spec.bind(p)(x_blw) ** 2)))(params)

    plain = value_and_gradient(spec_of())
    again = value_and_gradient(spec_of(Runtime(remat=True)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), plain, again)


def test_remat_is_in_the_program(params, x_blw):
    def recomputed(runtime):
        program = jax.make_jaxpr(lambda p: spec_of(runtime).bind(p)(x_blw))(params)
        return str(program).count("prevent_cse=False")

    # Norms and activations are recomputed in any case.
    assert recomputed(Runtime(remat=True)) == recomputed(Runtime()) + 1


@pytest.mark.parametrize("attention", ["xla", "cudnn"])
@pytest.mark.parametrize("length", [4, 5])
def test_attention_without_a_bias_is_computed_as_the_runtime_says(monkeypatch, attention, length):
    asked, compute = set(), jax.nn.dot_product_attention

    def recorded(q, k, v, *, implementation, bias=None, **options):
        asked.add((implementation, bias is None, options["is_causal"], q.shape[1]))
        return compute(q, k, v, bias=bias, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", recorded)
    module, bias = (
        spec_of(Runtime("bfloat16", attention=attention)),
        key_mask_bias(jnp.ones((2, 1))),
    )
    x = jnp.zeros((2, length, 16), jnp.bfloat16)
    for options in ({}, {"is_causal": True}, {"bias": bias}):
        jax.eval_shape(lambda p, o=options: module.bind(p)(x, **o), module.abstract())
    even = length if attention == "xla" else 2 * math.ceil(length / 2)  # what cuDNN takes
    assert asked == {
        (attention, True, False, even),
        (attention, True, True, even),
        ("xla", False, False, length),
    }


@pytest.mark.parametrize("length", [4, 5])
@pytest.mark.parametrize("is_causal", [False, True])
def test_a_position_more_changes_no_number(length, is_causal):
    qkv = jax.random.normal(jax.random.key(2), (3, 2, length, 2, 8))

    def value_and_gradients(attend):
        def loss(qkv):
            return jnp.sum(jnp.sin(attend(*qkv)))

        return jax.jit(jax.value_and_grad(loss))(qkv)

    plain = value_and_gradients(
        lambda *parts: jax.nn.dot_product_attention(*parts, is_causal=is_causal)
    )
    ours = value_and_gradients(lambda *parts: fused_attention(*parts, is_causal, "xla"))
    # Only the order of sums may differ.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, ours)


@pytest.mark.parametrize("length", [4, 5])
def test_cudnn_has_a_kernel_for_it_forwards_and_backwards(monkeypatch, length):
    # The program for CUDA, made without a GPU: JAX's own checks of shapes and dtypes run.
    monkeypatch.setattr(
        "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000
    )
    module = spec_of(Runtime("bfloat16", remat=True, attention="cudnn"))
    x = jax.ShapeDtypeStruct((2, length, 16), jnp.bfloat16)
    gradient = jax.jit(jax.grad(lambda p, x: jnp.sum(module.bind(p)(x).astype(jnp.float32))))
    lowered = gradient.trace(module.abstract(), x).lower(lowering_platforms=("cuda",))
    kernels = set(re.findall(r"@(__cudnn\$\w+)", lowered.as_text()))
    assert kernels == {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"}


def test_xla_attention_is_what_jax_does_by_default(monkeypatch, params, x_blw):
    ours = run(spec_of(), params, x_blw)
    compute = jax.nn.dot_product_attention

    def by_default(*arrays, implementation, **options):
        assert implementation == "xla"
        return compute(*arrays, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_default)
    np.testing.assert_array_equal(ours, run(spec_of(), params, x_blw))


def test_heads_that_cudnn_does_not_take_are_refused():
    for changes, head in (({"heads": 4}, 4), ({"width": 288}, 144)):
        with pytest.raises(ValueError, match=f"attention: cudnn takes heads .*, got {head} "):
            spec_of(Runtime("bfloat16", attention="cudnn"), **changes).abstract()


def test_attention_that_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="attention: expected one of xla, cudnn; got 'flash'"):
        Runtime(attention="flash")
    with pytest.raises(ValueError, match="attention: cudnn computes in bfloat16 or float16, and"):
        Runtime("float32", attention="cudnn")
    for dtype in ("bfloat16", "float16"):
        assert Runtime(dtype, attention="cudnn").attention == "cudnn"


def test_causal_outputs_see_nothing_later(params, x_blw):
    spec = spec_of()
    before = run(spec, params, x_blw, is_causal=True)
    after = run(spec, params, x_blw.at[:, 3:].set(7.0), is_causal=True)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert not np.allclose(before[:, 3:], after[:, 3:])


def test_masked_keys_are_not_seen(params, x_blw):
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    spec, bias = spec_of(), key_mask_bias(jnp.asarray(mask))
    before = run(spec, params, x_blw, bias)
    after = run(spec, params, x_blw.at[:, 3:].multiply(-1.0), bias)
    np.testing.assert_array_equal(before[0, :3], after[0, :3])
    assert not np.allclose(before[1, :3], after[1, :3])


def test_key_mask_bias_is_finite_and_even_where_all_is_masked():
    bias = np.asarray(key_mask_bias(jnp.array([[1, 0], [0, 0]])))
    assert bias.shape == (2, 1, 1, 2)
    np.testing.assert_array_equal(bias[:, 0, 0], [[0, -1e6], [-1e6, -1e6]])


def test_activations():
    x = np.array([-2.0, -0.5, 0.0, 0.5, 2.0], np.float32)
    quick = [v / (1 + math.exp(-1.702 * v)) for v in x]
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(quick_gelu(x), quick, atol=1e-6)
    np.testing.assert_allclose(exact_gelu(x), exact, atol=1e-6)


def test_activation_reaches_the_blocks(params, x_blw):
    quick = run(spec_of(), params, x_blw)
    exact = run(spec_of(activation="gelu"), params, x_blw)
    assert 1e-4 < np.abs(quick - exact).max() < 1


def test_norm_epsilon_reaches_the_blocks(params, x_blw):
    small = 1e-3 * x_blw
    usual, tiny = run(spec_of(), params, small), run(spec_of(eps=1e-12), params, small)
    assert np.abs(usual - tiny).max() > 0.1


def test_layer_norm_keeps_its_statistics_in_float32():
    """In bfloat16, whose numbers have 8 bits, the mean of 300 and 301 would be one of them."""
    norm = layer_norm(2, 1e-5, Runtime("bfloat16"), nnx.Rngs(0))
    out = norm(jnp.array([[300.0, 302.0]], jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), [[-1.0, 1.0]], atol=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 3}, "16 is not divisible by 3 heads"),
        ({"activation": "relu"}, "activation: .* got 'relu'"),
        ({"layers": 0}, "at least one layer, got 0"),
    ],
)
def test_what_cannot_be_built_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        spec_of(**changes).abstract()


def test_unknown_compute_dtype_is_refused():
    with pytest.raises(ValueError, match="compute_dtype: expected float32, bfloat16"):
        Runtime("float8")


def test_tanh_gelu_is_its_formula():
    from vtr_jax.models.transformer import exact_gelu, tanh_gelu

    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    wide = x.astype(np.float64)
    inner = np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
    np.testing.assert_allclose(tanh_gelu(x), 0.5 * wide * (1 + np.tanh(inner)), atol=2e-6)
    assert np.abs(tanh_gelu(x) - exact_gelu(x)).max() > 1e-4
