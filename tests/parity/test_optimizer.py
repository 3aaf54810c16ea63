"""BertAdam, the parameter groups and the freeze against what CLIP4Clip's own code did."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.names.params import applicable_rows, original_keys
from vtr_jax.models.clip import clip_config
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import abstract_retriever
from vtr_jax.parity.cases import fill, find_cases
from vtr_jax.parity.kinds import kind_of
from vtr_jax.training.optimizer import Group, bert_adam, clip_by_global_norm, warmup_cosine
from vtr_jax.training.parameter_groups import parameter_groups, trainable_mask
from vtr_jax.training.step import MAX_LOGIT_SCALE

FOLDER = Path(os.environ.get("VTR_GOLDEN_DIR", Path(__file__).parent / "golden"))
CASES = list(find_cases(FOLDER))


def cases_of(kind):
    return [pytest.param(path, id=path.stem) for path in CASES if kind_of(path) == kind]


@pytest.mark.parametrize("path", cases_of("optimizer"))
def test_bert_adam(path):
    case = json.loads(path.read_text())
    config, salt = case["config"], case["salt"]
    arrays = dict(np.load(path.with_suffix(".npz")))
    groups = {
        key: Group(group["lr"], group["weight_decay"])
        for group in case["groups"]
        for key in group["params"]
    }
    keys = {key: shape for key, shape in case["keys"].items() if key in groups}
    schedule = warmup_cosine(config["t_total"], config["warmup_proportion"])
    moments = {name: config[name] for name in ("b1", "b2", "eps")}
    update = bert_adam(
        groups.__getitem__, schedule, max_grad_norm=config["max_grad_norm"], **moments
    )
    clamped = config["global_clip_and_logit_scale_clamp"]
    optimizer = optax.chain(clip_by_global_norm(1.0), update) if clamped else update
    params = {key: jnp.asarray(arrays[f"param/0/{key}"]) for key in keys}
    state = optimizer.init(params)
    step_fn = jax.jit(optimizer.update)

    def gradient(key, step):
        late = key.startswith("late.") and step < config["late_weight_has_gradient_from_step"]
        if late or "unused" in key:
            return None
        value = fill(salt, f"grad/{step}/{key}", keys[key]) * config["grad_scale_per_step"][step]
        sign = config["logit_scale_grad_sign"] if key.endswith("logit_scale") else 1.0
        return np.float32(value * sign)

    for step in range(config["steps"]):
        gradients = {key: gradient(key, step) for key in keys}
        updates, state = step_fn(gradients, state, params)
        params = {key: p if updates[key] is None else p + updates[key] for key, p in params.items()}
        if clamped:
            scale = jnp.minimum(params["clip.logit_scale"], MAX_LOGIT_SCALE)
            params["clip.logit_scale"] = scale
        for key, value in params.items():
            # Twelve float32 updates of size up to 0.05: a few units in the last place.
            np.testing.assert_allclose(
                value, arrays[f"param/{step + 1}/{key}"], rtol=2e-6, atol=2e-7, err_msg=key
            )
    final = state[1] if clamped else state
    for key in keys:
        if f"m/{key}" in arrays:
            np.testing.assert_allclose(final.mu[key], arrays[f"m/{key}"], rtol=1e-5, atol=1e-8)
            np.testing.assert_allclose(final.nu[key], arrays[f"v/{key}"], rtol=1e-5, atol=1e-10)
            assert int(final.count[key]) == int(arrays[f"count/{key}"])
    factors = schedule(jnp.arange(len(arrays["schedule_factor"])))
    np.testing.assert_allclose(factors, arrays["schedule_factor"], rtol=1e-6, atol=1e-7)


def config_with(vision_layers, linear_patch, head="seqTransf"):
    clip = clip_config(
        embed_dim=64,
        image_resolution=32,
        patch_size=16,
        vision_width=64,
        vision_layers=vision_layers,
        text_width=64,
        text_layers=vision_layers,
        vocab_size=16,
        linear_patch=linear_patch,
    )
    return recipe_named("clip4clip").config(
        clip, {"sim_header": head, "linear_patch": linear_patch}
    )


def frozen_keys(config, freeze_layer_num, freeze_nothing_in_3d):
    params = abstract_retriever(config).params
    mask = trainable_mask(params, config, freeze_layer_num, freeze_nothing_in_3d)
    table = NAME_TABLES["clip4clip"]
    trained = {row.ours: leaf for row, leaf in applicable_rows(table, mask_as_leaves(mask, params))}
    frozen = set()
    for row, leaf in applicable_rows(table, params):
        keys = original_keys(row, leaf)
        flags = np.broadcast_to(trained[row.ours].flags, len(keys))
        frozen |= {key for key, flag in zip(keys, flags, strict=True) if not flag}
    return frozen


class Flags:
    """A mask entry that knows the shape of its parameter, as a leaf of the params has."""

    def __init__(self, flags, leaf):
        self.flags, self.shape = flags, leaf.shape


def mask_as_leaves(mask, params):
    return jax.tree.map(Flags, mask, params)


@pytest.mark.parametrize("path", cases_of("freeze"))
def test_freeze(path):
    compared = 0
    for name, result in json.loads(path.read_text())["result"].items():
        if "freeze" not in name:
            continue
        sizes, _, freeze = name.partition("-freeze")
        layers, linear_patch = sizes.split("-")
        config = config_with(int(layers.removesuffix("layers")), linear_patch)
        expected = set(result["frozen"])
        ours = frozen_keys(config, int(freeze), freeze_nothing_in_3d=True)
        if linear_patch == "3d":
            # Never trained here, never reached by a gradient there.
            ours -= {"clip.visual.conv1.weight"}
        assert ours == expected, name
        compared += 1
    assert compared


def test_groups_are_the_originals():
    paths = cases_of("optimizer")
    if not paths:
        pytest.skip("no recorded optimizer case")
    ours = {
        "clip.positional_embedding": "text/position_embedding",
        "clip.logit_scale": "logit_scale",
        "clip.visual.class_embedding": "visual/class_embedding",
        "clip.visual.conv1.weight": "visual/patch_embedding/kernel",
        "clip.visual.ln_pre.weight": "visual/ln_pre/scale",
        "clip.visual.ln_pre.bias": "visual/ln_pre/bias",
        "clip.transformer.resblocks.0.attn.in_proj_bias": "text/transformer/blocks/attn/qkv/bias",
        "clip.transformer.resblocks.0.ln_1.weight": "text/transformer/blocks/ln_1/scale",
        "transformerClip.resblocks.0.mlp.c_fc.weight": (
            "aggregation/transformer/blocks/mlp/fc/kernel"
        ),
        "transformerClip.resblocks.0.mlp.c_fc.bias": "aggregation/transformer/blocks/mlp/fc/bias",
        "frame_position_embeddings.weight": "aggregation/position_embedding",
    }
    for parameter in paths:
        case = json.loads(parameter.values[0].read_text())
        config = case["config"]
        group_of = parameter_groups(config["lr"], config["coef_lr"], config["weight_decay"])
        for group in case["groups"]:
            for key in set(group["params"]) & set(ours):
                assert group_of(ours[key]) == Group(
                    pytest.approx(group["lr"]), group["weight_decay"]
                )
