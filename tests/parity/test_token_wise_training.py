"""DRL's and BackBone_tvr's optimizer, parameter groups and start from CLIP, as recorded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vtr_jax.convert.from_state_dict import to_state_dict
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.names.params import applicable_rows, original_keys
from vtr_jax.models.clip import clip_config
from vtr_jax.models.initialise import initialise_from_clip
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import abstract_retriever, init_retriever
from vtr_jax.training.optimizer import Group, bert_adam, clip_by_global_norm, warmup_cosine
from vtr_jax.training.parameter_groups import parameter_groups, trainable_mask

FOLDER = Path(os.environ.get("VTR_GOLDEN_DIR", Path(__file__).parent / "golden"))
CASES = [
    path
    for system in ("drl", "backbone_tvr")
    if (path := FOLDER / system / "extra_bertadam.json").is_file()
]
VARIANTS = {
    "default": {},
    "seqLSTM": {"agg_module": "seqLSTM"},
    "xti": {"interaction": "xti"},
}
# The groups and starts were recorded with a CLIP of one vision layer and two text layers.
CLIP = clip_config(
    embed_dim=64,
    image_resolution=32,
    patch_size=16,
    vision_width=64,
    vision_layers=1,
    text_width=64,
    text_layers=2,
    context_length=16,
    vocab_size=32,
)
RATE, COEFFICIENT, DECAY = 1e-4, 1e-3, 0.2


def record_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


def variants_of(part):
    return [
        pytest.param(path.parent.name, VARIANTS[name], recorded, id=f"{path.parent.name}-{name}")
        for path in CASES
        for name, recorded in record_of(path)[part].items()
    ]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.parent.name)
def test_every_step_of_the_optimizer(path):
    config, arrays = record_of(path)["config"], dict(np.load(path.with_suffix(".npz")))
    names = [name.removeprefix("init/") for name in arrays if name.startswith("init/")]

    def group_of(name):
        rate = config["lr"] * (config["coef_lr"] if name.startswith("clip.") else 1.0)
        return Group(rate, 0.0 if "bias" in name else config["weight_decay"])

    schedule = warmup_cosine(config["t_total"], config["warmup"])
    moments = {"b1": config["b1"], "b2": config["b2"], "eps": config["eps"]}
    update = bert_adam(group_of, schedule, max_grad_norm=config["max_grad_norm"], **moments)
    optimizer = optax.chain(clip_by_global_norm(1.0), update)
    params = {name: jnp.asarray(arrays[f"init/{name}"]) for name in names}
    state, step_fn = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(config["steps"]):
        gradients = {name: jnp.asarray(arrays[f"step{step}/grad/{name}"]) for name in names}
        updates, state = step_fn(gradients, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        assert float(schedule(jnp.asarray(step))) == pytest.approx(
            float(arrays[f"step{step}/lr"]), rel=1e-5
        )
        for name in names:
            # Eight float32 updates: a few units in the last place.
            np.testing.assert_allclose(
                params[name],
                arrays[f"step{step}/param/{name}"],
                rtol=2e-6,
                atol=2e-7,
                err_msg=f"step {step}, {name}",
            )


def groups_by_key(params, table):
    group_of = parameter_groups(RATE, COEFFICIENT, DECAY)
    return {
        key: group_of(row.ours)
        for row, leaf in applicable_rows(table, params)
        for key in original_keys(row, leaf)
    }


@pytest.mark.parametrize(("recipe", "options", "recorded"), variants_of("default_param_groups"))
def test_every_parameter_is_in_the_originals_group(recipe, options, recorded):
    config = recipe_named(recipe).config(CLIP, options)
    params = abstract_retriever(config).params
    expected = {
        key: Group(pytest.approx(group["lr"]), group["weight_decay"])
        for group in recorded
        for key in group["params"]
    }
    assert groups_by_key(params, NAME_TABLES[recipe]) == expected
    mask = trainable_mask(params, config)
    frozen = [path for path, flag in jax.tree_util.tree_leaves_with_path(mask) if flag is not True]
    assert len(frozen) == (options.get("agg_module") == "seqLSTM")


@pytest.mark.parametrize(("recipe", "options", "recorded"), variants_of("init_trick"))
def test_a_fresh_retriever_starts_from_the_recorded_parts_of_clip(recipe, options, recorded):
    clip = init_retriever(recipe_named("clip").config(CLIP), jax.random.key(0))
    source = to_state_dict(clip)
    ours = to_state_dict(initialise_from_clip(clip, recipe, jax.random.key(1), options))
    for key, (origin,) in recorded["seeded_from"].items():
        np.testing.assert_array_equal(ours[key], source[origin], err_msg=key)
    for key, tensor in source.items():
        np.testing.assert_array_equal(ours[f"clip.{key}"], tensor, err_msg=key)
    own = {key for key in ours if not key.startswith("clip.")}
    seeded = set(recorded["seeded_from"])
    assert seeded <= own
    # Nothing else is a copy of anything in CLIP.
    matrices = {tensor.tobytes() for tensor in source.values() if tensor.ndim > 1}
    for key in own - seeded:
        assert ours[key].ndim < 2 or ours[key].tobytes() not in matrices, key


def test_something_was_recorded():
    assert CASES, f"no extra_bertadam of drl or backbone_tvr below {FOLDER}"
