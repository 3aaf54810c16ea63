"""Parameters by their paths, as sharding, groups, freezing and reports name them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax


def path_name(path: Any) -> str:
    """A key path as slash-separated text."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def hold(params: Any, frozen: Collection[str]) -> Any:
    """The params, of which the frozen ones get no gradient: it is not computed, nor exchanged."""

    def of_leaf(path: Any, leaf: Any) -> Any:
        return jax.lax.stop_gradient(leaf) if path_name(path) in frozen else leaf

    return jax.tree_util.tree_map_with_path(of_leaf, params) if frozen else params
