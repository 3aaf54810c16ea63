"""What makes each system itself: options, extra modules, scores. One file a recipe."""

from __future__ import annotations

from vtr_jax.models.recipes.backbone_tvr import BACKBONE_TVR
from vtr_jax.models.recipes.clip import CLIP
from vtr_jax.models.recipes.clip4clip import CLIP4CLIP
from vtr_jax.models.recipes.drl import DRL
from vtr_jax.models.recipes.eercf import EERCF
from vtr_jax.models.recipes.emcl import EMCL
from vtr_jax.models.recipes.internvideo import INTERNVIDEO
from vtr_jax.models.recipes.recipe import Recipe, RetrieverConfig

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (CLIP, CLIP4CLIP, DRL, BACKBONE_TVR, EMCL, EERCF, INTERNVIDEO)
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name; raises ValueError listing the known ones."""
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]


__all__ = ["RECIPES", "Recipe", "RetrieverConfig", "recipe_named"]
