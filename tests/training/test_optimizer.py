"""Schedules, BertAdam and AdamW beyond what the originals' recorded runs show."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vtr_jax.training.guard import refusable
from vtr_jax.training.optimizer import (
    Group,
    adamw,
    apply_group_rates,
    bert_adam,
    clip_by_global_norm,
    warmup_cosine,
)
from vtr_jax.training.parameter_groups import freeze

ONE_GROUP = Group(0.1, 0.0)


def factor(schedule, step):
    return float(schedule(jnp.asarray(step)))


def test_schedule_warms_up_drops_and_rises_again_past_the_end():
    schedule = warmup_cosine(total_steps=40, warmup_proportion=0.25)
    assert factor(schedule, 0) == 0.0
    assert factor(schedule, 5) == pytest.approx(0.5)
    # The cosine spans the whole run: where the warmup ends it has already come down.
    assert factor(schedule, 10) == pytest.approx(0.5 * (1 + np.cos(np.pi / 4)))
    assert factor(schedule, 40) == pytest.approx(0.0, abs=1e-7)
    assert factor(schedule, 50) == pytest.approx(0.5 * (1 + np.cos(1.25 * np.pi)))
    falling = [factor(schedule, step) for step in range(10, 41)]
    assert all(a > b for a, b in zip(falling, falling[1:], strict=False))


def test_schedule_without_warmup_starts_at_one():
    assert factor(warmup_cosine(10, 0.0), 0) == 1.0
    assert factor(warmup_cosine(10, -1), 0) == 1.0


def test_constant_schedule_and_refused_lengths():
    assert factor(warmup_cosine(-1, 0.5), 12345) == 1.0
    for steps in (0, -2):
        with pytest.raises(ValueError, match=f"total_steps: expected a positive .*, got {steps}"):
            warmup_cosine(steps, 0.1)


def random_params(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"visual": {"kernel": (3, 4), "bias": (4,)}, "new": {"kernel": (2, 2)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def run(optimizer, params, steps=5):
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = optimizer.update(random_params(step + 1), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_adamw_is_that_of_optax():
    ours, _ = run(
        adamw(lambda path: Group(1e-2, 0.3), warmup_cosine(-1, 0), b1=0.8, b2=0.95, eps=1e-7),
        random_params(),
    )
    theirs, _ = run(optax.adamw(1e-2, b1=0.8, b2=0.95, eps=1e-7, weight_decay=0.3), random_params())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), ours, theirs)


def test_adamw_follows_the_schedule_from_its_first_step():
    schedule = warmup_cosine(10, 0.5)
    optimizer = apply_group_rates(lambda path: Group(0.1, 0.0), schedule)
    params = {"kernel": jnp.ones(())}
    state = optimizer.init(params)
    for step in range(12):
        updates, state = optimizer.update({"kernel": jnp.ones(())}, state, params)
        assert float(updates["kernel"]) == pytest.approx(-0.1 * factor(schedule, step))


@pytest.mark.parametrize("make", [adamw, bert_adam])
def test_each_group_has_its_own_rate_and_decay(make):
    groups = {
        "visual/kernel": Group(1e-3, 0.5),
        "visual/bias": Group(1e-3, 0.0),
        "new/kernel": Group(1e-1, 0.0),
    }
    optimizer = make(groups.__getitem__, warmup_cosine(-1, 0))
    params = random_params()
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    # Without a gradient nothing is left but decay.
    np.testing.assert_allclose(
        updates["visual"]["kernel"], -1e-3 * 0.5 * params["visual"]["kernel"], rtol=1e-6
    )
    assert not np.any(updates["visual"]["bias"]) and not np.any(updates["new"]["kernel"])
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(ones, optimizer.init(params), params)
    # The first update of Adam has the size of the rate; without bias correction a fixed share.
    bias, new = updates["visual"]["bias"][0], updates["new"]["kernel"][0, 0]
    assert float(new / bias) == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize(
    "optimizer",
    [
        adamw(lambda path: Group(0.1, 0.2), warmup_cosine(-1, 0)),
        bert_adam(lambda path: Group(0.1, 0.2), warmup_cosine(-1, 0)),
        refusable(optax.sgd(0.1, momentum=0.9)),
    ],
    ids=["adamw", "bert_adam", "refusable"],
)
def test_a_refused_update_leaves_the_state_as_it_was(optimizer):
    optimizer = freeze(optimizer, jax.tree.map(lambda shape: True, random_params()))
    params = random_params()
    update = jax.jit(optimizer.update)
    _, before = update(random_params(1), optimizer.init(params), params)
    poisoned = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    _, refused = update(poisoned, before, params, apply=jnp.asarray(False))
    jax.tree.map(np.testing.assert_array_equal, refused, before)
    _, applied = update(random_params(2), refused, params, apply=jnp.asarray(True))
    _, straight = update(random_params(2), before, params)
    jax.tree.map(np.testing.assert_array_equal, applied, straight)
    assert not jax.tree.all(jax.tree.map(np.array_equal, applied, before))


def test_bert_adam_by_hand():
    optimizer = bert_adam(
        lambda path: Group(0.5, 0.25),
        warmup_cosine(-1, 0),
        b1=0.5,
        b2=0.75,
        eps=0.0,
        max_grad_norm=10,
    )
    params = {"kernel": jnp.array([2.0, -4.0])}
    state = optimizer.init(params)
    updates, state = optimizer.update({"kernel": jnp.array([3.0, 4.0])}, state, params)
    # m = g/2, v = g^2/4: m/sqrt(v) = 1; no bias correction.
    np.testing.assert_allclose(updates["kernel"], [-0.5 * (1 + 0.5), -0.5 * (1 - 1.0)], rtol=1e-6)
    assert int(state.count["kernel"]) == 1


def test_bert_adam_clips_each_tensor_and_each_layer_of_a_stack_by_itself():
    optimizer = bert_adam(lambda path: ONE_GROUP, warmup_cosine(-1, 0), max_grad_norm=1.0)
    params = {"blocks": {"kernel": jnp.zeros((2, 3))}, "small": jnp.zeros(3), "big": jnp.zeros(3)}
    gradients = {
        "blocks": {"kernel": jnp.array([[0.0, 3.0, 4.0], [0.3, 0.4, 0.0]])},
        "small": jnp.array([0.3, 0.4, 0.0]),
        "big": jnp.array([30.0, 40.0, 0.0]),
    }
    _, state = optimizer.update(gradients, optimizer.init(params), params)
    seen = jax.tree.map(lambda mu: mu / 0.1, state.mu)
    np.testing.assert_allclose(seen["blocks"]["kernel"], [[0, 0.6, 0.8], [0.3, 0.4, 0]], rtol=1e-5)
    np.testing.assert_allclose(seen["small"], [0.3, 0.4, 0], rtol=1e-5)
    np.testing.assert_allclose(seen["big"], [0.6, 0.8, 0], rtol=1e-5)


def test_a_gradient_of_none_leaves_tensor_moments_and_count():
    schedule = warmup_cosine(10, 0.5)
    optimizer = bert_adam(lambda path: Group(0.1, 0.2), schedule)
    params = {"kernel": jnp.ones(2), "late": jnp.ones(2)}
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update({"kernel": jnp.ones(2), "late": None}, state, params)
        assert updates["late"] is None
    assert (int(state.count["kernel"]), int(state.count["late"])) == (3, 0)
    assert not np.any(state.mu["late"]) and not np.any(state.nu["late"])
    # Its own count decides its rate: the first step of the warmup is still ahead.
    updates, state = optimizer.update({"kernel": None, "late": jnp.ones(2)}, state, params)
    assert not np.any(updates["late"]) and int(state.count["late"]) == 1


def test_decay_needs_the_parameters():
    optimizer = bert_adam(lambda path: ONE_GROUP, warmup_cosine(-1, 0))
    params = {"kernel": jnp.ones(2)}
    with pytest.raises(ValueError, match="needs the params"):
        optimizer.update(params, optimizer.init(params))


def test_clip_by_global_norm_is_pytorchs():
    clip = clip_by_global_norm(2.0)
    small = {"a": jnp.array([0.6]), "b": jnp.array([0.8])}
    updates, _ = clip.update(small, clip.init(small))
    assert updates == small
    large = jax.tree.map(lambda g: 10 * g, small)
    updates, _ = clip.update(large, clip.init(large))
    np.testing.assert_allclose(updates["a"], 6.0 * 2.0 / (10.0 + 1e-6), rtol=1e-6)
    assert float(optax.tree.norm(updates)) == pytest.approx(2.0, rel=1e-6)
