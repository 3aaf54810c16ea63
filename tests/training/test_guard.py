"""Which updates are refused: numbers that are not finite, and gradients far above the usual."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.training.accumulation import accumulated
from vtr_jax.training.guard import NORMS_FOR_A_MEDIAN, REMEMBERED_NORMS, initial_guard, judge

judge_at = {factor: jax.jit(functools.partial(judge, spike_factor=factor)) for factor in (0.0, 3.0)}


def after(norms, factor=3.0, guard=None, loss=1.0):
    """The guard after some steps, and the steps (from 0) that were refused."""
    guard, refused = guard or initial_guard(), []
    for step, norm in enumerate(norms):
        apply, guard, metrics = judge_at[factor](guard, jnp.float32(loss), jnp.float32(norm))
        assert bool(metrics["refused"]) != bool(apply)
        if metrics["refused"]:
            refused.append((step, bool(metrics["spike"])))
    return guard, refused


def test_a_norm_far_above_the_median_is_a_spike():
    usual = [1.0, 2.0] * NORMS_FOR_A_MEDIAN
    guard, refused = after([*usual, 4.6, 4.4, 2.0, 100.0])
    # The median is 1.5; what was refused does not move it.
    assert refused == [(len(usual), True), (len(usual) + 3, True)]
    assert (guard["refused"], guard["accepted"]) == (2, len(usual) + 2)
    assert after([*usual, 100.0], factor=0.0)[1] == []


def test_the_first_norms_are_no_spikes():
    growing = [10.0**step for step in range(NORMS_FOR_A_MEDIAN)]
    assert after(growing)[1] == []
    assert after([*growing, 1e30])[1] == [(NORMS_FOR_A_MEDIAN, True)]


def test_the_median_follows_the_run():
    high = [10.0] * REMEMBERED_NORMS
    guard, _ = after([*high, *[1.0] * REMEMBERED_NORMS])
    np.testing.assert_array_equal(guard["recent_norms"], 1.0)
    assert after([10.0], guard=guard)[1] == [(0, True)]
    assert after([10.0], guard=after(high)[0])[1] == []


@pytest.mark.parametrize("factor", [0.0, 3.0])
def test_numbers_that_are_not_finite_are_refused_from_the_first_step(factor):
    norms = [np.nan, 1.0, np.inf, 1.0]
    guard, refused = after(norms, factor)
    assert refused == [(0, False), (2, False)]
    assert np.isfinite(guard["recent_norms"]).all()
    assert after([1.0], factor, loss=np.nan)[1] == [(0, False)]


def test_micro_batches_share_a_state_and_are_averaged():
    def loss(params, state, batch, key):
        del key
        products = params["w"] * batch["x"]
        total = state["total"] + batch["x"].sum()
        return products.prod(), {
            "mean": products.mean(),
            "rows": products,
            "state": {"total": total},
        }

    function = jax.value_and_grad(loss, has_aux=True)
    assert accumulated(function, 1) is function
    batch = {"x": jnp.arange(1.0, 7.0)}
    (value, terms), gradients = accumulated(function, 3)(
        {"w": jnp.float32(2.0)}, {"total": jnp.float32(0)}, batch, jax.random.key(0)
    )
    # Pairs 1 4, 2 5 and 3 6: products 4, 10 and 18, times w squared.
    assert value == pytest.approx(4 * (4 + 10 + 18) / 3)
    assert gradients["w"] == pytest.approx(2 * 2 * (4 + 10 + 18) / 3)
    assert terms["mean"] == pytest.approx(2 * 3.5) and set(terms) == {"mean", "state"}
    assert terms["state"]["total"] == 21
