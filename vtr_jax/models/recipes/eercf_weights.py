"""EERCF's weights: eleven flags that mix its scores, and what ranks in the end.

Scores are weak (every frame or patch gated by the text) or strong (pooled by the text). Training
adds a loss of each kind; evaluation recalls by their mixture and ranks by a sum of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from jax import Array

from vtr_jax.models.interactions.coarse_to_fine import LIFT, weighted_sum
from vtr_jax.models.recipes.recipe import Options, OptionValue, RetrieverConfig, Scores

# The eleven flags of the original, with its defaults, and the score that each one weighs.
WEAK_WEIGHTS = {
    "sentence_video": "video_weight",
    "frame_weak": "weakframe_weight",
    "patch_weak": "weakpatch_weight",
}
STRONG_WEIGHTS = {"frame_strong": "strongframe_weight", "patch_strong": "strongpatch_weight"}
CONSTRAINT_WEIGHTS = {
    "cdcr_video": "cdcl_video_weight",
    "cdcr_frame": "cdcl_frame_weight",
    "cdcr_patch": "cdcl_patch_weight",
}
# What ranks in the end: constants inside the original, in the order in which it adds them.
FINAL_WEIGHTS = {
    "frame_weak": "final_weakframe_weight",
    "frame_strong": "final_strongframe_weight",
    "patch_weak": "final_weakpatch_weight",
    "sentence_video": "final_video_weight",
}
WEIGHTS: dict[str, OptionValue] = {
    "video_weight": 0.5,
    "weakframe_weight": 0.5,
    "weakpatch_weight": 0.05,
    "strongframe_weight": 1.0,
    "strongpatch_weight": 0.0,
    "cdcl_video_weight": 1.0,
    "cdcl_frame_weight": 1.0,
    "cdcl_patch_weight": 0.0,
    "weak_loss_weight": 0.8,
    "strong_loss_weight": 0.2,
    "cdcl_loss_weight": 0.001,
    "final_weakframe_weight": 0.8,
    "final_strongframe_weight": 0.2,
    "final_weakpatch_weight": 0.2,
    "final_video_weight": 0.5,
}
# start_patch_eval: whether patches are gated strongly in evaluation; None: if they weigh.
RANKING_OPTIONS: dict[str, OptionValue] = {
    **WEIGHTS,
    "rerantopk": 50,
    "start_patch_eval": None,
}


def check_weights(options: Options) -> None:
    """Raise ValueError naming a weight, rerantopk or start_patch_eval that cannot be."""
    for name in WEIGHTS:
        if isinstance(options[name], bool) or not isinstance(options[name], int | float):
            raise ValueError(f"{name}: expected a number, got {options[name]!r}")
    count = options["rerantopk"]
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"rerantopk: expected a number of videos, 1 or more, got {count!r}")
    if options["start_patch_eval"] not in (None, True, False):
        raise ValueError(
            f"start_patch_eval: expected True, False or None, got {options['start_patch_eval']!r}"
        )


def strong_patches(config: RetrieverConfig) -> bool:
    """Whether evaluation gates patches strongly, which doubles the work of a pair."""
    chosen = config.option("start_patch_eval")
    return config.option("strongpatch_weight") > 0 if chosen is None else chosen


def _sum(
    config: RetrieverConfig, scores: Scores, names: Mapping[str, str], start: float = 0.0
) -> Array:
    weights = {score: config.option(option) for score, option in names.items()}
    return weighted_sum(scores, weights, start)


def weak_and_strong(config: RetrieverConfig, scores: Scores) -> tuple[Array, Array]:
    """The two logits of the loss. Their weights need not sum to 1: they set the temperature."""
    return _sum(config, scores, WEAK_WEIGHTS), _sum(config, scores, STRONG_WEIGHTS)


def mixed(config: RetrieverConfig, scores: Scores) -> Array:
    """Weak and strong logits as the loss weighs them: by this the second stage is chosen."""
    weak, strong = weak_and_strong(config, scores)
    return config.option("weak_loss_weight") * weak + config.option("strong_loss_weight") * strong


def constraint(config: RetrieverConfig, constraints: Scores) -> Array:
    """The Pearson constraints on whole videos, frames and patches, weighed."""
    return _sum(config, constraints, CONSTRAINT_WEIGHTS)


def final(config: RetrieverConfig, scores: Scores) -> Array:
    """What ranks the videos of the second stage: 100 and the scores by their final weights."""
    return _sum(config, scores, FINAL_WEIGHTS, start=LIFT)
