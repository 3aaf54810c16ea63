"""Which parameters move, and how fast: on real retrievers, by what an optimizer does to them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vtr_jax.models.clip import clip_config
from vtr_jax.models.parameter_paths import path_name
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import abstract_retriever
from vtr_jax.training.optimizer import (
    Group,
    adamw,
    bert_adam,
    clip_by_global_norm,
    warmup_cosine,
)
from vtr_jax.training.parameter_groups import (
    freeze,
    is_clip_parameter,
    parameter_groups,
    trainable_mask,
)

LAYERS = 3


def config_of(linear_patch="2d"):
    """Small, and of few different shapes: each costs compilations."""
    clip = clip_config(
        embed_dim=64,
        image_resolution=16,
        patch_size=8,
        vision_width=64,
        vision_layers=LAYERS,
        text_width=64,
        text_layers=LAYERS,
        vocab_size=5,
        context_length=5,
        linear_patch=linear_patch,
    )
    return recipe_named("clip4clip").config(
        clip, {"sim_header": "seqTransf", "linear_patch": linear_patch}, {"temporal_layers": LAYERS}
    )


def random_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), jnp.float32), tree)


def by_path(tree):
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def trained_parts(config, optimizer=bert_adam, **freezing):
    """For every path the share of layers (or of the whole) whose bits changed."""
    start = params = random_like(abstract_retriever(config).params, 0)
    mask = trainable_mask(params, config, **freezing)
    groups = parameter_groups(0.1, 0.1, weight_decay=0.2)
    chain = optax.chain(clip_by_global_norm(1.0), optimizer(groups, warmup_cosine(-1, 0)))
    frozen = freeze(chain, mask)
    updates, state = frozen.update(random_like(params, 1), frozen.init(params), params)
    params = optax.apply_updates(params, updates)
    before, after = by_path(start), by_path(params)
    changed = {}
    for path in before:
        layers = before[path].shape[0] if "blocks/" in path else 1
        rows = [np.asarray(tree[path]).reshape(layers, -1) for tree in (before, after)]
        changed[path] = [a.tobytes() != b.tobytes() for a, b in zip(*rows, strict=True)]
    return changed, state


def test_nothing_frozen_trains_everything():
    changed, _ = trained_parts(config_of(), freeze_layer_num=-1)
    assert all(all(parts) for parts in changed.values())


@pytest.mark.parametrize("optimizer", [bert_adam, adamw])
def test_frozen_layers_keep_every_bit_and_the_rest_trains(optimizer):
    changed, _ = trained_parts(config_of(), optimizer, freeze_layer_num=2)
    for path, parts in changed.items():
        if not is_clip_parameter(path):
            assert all(parts), path
        elif "blocks/" in path:
            assert parts == [False, False, True], path
        else:
            out = ("ln_final", "ln_post", "projection", "logit_scale")
            assert all(parts) == any(name in path for name in out), path
    assert sum("blocks/" in path and is_clip_parameter(path) for path in changed) == 2 * 12


def test_a_frozen_stem_leaves_all_blocks_trained():
    changed, _ = trained_parts(config_of(), freeze_layer_num=0)
    assert changed["text/token_embedding/embedding"] == [False]
    assert changed["visual/ln_pre/scale"] == [False]
    assert all(all(parts) for path, parts in changed.items() if "blocks/" in path)


def test_a_number_beyond_the_layers_freezes_all_blocks_of_the_towers():
    changed, state = trained_parts(config_of(), freeze_layer_num=LAYERS + 4)
    for path, parts in changed.items():
        if "blocks/" in path:
            assert any(parts) != is_clip_parameter(path), path
    # What is wholly frozen costs no memory for moments.
    moments = by_path(state)
    assert not any("mu/visual/transformer" in path for path in moments)
    assert any("mu/aggregation/transformer" in path for path in moments)


def test_gradients_of_frozen_parameters_do_not_count_in_the_global_norm():
    params = {"frozen": jnp.ones(2), "trained": jnp.ones(2)}
    mask = {"frozen": False, "trained": True}
    optimizer = freeze(clip_by_global_norm(1.0), mask)
    gradients = {"frozen": jnp.full(2, 1e6), "trained": jnp.array([0.6, 0.0])}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates["trained"], [0.6, 0.0])
    assert not np.any(updates["frozen"])


@pytest.mark.parametrize("freeze_layer_num", [-1, 0, 1])
def test_what_3d_patches_never_read_is_not_decayed(freeze_layer_num):
    changed, _ = trained_parts(config_of("3d"), freeze_layer_num=freeze_layer_num)
    assert changed["visual/patch_embedding/kernel"] == [False]
    assert changed["visual/patch_embedding_3d/kernel"] == [True]


def test_the_originals_3d_mistake_is_an_option():
    config = config_of("3d")
    changed, _ = trained_parts(config, freeze_layer_num=2, freeze_nothing_in_3d=True)
    left = [path for path, parts in changed.items() if not all(parts)]
    assert left == ["visual/patch_embedding/kernel"]
    changed, _ = trained_parts(config, freeze_layer_num=2)
    assert changed["text/transformer/blocks/ln_1/scale"] == [False, False, True]
    two_d, _ = trained_parts(config_of("2d"), freeze_layer_num=2, freeze_nothing_in_3d=True)
    assert two_d["text/transformer/blocks/ln_1/scale"] == [False, False, True]


@pytest.mark.parametrize(
    ("path", "spared"),
    [
        ("visual/projection", False),
        ("visual/class_embedding", False),
        ("text/transformer/blocks/mlp/fc/kernel", False),
        ("text/transformer/blocks/mlp/fc/bias", True),
        ("text/ln_final/bias", True),
        ("text/ln_final/scale", None),
        ("text/transformer/blocks/ln_1/scale", None),
        ("logit_scale", None),
    ],
)
def test_decay_spares_biases_and_on_request_norms(path, spared):
    """spared None: the originals' rule misses it."""
    decayed = parameter_groups(1.0, 0.5, 0.2)(path)
    assert decayed == Group(0.5, 0.0 if spared else 0.2)
    strict = parameter_groups(1.0, 0.5, 0.2, decay_norms=False)(path)
    assert strict == Group(0.5, 0.2 if spared is False else 0.0)


def test_what_a_recipe_adds_has_the_whole_rate():
    group_of = parameter_groups(1e-4, 1e-3, 0.2)
    assert group_of("aggregation/position_embedding") == Group(1e-4, 0.2)
    assert group_of("visual/projection").learning_rate == pytest.approx(1e-7)
    assert group_of("logit_scale").learning_rate == pytest.approx(1e-7)
