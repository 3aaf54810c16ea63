"""One training step of recipes on eight CPU devices against one device; prints JSON.

    python recipes_mesh_script.py drl-wti:fsdp emcl:all ...

Runs in a process of its own: the number of devices is fixed before JAX starts.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from importlib import metadata

if __name__ == "__main__":
    # Simpler code compiles in a quarter of the time; what is computed where stays the same.
    os.environ["XLA_FLAGS"] = (
        "--xla_force_host_platform_device_count=8 "
        "--xla_backend_optimization_level=0 "
        "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    )
    # jaxlib 0.12 has no fusion emitters to switch off, and rejects a flag it does not know.
    if metadata.version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import jax
import numpy as np
import optax

from vtr_jax.collectives import KINDS, collective_totals, collectives
from vtr_jax.hlo import read_program
from vtr_jax.models.clip import clip_config
from vtr_jax.models.parameter_paths import path_name
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import Retriever, init_retriever
from vtr_jax.models.runtime import Runtime
from vtr_jax.sharding import AXES, local_mesh, make_mesh, placement, put_batch
from vtr_jax.training.guard import refusable
from vtr_jax.training.step import StepSettings, compile_train_step, initial_train_state

MESHES = {"data": (8, 1, 1), "fsdp": (2, 4, 1), "all": (2, 2, 2)}
CASES = {
    "clip": ("clip", {}, {}),
    "clip4clip-meanP": ("clip4clip", {"sim_header": "meanP"}, {}),
    "clip4clip-3d": ("clip4clip", {"sim_header": "meanP", "linear_patch": "3d"}, {}),
    "clip4clip-seqLSTM": ("clip4clip", {"sim_header": "seqLSTM"}, {}),
    "clip4clip-seqTransf": ("clip4clip", {"sim_header": "seqTransf"}, {"temporal_layers": 2}),
    "clip4clip-tightTransf": ("clip4clip", {"sim_header": "tightTransf"}, {}),
    "drl-dp": ("drl", {"interaction": "dp"}, {}),
    "drl-ti": ("drl", {"interaction": "ti", "cdcr": 1}, {}),
    "drl-wti": ("drl", {"interaction": "wti", "cdcr": 3}, {}),
    "drl-xti": ("drl", {"interaction": "xti"}, {}),
    "backbone_tvr": ("backbone_tvr", {}, {}),
    "backbone_tvr-cached": ("backbone_tvr", {}, {}),
    # Nine stages with 32 bases make 3e-4 of the loss out of 1e-7 of the parameters, anywhere.
    "emcl": ("emcl", {"centerK": 4, "stage_num": 2}, {}),
    "emcl-accumulated": ("emcl", {"centerK": 4, "stage_num": 2}, {}),
    "eercf": ("eercf", {}, {"temporal_layers": 2, "max_frames": 3}),
    "internvideo": ("internvideo", {}, {}),
}
# Cached gradients, and the case that one device computes with the whole batch at once.
MICRO_BATCHES = {"backbone_tvr-cached": 2}
WHOLE_BATCH = {"backbone_tvr-cached": "backbone_tvr"}
# Micro-batches with negatives of their own, on one device as on eight.
ACCUMULATED = {"emcl-accumulated": 2}
# A shape tells what an array is: 17 is the patches of a frame with the class token, a last axis of
# 3 or 48 is a picture's, before and behind the cut into patches.
BATCH, FRAMES, TOKENS, RESOLUTION, PATCHES, WIDTH, VOCABULARY = 16, 3, 7, 16, 17, 64, 96

ACTIVATION_WIDTHS = [WIDTH * times // split for times in (1, 3, 4) for split in (1, 2)]


def batch():
    rng = np.random.default_rng(7)
    lengths = rng.integers(3, TOKENS + 1, BATCH)
    token_mask = (np.arange(TOKENS) < lengths[:, None]).astype(np.int32)
    token_ids = rng.integers(1, VOCABULARY - 1, (BATCH, TOKENS)) * token_mask
    token_ids[np.arange(BATCH), lengths - 1] = VOCABULARY - 1
    counts = rng.integers(1, FRAMES + 1, BATCH)
    return {
        "frames": rng.integers(0, 256, (BATCH, FRAMES, RESOLUTION, RESOLUTION, 3), np.uint8),
        "frame_mask": (np.arange(FRAMES) < counts[:, None]).astype(np.int32),
        "token_ids": token_ids.astype(np.int32),
        "token_mask": token_mask,
    }


@functools.cache
def retriever_of(case):
    """A small retriever whose arrays are NumPy, so that no run takes them over."""
    recipe, options, sizes = CASES[case]
    clip = clip_config(
        embed_dim=WIDTH,
        image_resolution=RESOLUTION,
        patch_size=4,
        vision_width=WIDTH,
        vision_layers=2,
        vision_heads=4,
        text_width=WIDTH,
        text_layers=2,
        text_heads=4,
        vocab_size=VOCABULARY,
        linear_patch=options.get("linear_patch", "2d"),
    )
    made = init_retriever(recipe_named(recipe).config(clip, options, sizes), jax.random.key(0))
    params, state = jax.tree.map(np.asarray, (made.params, made.state))
    return Retriever(params, state, made.config, Runtime(tile=8, cross_tile=8))


def leaves(tree):
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@functools.cache
def step(case, mesh_name):
    """(state after one step, metrics, program's text); the momentum is the gradient itself."""
    retriever = retriever_of(case)
    mesh = mesh_of(mesh_name)
    optimizer = refusable(optax.sgd(1e-2, momentum=0.9))
    settings = StepSettings(
        retriever.config,
        retriever.runtime,
        optimizer,
        ema_decay=0.5,
        gradient_accumulation_steps=ACCUMULATED.get(case, 1),
        cached_micro_batches=MICRO_BATCHES.get(case, 1),
    )
    state = initial_train_state(retriever, settings, mesh)
    arguments = (state, put_batch(batch(), mesh), jax.random.key(3))
    compiled = compile_train_step(settings, state, mesh).lower(*arguments).compile()
    after, metrics = compiled(*arguments)
    return after, {name: float(value) for name, value in metrics.items()}, compiled.as_text()


def mesh_of(name):
    return local_mesh() if name == "one" else make_mesh(dict(zip(AXES, MESHES[name], strict=True)))


def gradients(state):
    return {
        name.split("trace/", 1)[1]: np.asarray(leaf)
        for name, leaf in leaves(state["opt_state"]).items()
        if "trace/" in name
    }


def gradient_gap(ours, theirs):
    """Largest difference of a gradient, in units of the largest gradient of its component."""
    parts = {}
    for name, leaf in theirs.items():
        part = name.split("/", 1)[0]
        parts[part] = max(parts.get(part, 0.0), float(np.abs(leaf).max()))
    return max(
        float(np.abs(ours[name] - leaf).max()) / max(parts[name.split("/", 1)[0]], 1e-12)
        for name, leaf in theirs.items()
    )


def compare(case, mesh_name):
    mesh = mesh_of(mesh_name)
    _, metrics_one, _ = one = step(WHOLE_BATCH.get(case, case), "one")
    state, metrics, text = step(case, mesh_name)
    program = read_program(text)
    ours, theirs = gradients(state), gradients(one[0])
    assert ours.keys() == theirs.keys()
    shapes = [array.shape for _, each in program.running() for array in each.arrays]
    found = collectives(program, mesh.size)
    return {
        "metrics": [metrics, metrics_one],
        "gradient_gap": gradient_gap(ours, theirs),
        "gradients_zero": sorted(name for name, leaf in theirs.items() if not leaf.any()),
        "misplaced": [
            name
            for name, leaf in leaves(state).items()
            if not leaf.sharding.is_equivalent_to(placement(name, leaf.shape, mesh), leaf.ndim)
        ],
        "whole": sorted(
            name
            for name, leaf in leaves(state).items()
            if leaf.size >= WIDTH * WIDTH and leaf.sharding.is_fully_replicated
        ),
        "bytes": [sum(part(leaf) for leaf in jax.tree.leaves(state)) for part in (_own, _all)],
        "activations": sorted({_frames(shape) for shape in shapes if _is_activation(shape)}),
        "pictures": [
            array.shape
            for _, each in program.running()
            for array in each.arrays
            if each.opcode.removesuffix("-start") in KINDS and _is_picture(array.shape)
        ],
        "collectives": collective_totals(found),
        "unknown_loops": list(program.unknown_loops),
    }


def _own(leaf):
    return leaf.addressable_shards[0].data.nbytes


def _all(leaf):
    return leaf.nbytes


def _is_activation(shape):
    """Of the vision tower: [..., frames, 1 + patches, width] or [frames * (1 + patches), width].

    The width is that of the tower, of its queries, keys and values, of its hidden layer, or half.
    """
    return len(shape) >= 2 and shape[-2] % PATCHES == 0 and shape[-1] in ACTIVATION_WIDTHS


def _frames(shape):
    return math.prod(shape[:-1]) // PATCHES


def _is_picture(shape):
    frames = BATCH * FRAMES // 8
    several = shape[-1:] in ((3,), (48,)) and np.prod(shape) >= frames * RESOLUTION**2 * 3
    # A device has fewer than these of a micro-batch.
    return several or (len(shape) > 3 and shape[-3:] == (RESOLUTION, RESOLUTION, 3))


if __name__ == "__main__":
    pairs = [argument.split(":") for argument in sys.argv[1:]]
    json.dump({f"{case}:{mesh}": compare(case, mesh) for case, mesh in pairs}, sys.stdout)
