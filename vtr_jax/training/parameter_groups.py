"""Which parameters are updated, and at which rate and decay.

Sources: CLIP4Clip's parameter groups and its freeze_layer_num; InternVideo's freeze, which spares
its temporal blocks, and looks for the video projection and its norm under names they do not have.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax

from vtr_jax.models.parameter_paths import path_name
from vtr_jax.models.recipes import RetrieverConfig, recipe_named
from vtr_jax.training.optimizer import Group, GroupOf, is_stacked

TOWER_COMPONENTS = ("visual", "text", "logit_scale")

# What a freeze never touches: the way out of both towers.
TOWER_OUTPUTS = (
    "text/ln_final",
    "text/projection",
    "logit_scale",
    "visual/ln_post",
    "visual/projection",
)

TEMPORAL_BLOCKS = "visual/temporal/blocks"
VIDEO_PROJECTION = ("visual/ln_post", "visual/projection")


def is_clip_parameter(path: str) -> bool:
    """Whether a path belongs to CLIP itself, as opposed to what a recipe adds."""
    return path.split("/", 1)[0] in TOWER_COMPONENTS


def _is_norm(path: str) -> bool:
    return path.rsplit("/", 2)[-2].startswith("ln_") if path.count("/") else False


def parameter_groups(
    learning_rate: float, coef_lr: float, weight_decay: float, decay_norms: bool = True
) -> GroupOf:
    """Rate and decay by path: CLIP at learning_rate * coef_lr, the rest at learning_rate.

    Biases are never decayed. decay_norms: also decay LayerNorm gains and logit_scale, as the
    original programs do (their rule to spare them matches no name).
    """

    def group_of(path: str) -> Group:
        rate = learning_rate * coef_lr if is_clip_parameter(path) else learning_rate
        spared = path.endswith("bias")
        if not decay_norms:
            spared = spared or _is_norm(path) or path == "logit_scale"
        return Group(rate, 0.0 if spared else weight_decay)

    return group_of


def outputs_spared(recipe: str, train_video_projection: bool = False) -> tuple[str, ...]:
    """Beginnings of the paths that a freeze of a recipe never touches.

    train_video_projection: InternVideo's freeze also spares its video projection and the norm
    before it, as it was meant to; every other recipe's does anyway.
    """
    if recipe != "internvideo" or train_video_projection:
        return TOWER_OUTPUTS
    return tuple(path for path in TOWER_OUTPUTS if path not in VIDEO_PROJECTION)


def trainable_layers(
    path: str,
    layers: int | None,
    freeze_layer_num: int,
    spared: tuple[str, ...] = TOWER_OUTPUTS,
) -> bool | np.ndarray:
    """Whether the parameter at a path is trained; a bool a layer where it is stacked.

    freeze_layer_num: -1 freezes nothing; n >= 0 freezes embeddings, stems and the first n
    blocks of both towers, so that 0 freezes embeddings and stems alone. What is spared, a 3d
    patch embedding and temporal blocks are always trained.
    """
    if freeze_layer_num < 0 or not is_clip_parameter(path) or path.startswith(TEMPORAL_BLOCKS):
        return True
    if is_stacked(path):
        assert layers is not None
        return np.arange(layers) >= freeze_layer_num
    return path.startswith((*spared, "visual/patch_embedding_3d"))


def trainable_mask(
    params: Any,
    config: RetrieverConfig,
    freeze_layer_num: int = -1,
    freeze_nothing_in_3d: bool = False,
    train_video_projection: bool = False,
) -> Any:
    """For every parameter True, False, or a bool array over its layers.

    params: nested dict, abstract or not. Parameters that the recipe never uses are not trained,
    so that weight decay leaves them as they were. freeze_nothing_in_3d: with a 3d patch
    embedding the original's freeze freezes nothing, by mistake; True does the same.
    train_video_projection: as for outputs_spared.
    """
    spared = outputs_spared(config.recipe, train_video_projection)
    recipe = recipe_named(config.recipe)
    unused = (*recipe.unused(config), *recipe.frozen(config))
    if freeze_nothing_in_3d and config.clip.vision.linear_patch == "3d":
        freeze_layer_num = -1

    def of_leaf(path: Any, leaf: Any) -> bool | np.ndarray:
        name = path_name(path)
        if name in unused:
            return False
        count = leaf.shape[0] if leaf.ndim else None
        layers = trainable_layers(name, count, freeze_layer_num, spared)
        if isinstance(layers, np.ndarray) and layers.all() == layers.any():
            return bool(layers.all())
        return layers

    return jax.tree_util.tree_map_with_path(of_leaf, params)


def frozen_names(mask: Any) -> frozenset[str]:
    """Names of the wholly frozen parameters of a trainable_mask."""
    leaves = jax.tree_util.tree_leaves_with_path(mask)
    return frozenset(path_name(path) for path, trained in leaves if trained is False)


def freeze(
    optimizer: optax.GradientTransformation, mask: Any
) -> optax.GradientTransformationExtraArgs:
    """The optimizer over the trained parameters only.

    mask: as trainable_mask. Wholly frozen parameters have no moments and their gradients do not
    count in norms; frozen layers of a stack keep their values.
    """
    labels = jax.tree.map(lambda trained: "frozen" if trained is False else "trained", mask)
    layers = optax.chain(_zero_frozen_layers(mask), optimizer, _zero_frozen_layers(mask))
    return optax.partition({"trained": layers, "frozen": optax.set_to_zero()}, labels)


def _zero_frozen_layers(mask: Any) -> optax.GradientTransformation:
    by_path = {
        path_name(path): trained
        for path, trained in jax.tree_util.tree_flatten_with_path(mask)[0]
        if isinstance(trained, np.ndarray)
    }

    def zero(path: Any, update: Any) -> Any:
        trained = by_path.get(path_name(path))
        if trained is None:
            return update
        return update * trained.astype(update.dtype).reshape(-1, *[1] * (update.ndim - 1))

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(zero, updates))
