"""One training step: what it changes, what it reports, and that it compiles once."""

from __future__ import annotations

import copy
import dataclasses
import math

import jax
import numpy as np
import optax
import pytest

from vtr_jax.models.parameter_paths import path_name
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import init_retriever
from vtr_jax.sharding import make_mesh, put_batch, shardings
from vtr_jax.training.config import runtime_of
from vtr_jax.training.guard import refusable
from vtr_jax.training.optimizer import warmup_cosine
from vtr_jax.training.run import starting_retriever, step_settings
from vtr_jax.training.step import (
    BATCH_KEYS,
    MAX_LOGIT_SCALE,
    StepSettings,
    abstract_batch,
    batch_loss,
    compile_train_step,
    initial_train_state,
)

# As a run of `tiny_config` has them, so that both share one compilation.
SCHEDULE = warmup_cosine(32, 0.1)


def prepared(config, **more):
    """(settings, state as NumPy arrays, compiled step) of a config on one device."""
    mesh = make_mesh()
    retriever = starting_retriever(config)
    settings = dataclasses.replace(step_settings(config, retriever, SCHEDULE), **more)
    state = initial_train_state(retriever, settings, mesh)
    return settings, jax.device_get(state), compile_train_step(settings, state, mesh)


@pytest.fixture(scope="module")
def tiny(tiny_config):
    return prepared(tiny_config())


def walk(step_fn, state, batches, first=1):
    """The state after a step a batch, and the metrics of each."""
    mesh, history = make_mesh(), []
    state = jax.device_put(jax.tree.map(np.array, state), shardings(state, mesh))
    for number, batch in enumerate(batches, start=first):
        state, metrics = step_fn(state, put_batch(batch, mesh), jax.random.key(number))
        history.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state), history


def test_metrics_are_of_the_state_before_the_step(tiny, random_batch):
    settings, start, step_fn = tiny
    _, (first,) = walk(step_fn, start, [random_batch(0)])
    loss, terms = batch_loss(
        start["params"], start["state"], random_batch(0), jax.random.key(1), settings
    )
    assert first["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert first["loss_t2v"] == pytest.approx(float(terms["loss_t2v"]), rel=1e-5)
    assert first["logit_scale"] == pytest.approx(math.exp(2.6592))
    assert first["gradient_norm"] > 0


def norm(tree):
    return math.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(tree)))


def test_norms_are_of_the_parameters_after_the_step_in_all_and_by_component(tiny, random_batch):
    _, start, step_fn = tiny
    one, _ = walk(step_fn, start, [random_batch(0)])
    two, (metrics,) = walk(step_fn, one, [random_batch(1)])
    assert metrics["parameter_norm"] == pytest.approx(norm(two["params"]), rel=1e-6)
    assert metrics["parameter_norm"] != pytest.approx(norm(one["params"]), rel=1e-6)
    for part, tree in two["params"].items():
        assert metrics[f"parameter_norm/{part}"] == pytest.approx(norm(tree), rel=1e-6)
    parts = {f"gradient_norm/{part}": metrics[f"gradient_norm/{part}"] for part in two["params"]}
    assert metrics["gradient_norm"] == pytest.approx(norm(parts), rel=1e-6)


def test_the_first_step_of_a_run_moves_nothing(tiny, random_batch):
    """The schedule starts at 0."""
    _, start, step_fn = tiny
    one, _ = walk(step_fn, start, [random_batch(0)])
    assert jax.tree.all(jax.tree.map(np.array_equal, start["params"], one["params"]))


def test_steps_are_repeatable_bit_by_bit_and_compile_once(tiny, random_batch):
    _, start, step_fn = tiny
    batches = [random_batch(seed) for seed in range(4)]
    once, first = walk(step_fn, start, batches)
    again, second = walk(step_fn, start, batches)
    assert first == second
    assert jax.tree.all(jax.tree.map(np.array_equal, once, again))
    assert step_fn._cache_size() == 1


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_step_without_finite_numbers_changes_nothing(tiny, random_batch, poison):
    _, start, step_fn = tiny
    one, _ = walk(step_fn, start, [random_batch(0)])
    bad = jax.tree.map(np.array, one)
    bad["params"]["text"]["projection"][0, 0] = poison
    after, (metrics,) = walk(step_fn, bad, [random_batch(1)])
    assert metrics["refused"] == 1 and metrics["spike"] == 0
    assert not math.isfinite(metrics["gradient_norm"])
    for name in ("params", "opt_state"):
        assert jax.tree.all(
            jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=True), bad[name], after[name])
        )
    assert (after["guard"]["accepted"], after["guard"]["refused"]) == (1, 1)
    # Training goes on where it was.
    after["params"]["text"]["projection"] = one["params"]["text"]["projection"]
    beside, (metrics,) = walk(step_fn, after, [random_batch(1)])
    straight, _ = walk(step_fn, one, [random_batch(1)])
    assert jax.tree.all(jax.tree.map(np.array_equal, beside["params"], straight["params"]))
    assert (metrics["refused"], metrics["refused_in_all"]) == (0, 1)


def compiled_step(settings, retriever, quickly_compiled):
    """(state as NumPy arrays, compiled step) of any retriever on one device."""
    mesh = make_mesh()
    state = initial_train_state(retriever, settings, mesh)
    return jax.device_get(state), quickly_compiled(compile_train_step(settings, state, mesh))


def test_a_refused_step_keeps_the_recipes_state_and_the_average(
    tiny_config, random_batch, quickly_compiled
):
    config = tiny_config()
    clip = starting_retriever(config).config.clip
    retriever = init_retriever(recipe_named("emcl").config(clip, {}), jax.random.key(0))
    optimizer = refusable(optax.sgd(1e-2, momentum=0.9))
    settings = StepSettings(retriever.config, runtime_of(config), optimizer, ema_decay=0.5)
    start, step_fn = compiled_step(settings, retriever, quickly_compiled)
    one, _ = walk(step_fn, start, [random_batch(0)])
    two, _ = walk(step_fn, one, [random_batch(1)])
    for name in ("params", "opt_state", "state", "ema"):
        assert not jax.tree.all(jax.tree.map(np.array_equal, one[name], two[name])), name
    bad = jax.tree.map(np.array, one)
    bad["params"]["text"]["projection"][0, 0] = np.nan
    after, (metrics,) = walk(step_fn, bad, [random_batch(1)])
    assert metrics["refused"] == 1
    for name in ("params", "opt_state", "state", "ema"):
        jax.tree.map(np.testing.assert_array_equal, after[name], bad[name])


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_frozen_parameters_have_no_gradient_and_the_others_keep_theirs(
    tiny_config, random_batch, quickly_compiled, micro_batches
):
    config = tiny_config()
    # The momentum of the first step is the gradient itself.
    optimizer = refusable(optax.sgd(0.0, momentum=0.9))

    def gradients(frozen):
        retriever = starting_retriever(config)
        settings = StepSettings(
            retriever.config,
            runtime_of(config),
            optimizer,
            frozen,
            cached_micro_batches=micro_batches,
        )
        start, step_fn = compiled_step(settings, retriever, quickly_compiled)
        after, (metrics,) = walk(step_fn, start, [random_batch(0)])
        leaves = jax.tree_util.tree_leaves_with_path(after["opt_state"][0].trace)
        return {path_name(path): leaf for path, leaf in leaves}, metrics

    whole, _ = gradients(frozenset())
    frozen = frozenset(sorted(whole)[::2])
    some, metrics = gradients(frozen)
    for name, gradient in whole.items():
        if name in frozen:
            assert not np.any(some[name]), name
        else:
            # Without the others' gradients XLA may fuse these in another way.
            np.testing.assert_allclose(some[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)
    assert any(np.any(whole[name]) for name in frozen)
    assert metrics["gradient_norm"] == pytest.approx(norm(some), rel=1e-5)


def test_a_run_computes_no_gradient_of_what_it_freezes(tiny_config):
    config = tiny_config({"optimizer.freeze_layer_num": 0})
    settings = step_settings(config, starting_retriever(config), SCHEDULE)
    assert "text/token_embedding/embedding" in settings.frozen
    assert not any("blocks/" in name for name in settings.frozen)


def test_an_average_of_the_weights_and_micro_batches(tiny_config, random_batch, quickly_compiled):
    """Loss and gradients are means over the micro-batches; the average follows the parameters."""
    settings, start, step_fn = prepared(tiny_config(), ema_decay=0.9, gradient_accumulation_steps=2)
    step_fn = quickly_compiled(step_fn)
    batch = random_batch(0)
    _, history = walk(step_fn, start, [batch])
    losses = [
        batch_loss(
            start["params"],
            start["state"],
            {name: array[part::2] for name, array in batch.items()},
            jax.random.key(0),
            settings,
        )[0]
        for part in (0, 1)
    ]
    assert history[0]["loss"] == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert history[0]["loss_t2v"] + history[0]["loss_v2t"] == pytest.approx(
        2 * history[0]["loss"], rel=1e-5
    )
    states = [start]
    for seed in range(3):
        states.append(walk(step_fn, states[-1], [random_batch(seed)])[0])
    average = start["params"]["text"]["projection"]
    for state in states[1:]:
        average = 0.9 * average + 0.1 * state["params"]["text"]["projection"]
    np.testing.assert_allclose(states[-1]["ema"]["text"]["projection"], average, rtol=1e-6)
    assert not np.array_equal(average, states[-1]["params"]["text"]["projection"])


def test_every_parameter_and_moment_keeps_its_dtype(tiny, random_batch):
    _, start, step_fn = tiny
    after, _ = walk(step_fn, start, [random_batch(0), random_batch(1)])
    assert jax.tree.structure(start) == jax.tree.structure(after)
    assert jax.tree.map(lambda a: a.dtype, start) == jax.tree.map(lambda a: a.dtype, after)
    floats = {leaf.dtype for leaf in jax.tree.leaves(after) if leaf.ndim}
    assert floats == {np.dtype(np.float32)}


def test_logit_scale_never_passes_100(tiny, random_batch):
    _, start, step_fn = tiny
    start = {**start, "params": {**start["params"], "logit_scale": np.float32(5.0)}}
    after, history = walk(step_fn, start, [random_batch(0)])
    assert after["params"]["logit_scale"] == np.float32(math.log(100.0))
    assert np.exp(after["params"]["logit_scale"]) == pytest.approx(100, rel=1e-6)
    assert history[0]["logit_scale"] == pytest.approx(math.exp(5.0))
    assert np.float32(MAX_LOGIT_SCALE) == after["params"]["logit_scale"]


def test_padding_frames_and_captions_behind_the_end_do_not_matter(tiny, random_batch):
    _, start, step_fn = tiny
    batch = random_batch(3)
    changed = copy.deepcopy(batch)
    changed["frames"][batch["frame_mask"] == 0] = 255
    changed["token_ids"][batch["token_mask"] == 0] = 17
    _, before = walk(step_fn, start, [batch])
    _, after = walk(step_fn, start, [changed])
    assert before[0]["loss"] == pytest.approx(after[0]["loss"], rel=1e-5)


def test_bfloat16_trains_float32_parameters(tiny, tiny_config, random_batch, quickly_compiled):
    _, _, exact_fn = tiny
    _, start, step_fn = prepared(tiny_config({"compute_dtype": "bfloat16"}))
    step_fn = quickly_compiled(step_fn)
    batches = [random_batch(seed % 2) for seed in range(8)]
    after, history = walk(step_fn, start, batches)
    _, exact = walk(exact_fn, start, batches)
    assert all(math.isfinite(value) for metrics in history for value in metrics.values())
    # bfloat16 has eight bits: products are off by up to half a percent, scaled up by 14.
    assert history[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.1)
    assert history[0]["loss"] != exact[0]["loss"]
    assert history[-1]["loss"] < history[0]["loss"]
    assert {leaf.dtype for leaf in jax.tree.leaves(after["params"])} == {np.dtype(np.float32)}


def test_the_abstract_batch_is_a_batch(random_batch):
    abstract, batch = abstract_batch(8, 4, 32, 12), random_batch(0)
    assert set(abstract) == set(batch) == set(BATCH_KEYS)
    for name in BATCH_KEYS:
        assert abstract[name].shape == batch[name].shape
        assert abstract[name].dtype == batch[name].dtype
