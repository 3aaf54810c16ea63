"""The contrastive loss, against numbers worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.losses import diagonal_cross_entropy, symmetric_contrastive

LOGITS = jnp.array([[2.0, 0.0], [1.0, 1.0]])


def test_diagonal_cross_entropy():
    first, second = np.log(1 + np.exp(-2.0)), np.log(2.0)
    np.testing.assert_allclose(diagonal_cross_entropy(LOGITS), (first + second) / 2, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_knowing_nothing_costs_the_logarithm_of_the_batch(size):
    np.testing.assert_allclose(
        diagonal_cross_entropy(jnp.full((size, size), 3.0)), np.log(size), atol=1e-6
    )


def test_symmetric_contrastive_is_the_mean_of_both_directions():
    loss, terms = symmetric_contrastive(LOGITS, LOGITS.T)
    columns = (np.log(1 + np.exp(-1.0)) + np.log(1 + np.exp(-1.0))) / 2
    np.testing.assert_allclose(terms["loss_t2v"], diagonal_cross_entropy(LOGITS))
    np.testing.assert_allclose(terms["loss_v2t"], columns, rtol=1e-6)
    np.testing.assert_allclose(loss, (terms["loss_t2v"] + columns) / 2, rtol=1e-6)
    np.testing.assert_array_equal(terms["contrastive"], loss)
    np.testing.assert_array_equal(terms["logits_tv"], LOGITS)
    np.testing.assert_array_equal(terms["logits_vt"], LOGITS.T)


def test_large_logits_do_not_overflow():
    loss = diagonal_cross_entropy(jnp.array([[1e4, 0.0], [0.0, -1e4]]))
    np.testing.assert_allclose(loss, 5000.0)


def test_bfloat16_logits_give_a_float32_loss():
    loss = diagonal_cross_entropy(LOGITS.astype(jnp.bfloat16))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, diagonal_cross_entropy(LOGITS), rtol=1e-6)


def test_gradient_pulls_the_diagonal_up_and_sums_to_zero():
    gradient = np.asarray(jax.grad(diagonal_cross_entropy)(LOGITS))
    assert (np.diagonal(gradient) < 0).all()
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-7)
