"""A recipe's optimizer, parameter groups and start from CLIP, as recorded (DRL, BackBone_tvr)."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vtr_jax.convert.from_state_dict import to_state_dict
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.names.params import applicable_rows, original_keys
from vtr_jax.convert.sizes import count_layers
from vtr_jax.convert.told import OneOf, told_by_names
from vtr_jax.models.clip import ClipConfig, clip_config
from vtr_jax.models.initialise import initialise_from_clip
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import abstract_retriever, init_retriever
from vtr_jax.parity.cases import find_cases
from vtr_jax.parity.kinds import kind_of, recorded_system
from vtr_jax.training.optimizer import Group, bert_adam, clip_by_global_norm, warmup_cosine
from vtr_jax.training.parameter_groups import parameter_groups, trainable_mask

FOLDER = Path(os.environ.get("VTR_GOLDEN_DIR", Path(__file__).parent / "golden"))
CASES = [path for path in find_cases(FOLDER) if kind_of(path) == "recipe-optimizer"]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A recorded retriever, as far as its names and the name of the variant tell it."""

    recipe: str
    clip: ClipConfig
    options: dict
    sizes: dict


def record_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


def system_of(path):
    return recorded_system(path, record_of(path))


def name_of(path):
    return f"{path.parent.parent.name}-{system_of(path)}"


def keys_of(record, name):
    """Every original key that a variant's groups and start name."""
    groups = record.get("default_param_groups", {}).get(name, ())
    start = record.get("init_trick", {}).get(name, {})
    grouped = {key for group in groups for key in group["params"]}
    return grouped | {*start.get("seeded_from", ()), *start.get("others", ())}


def sources_of(record, name):
    """Every key of CLIP that a variant starts from."""
    origins = record.get("init_trick", {}).get(name, {}).get("seeded_from", {})
    return {f"clip.{key}" for origin in origins.values() for key in origin}


def variant_of(recipe, record, name):
    """Widths are ours: the names do not tell them, and neither groups nor starts depend on them."""
    keys = keys_of(record, name)
    towers = keys | sources_of(record, name)
    clip = clip_config(
        embed_dim=64,
        image_resolution=32,
        patch_size=16,
        vision_width=64,
        vision_layers=count_layers(towers, "clip.visual.transformer.resblocks.") or 1,
        text_width=64,
        text_layers=count_layers(towers, "clip.transformer.resblocks.") or 1,
        context_length=16,
        vocab_size=32,
    )
    told, sizes = told_by_names(recipe, {key: (1,) for key in keys})
    layers = {size: count for size, count in sizes.items() if size.endswith("_layers")}
    return Variant(recipe, clip, {**told, **told_by_variant(told, name)}, layers)


def told_by_variant(told, name):
    """What the keys leave open: the variant is named after it, else any of them does."""
    words = re.split(r"[^a-z]+", name.lower())
    return {
        option: next((value for value in values if value in words), values[0])
        for option, values in told.items()
        if isinstance(values, OneOf)
    }


def variants_of(part):
    return [
        pytest.param(
            variant_of(system_of(path), record_of(path), name),
            recorded,
            id=f"{name_of(path)}-{name}",
        )
        for path in CASES
        for name, recorded in record_of(path).get(part, {}).items()
    ]


@pytest.mark.parametrize("path", CASES, ids=name_of)
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


def groups_by_key(params, table, recorded):
    rates = {group["lr"] for group in recorded}
    decay = max(group["weight_decay"] for group in recorded)
    group_of = parameter_groups(max(rates), min(rates) / max(rates), decay)
    return {
        key: group_of(row.ours)
        for row, leaf in applicable_rows(table, params)
        for key in original_keys(row, leaf)
    }


@pytest.mark.parametrize(("variant", "recorded"), variants_of("default_param_groups"))
def test_every_parameter_is_in_the_originals_group(variant, recorded):
    recipe = recipe_named(variant.recipe)
    config = recipe.config(variant.clip, variant.options, variant.sizes)
    params = abstract_retriever(config).params
    expected = {
        key: Group(pytest.approx(group["lr"]), group["weight_decay"])
        for group in recorded
        for key in group["params"]
    }
    assert groups_by_key(params, NAME_TABLES[variant.recipe], recorded) == expected
    mask = trainable_mask(params, config)
    frozen = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, flag in jax.tree_util.tree_leaves_with_path(mask)
        if flag is not True
    }
    assert frozen == set(recipe.unused(config))


@pytest.mark.parametrize(("variant", "recorded"), variants_of("init_trick"))
def test_a_fresh_retriever_starts_from_the_recorded_parts_of_clip(variant, recorded):
    clip = init_retriever(recipe_named("clip").config(variant.clip), jax.random.key(0))
    source = to_state_dict(clip)
    started = initialise_from_clip(
        clip, variant.recipe, jax.random.key(1), variant.options, variant.sizes
    )
    ours = to_state_dict(started)
    for key, (origin,) in recorded["seeded_from"].items():
        np.testing.assert_array_equal(ours[key], source[origin], err_msg=key)
    for key, tensor in source.items():
        np.testing.assert_array_equal(ours[f"clip.{key}"], tensor, err_msg=key)
    own = {key for key in ours if not key.startswith("clip.")}
    seeded = set(recorded["seeded_from"])
    assert own == seeded | set(recorded["others"])
    # Nothing else is a copy of anything in CLIP.
    matrices = {tensor.tobytes() for tensor in source.values() if tensor.ndim > 1}
    for key in own - seeded:
        assert ours[key].ndim < 2 or ours[key].tobytes() not in matrices, key


def test_something_was_recorded():
    assert CASES, f"no extra_bertadam below {FOLDER}"


def names_of(layers, prefix):
    return [f"{prefix}.resblocks.{layer}.ln_1.bias" for layer in range(layers)]


def test_sizes_and_options_are_those_of_the_names():
    """Of no recorded variant: deeper towers, other heads, a start without groups."""
    grouped = [
        *names_of(5, "clip.visual.transformer"),
        *names_of(3, "clip.transformer"),
        *names_of(2, "transformerClip"),
        "frame_position_embeddings.weight",
    ]
    started = {
        "seeded_from": {
            key: [key.replace("cross.", "")] for key in names_of(3, "cross.transformer")
        },
        "others": {key: "zeros" for key in names_of(6, "cross.transformer")[3:]},
    }
    record = {
        "default_param_groups": {"ti-seqTransf": [{"params": grouped}]},
        "init_trick": {"deep": started},
    }
    found = variant_of("drl", record, "ti-seqTransf")
    assert (found.clip.vision.layers, found.clip.text.layers) == (5, 3)
    assert found.sizes == {"temporal_layers": 2}
    assert found.options["interaction"] == "ti" and found.options["agg_module"] == "seqTransf"
    found = variant_of("drl", record, "deep")
    assert found.clip.text.layers == 3 and found.sizes == {"cross_layers": 6}
    assert found.options["interaction"] == "xti" and found.options["agg_module"] == "None"
