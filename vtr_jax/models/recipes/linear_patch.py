"""The option linear_patch: patches of one frame (2d), or of three neighbouring ones (3d)."""

from __future__ import annotations

from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.recipes.recipe import Options, OptionValue, RetrieverConfig, check_choice

LINEAR_PATCHES = ("2d", "3d")
LINEAR_PATCH_OPTIONS: dict[str, OptionValue] = {"linear_patch": "2d"}


def check_linear_patch(clip: ClipConfig, options: Options) -> None:
    """Raise ValueError if linear_patch is unknown, or is not what the tower has."""
    check_choice("linear_patch", options["linear_patch"], LINEAR_PATCHES)
    if options["linear_patch"] != clip.vision.linear_patch:
        raise ValueError(
            f"linear_patch={options['linear_patch']} contradicts a {clip.vision.linear_patch} "
            "patch embedding"
        )


def unused_patch_parameters(config: RetrieverConfig) -> tuple[str, ...]:
    """Paths that the originals keep but never read: CLIP's own embedding beside a 3d one."""
    three_d = config.clip.vision.linear_patch == "3d"
    return ("visual/patch_embedding/kernel",) if three_d else ()
