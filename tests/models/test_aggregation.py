"""The temporal Transformer: order matters, padding does not, empty clips stay finite."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.models.aggregation import TemporalConfig, TemporalTransformer
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.runtime import Runtime

CONFIG = TemporalConfig(width=16, layers=2, heads=2, positions=6)
SPEC = ModuleSpec(TemporalTransformer, CONFIG, Runtime())
MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], np.int32)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: np.float32(0.3 * rng.standard_normal(leaf.shape)), SPEC.abstract()
    )


@pytest.fixture(scope="module")
def frames():
    return jax.random.normal(jax.random.key(1), (3, 4, 16))


@jax.jit
def aggregate(params, frames, mask):
    return SPEC.bind(params)(frames, mask)


def test_frames_are_added_to_what_is_made_of_them(params, frames):
    inside = jax.jit(lambda p, f, m: SPEC.bind(p).transformed(f, m))(params, frames, MASK)
    np.testing.assert_allclose(aggregate(params, frames, MASK), inside + frames, atol=1e-6)


def test_frames_see_each_other_and_their_order(params, frames):
    out = np.asarray(aggregate(params, frames, MASK))
    changed = np.asarray(aggregate(params, frames.at[:, 1].multiply(-1.0), MASK))
    assert not np.allclose(out[:, 0], changed[:, 0], atol=1e-3)
    reversed_ = np.asarray(aggregate(params, frames[:, ::-1], MASK))
    assert not np.allclose(out[1], reversed_[1, ::-1], atol=1e-3)


def test_padded_frames_reach_nothing(params, frames):
    out = np.asarray(aggregate(params, frames, MASK))
    changed = np.asarray(aggregate(params, frames.at[:, 3].multiply(-5.0), MASK))
    np.testing.assert_array_equal(out[0, :3], changed[0, :3])
    assert not np.allclose(out[1, :3], changed[1, :3], atol=1e-3)


def test_more_padding_changes_nothing(params, frames):
    longer = jnp.concatenate([frames, jnp.ones((3, 2, 16))], axis=1)
    mask = np.concatenate([MASK, np.zeros((3, 2), np.int32)], axis=1)
    out, more = aggregate(params, frames, MASK), aggregate(params, longer, mask)
    np.testing.assert_allclose(out[:2], more[:2, :4], atol=1e-5)


def test_a_clip_without_frames_stays_finite(params, frames):
    assert np.isfinite(aggregate(params, frames, MASK)).all()


def test_bfloat16_gives_float32(params, frames):
    """bfloat16 has 8 bits: numbers up to 3 are off by 0.01, and some roundings add up."""
    spec = ModuleSpec(TemporalTransformer, CONFIG, Runtime("bfloat16"))
    out = jax.jit(lambda p, f, m: spec.bind(p)(f, m))(params, frames, MASK)
    assert out.dtype == jnp.float32
    difference = np.abs(out - aggregate(params, frames, MASK)).max()
    assert 1e-4 < difference < 0.06


def test_too_many_frames_are_refused(params):
    frames, mask = jnp.zeros((1, 7, 16)), jnp.ones((1, 7))
    with pytest.raises(ValueError, match="7 frames a clip.*6 positions; use max_frames of at most"):
        aggregate(params, frames, mask)
