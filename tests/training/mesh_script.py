"""Three training steps on meshes of eight CPU devices against one device; prints JSON.

Runs in a process of its own: the number of devices is fixed before JAX starts.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path

if __name__ == "__main__":
    # Simpler code compiles in a quarter of the time; what is computed where stays the same.
    os.environ["XLA_FLAGS"] = (
        "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    )
    # jaxlib 0.12 has no fusion emitters to switch off, and rejects a flag it does not know.
    if metadata.version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import jax
import numpy as np
from jax.sharding import Mesh

from vtr_jax.evaluation.encode import encode_captions, encode_clips, rounded_batch_size
from vtr_jax.models.parameter_paths import path_name
from vtr_jax.models.retriever import Retriever
from vtr_jax.sharding import AXES, make_mesh, placement, put_batch
from vtr_jax.training.checkpoints import RunCheckpoints
from vtr_jax.training.command import read_config
from vtr_jax.training.optimizer import warmup_cosine
from vtr_jax.training.run import make_optimizer, starting_retriever
from vtr_jax.training.step import StepSettings, compile_train_step, initial_train_state

SHAPES = {"data": (8, 1, 1), "fsdp": (2, 4, 1), "all": (2, 2, 2)}
BATCH, FRAMES, TOKENS, STEPS, RESOLUTION = 8, 3, 12, 3, 32
EOT = 49407


def batch_of(step):
    rng = np.random.default_rng([7, step])
    lengths = rng.integers(3, TOKENS + 1, BATCH)
    token_mask = (np.arange(TOKENS) < lengths[:, None]).astype(np.int32)
    token_ids = rng.integers(1, 2000, (BATCH, TOKENS)) * token_mask
    token_ids[np.arange(BATCH), lengths - 1] = EOT
    frames = rng.integers(0, 256, (BATCH, FRAMES, RESOLUTION, RESOLUTION, 3), np.uint8)
    counts = rng.integers(1, FRAMES + 1, BATCH)
    return {
        "frames": frames,
        "frame_mask": (np.arange(FRAMES) < counts[:, None]).astype(np.int32),
        "token_ids": token_ids.astype(np.int32),
        "token_mask": token_mask,
    }


def leaves(tree):
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def train(config, mesh):
    """(settings, state after the steps, metrics of every step)."""
    retriever = starting_retriever(config)
    optimizer = make_optimizer(config, retriever, warmup_cosine(-1, 0))
    settings = StepSettings(retriever.config, retriever.runtime, optimizer, ema_decay=0.9)
    state = initial_train_state(retriever, settings, mesh)
    step_fn = compile_train_step(settings, state, mesh)
    history = []
    for step in range(STEPS):
        arrays = put_batch(batch_of(step), mesh)
        state, metrics = step_fn(state, arrays, jax.random.key(step))
        history.append({name: float(value) for name, value in metrics.items()})
    return settings, state, history


def differences(ours, theirs):
    """Largest and mean absolute difference of all numbers of two trees."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    gaps = np.concatenate([np.ravel(np.asarray(a) - np.asarray(b)) for a, b in pairs])
    return float(np.abs(gaps).max()), float(np.abs(gaps).mean())


def misplaced(state, mesh):
    """Leaves that do not lie where the placement table says."""
    return [
        path
        for path, leaf in leaves(state).items()
        if not leaf.sharding.is_equivalent_to(placement(path, leaf.shape, mesh), leaf.ndim)
    ]


def shard_shapes(state):
    """Shapes of one device's part, of what must not be whole on a mesh."""
    return {
        path: (leaf.shape, leaf.addressable_shards[0].data.shape)
        for path, leaf in leaves(state).items()
        if path.endswith(("attn/qkv/kernel", "token_embedding/embedding"))
    }


def restored_equals(state, meshes):
    """Whether what was saved comes back bit by bit on each of other meshes, laid out for it."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = RunCheckpoints(Path(folder), keep_last=1, metric="t2v R@1")
        checkpoints.save(STEPS, state)
        checkpoints.finish()
        restored = {name: checkpoints.restore(STEPS, state, mesh) for name, mesh in meshes.items()}
        checkpoints.close()
    return {
        name: same_bits(state, restored[name]) and not misplaced(restored[name], mesh)
        for name, mesh in meshes.items()
    }


def same_bits(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def encoded(settings, state, mesh):
    """Features of eleven captions and clips: the last batch is padded."""
    retriever = Retriever(state["params"], state["state"], settings.config, settings.runtime)
    size = rounded_batch_size(BATCH - 1, mesh)
    batches = [batch_of(step) for step in (10, 11)]
    valid = [np.arange(BATCH) < count for count in (8, 3)]
    rows = [
        b | {"valid": v, "clip_index": np.arange(size)} for b, v in zip(batches, valid, strict=True)
    ]
    return encode_captions(retriever, rows, mesh), encode_clips(retriever, rows, mesh)


def compare(head):
    # The demo's towers, with fewer patches a frame.
    config = read_config(f"demo:{head}", [f"--config.clip.image_resolution={RESOLUTION}"])
    one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), AXES)
    settings, reference, history = train(config, one)
    meshes = {
        name: make_mesh(dict(zip(AXES, shape, strict=True))) for name, shape in SHAPES.items()
    }
    report = {"one": {"history": history}}
    for name, mesh in meshes.items():
        _, state, history = train(config, mesh)
        report[name] = {
            "history": history,
            "params": differences(state["params"], reference["params"]),
            "misplaced": misplaced(state, mesh),
            "parts": shard_shapes(state),
        }
    # The state is that of the last mesh, (2,2,2).
    report["restored"] = restored_equals(state, {"fsdp": meshes["fsdp"], "one": one})
    if head == "meanP":
        whole, split = encoded(settings, reference, one), encoded(settings, state, mesh)
        report["features"] = differences(whole, split)
        frames = put_batch(batch_of(0), mesh)["frames"]
        report["batch"] = [frames.shape, frames.addressable_shards[0].data.shape]
    return report


if __name__ == "__main__":
    json.dump({head: compare(head) for head in ("meanP",)}, sys.stdout)
