"""Flax's two graph modes: everything in this folder holds in both.

The second is NNX_GRAPH_MODE=false NNX_GRAPH_UPDATES=false, set before flax is imported.
"""

from __future__ import annotations

import os

import flax
import jax
import numpy as np


def asked_for(variable: str) -> bool:
    return os.environ.get(variable, "true").lower() in ("true", "1", "yes")


def test_flax_runs_in_the_mode_that_was_asked_for():
    assert flax.config.nnx_graph_mode == asked_for("NNX_GRAPH_MODE")
    assert flax.config.nnx_graph_updates == asked_for("NNX_GRAPH_UPDATES")


def test_the_tree_of_parameters_is_the_same_in_both_modes(tiny_retriever):
    """A checkpoint written in one mode is read in the other."""
    params = tiny_retriever("clip4clip", sim_header="seqTransf").params
    leaves = jax.tree_util.tree_leaves_with_path(params["aggregation"])
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(leaf)
        for path, leaf in leaves
    }
    blocks = "transformer/blocks"
    assert shapes == {
        "position_embedding": (12, 32),
        f"{blocks}/attn/qkv/kernel": (2, 32, 96),
        f"{blocks}/attn/qkv/bias": (2, 96),
        f"{blocks}/attn/out/kernel": (2, 32, 32),
        f"{blocks}/attn/out/bias": (2, 32),
        f"{blocks}/ln_1/scale": (2, 32),
        f"{blocks}/ln_1/bias": (2, 32),
        f"{blocks}/ln_2/scale": (2, 32),
        f"{blocks}/ln_2/bias": (2, 32),
        f"{blocks}/mlp/fc/kernel": (2, 32, 128),
        f"{blocks}/mlp/fc/bias": (2, 128),
        f"{blocks}/mlp/proj/kernel": (2, 128, 32),
        f"{blocks}/mlp/proj/bias": (2, 32),
    }
