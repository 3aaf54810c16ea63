"""What runs leave behind, as plain arrays, and batches for single steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


def _saved_arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    import jax
    import orbax.checkpoint as ocp

    from vtr_jax.training.optimizer import path_name

    arrays = {}
    with ocp.StandardCheckpointer() as checkpointer:
        for item in ("retriever", "optimizer"):
            tree = checkpointer.restore(workdir.absolute() / "checkpoints" / str(step) / item)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                arrays[f"{item}/{path_name(path)}"] = np.asarray(leaf)
    return arrays


@pytest.fixture(scope="session")
def saved_arrays() -> Callable[[Path, int], dict[str, np.ndarray]]:
    """Reads all arrays of a checkpoint, parameters and optimizer: workdir, step."""
    return _saved_arrays


@pytest.fixture(scope="session")
def same_bits() -> Callable[..., bool]:
    """Says whether two dicts of arrays have the same names and the very same bits."""

    def compare(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bool:
        return ours.keys() == theirs.keys() and all(
            ours[name].tobytes() == theirs[name].tobytes() for name in ours
        )

    return compare


@pytest.fixture(scope="session")
def random_batch() -> Callable[[int], dict[str, np.ndarray]]:
    """Makes a batch of the shapes of `tiny_config`, another one for each seed."""

    def build(seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(4, 13, (8, 1))
        token_mask = (np.arange(12) < lengths).astype(np.int32)
        token_ids = rng.integers(1, 2000, (8, 12)) * token_mask
        np.put_along_axis(token_ids, lengths - 1, 49407, axis=1)
        return {
            "frames": rng.integers(0, 256, (8, 4, 32, 32, 3), np.uint8),
            "frame_mask": (np.arange(4) < rng.integers(1, 5, (8, 1))).astype(np.int32),
            "token_ids": token_ids.astype(np.int32),
            "token_mask": token_mask,
        }

    return build
