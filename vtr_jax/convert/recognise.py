"""Which program a checkpoint comes from, told by its names.

Several programs write files with the same names, and scoring by another's rules would give wrong
results without any error: where names leave a choice that matters, the recipe must be given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from vtr_jax.convert.merge import is_internvideo
from vtr_jax.convert.sizes import PROJECTIONS, Shapes
from vtr_jax.convert.told import told_aggregation, told_cross, told_token_weights
from vtr_jax.models.recipes import RECIPES

_PREFIX = "clip."
DRL_LAYERS = 4  # of its temporal Transformer and its cross-encoder: no flag changes them


@dataclasses.dataclass(frozen=True)
class Recognised:
    """The recipe of a checkpoint, and which names said so."""

    recipe: str
    reason: str

    def __str__(self) -> str:
        return f"recognised as {self.recipe}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Marks:
    """What in a checkpoint's names sets one program apart from another.

    prefixed: CLIP lies under `clip.`; only_towers: and nothing else is there. token_weights: layers
    of the heads that weigh tokens and frames, 0 for none. interaction_head: similarity_dense.
    """

    prefixed: bool
    only_towers: bool
    temporal_token: bool
    gating: bool
    token_weights: int
    cross_layers: int
    interaction_head: bool
    aggregation: str
    temporal_layers: int
    three_d: bool

    def describe(self) -> str:
        """The marks that are there, in words."""
        found = {
            "visual.transformer.temporal_cls_token": self.temporal_token,
            "global_mat_weight": self.gating,
            f"text_weight_fc of {self.token_weights} layers": self.token_weights,
            f"cross of {self.cross_layers} layers": self.cross_layers,
            "similarity_dense": self.interaction_head,
            "lstm_visual": self.aggregation == "seqLSTM",
            f"transformerClip of {self.temporal_layers} layers": self.temporal_layers,
            "visual.conv2": self.three_d,
        }
        words = [mark for mark, there in found.items() if there]
        towers = "CLIP under 'clip.'" if self.prefixed else "CLIP's own names"
        return f"{towers} with {', '.join(words)}" if words else f"{towers} and nothing else"


def marks_of(shapes: Shapes) -> Marks:
    """The marks of a checkpoint, by its names and shapes."""
    aggregation, sizes = told_aggregation(shapes)
    return Marks(
        prefixed=any(_PREFIX + name in shapes for name in PROJECTIONS),
        only_towers=all(name.startswith(_PREFIX) for name in shapes),
        temporal_token=is_internvideo(shapes),
        gating="global_mat_weight" in shapes and "frame_logit_weight" in shapes,
        token_weights=told_token_weights(shapes),
        cross_layers=told_cross(shapes).get("cross_layers", 0),
        interaction_head=any(name.startswith("similarity_dense.") for name in shapes),
        aggregation=aggregation,
        temporal_layers=sizes.get("temporal_layers", 0),
        three_d=any(name.endswith("visual.conv2.weight") for name in shapes),
    )


def _shared(marks: Marks) -> bool:
    """Whether it is of the family with CLIP under a prefix and no tower or gate of its own."""
    return marks.prefixed and not marks.temporal_token and not marks.gating


def _is_clip4clip(marks: Marks) -> bool:
    head = bool(marks.cross_layers)
    one_head = not (head and marks.aggregation != "none") and marks.interaction_head == head
    return _shared(marks) and not marks.token_weights and one_head


def _is_drl(marks: Marks) -> bool:
    depths = {marks.temporal_layers, marks.cross_layers} <= {0, DRL_LAYERS}
    both = marks.token_weights and marks.interaction_head
    return _shared(marks) and depths and not both


def _is_backbone_tvr(marks: Marks) -> bool:
    return _shared(marks) and marks.token_weights == 2 and not marks.interaction_head


def _is_emcl(marks: Marks) -> bool:
    return _shared(marks) and not marks.token_weights and not marks.interaction_head


_FITS: dict[str, Callable[[Marks], bool]] = {
    "clip": lambda marks: (
        not marks.temporal_token
        and (not marks.prefixed or (marks.only_towers and not marks.three_d))
    ),
    "clip4clip": _is_clip4clip,
    "drl": _is_drl,
    "backbone_tvr": _is_backbone_tvr,
    "emcl": _is_emcl,
    "eercf": lambda marks: marks.prefixed and marks.gating,
    "internvideo": lambda marks: marks.temporal_token,
}

# Both score such a file alike, and each program loads the other's.
_EQUAL = ("drl", "backbone_tvr")


def recognise(shapes: Shapes, what: str, options: Collection[str] = ()) -> Recognised:
    """The recipe that a checkpoint's names and shapes belong to.

    shapes: by original key. options: names of options that the caller gives; programs that do not
    have them are ruled out where several fit. Raises ValueError that asks for the recipe where
    programs that score differently write the same names, or where no known program writes them.
    """
    marks = marks_of(shapes)
    fitting = [name for name, fits in _FITS.items() if fits(marks)]
    if len(fitting) > 1 and options:
        fitting = [name for name in fitting if _has_options(name, options)] or fitting
    if fitting == list(_EQUAL):
        reason = (
            f"{marks.describe()} (as backbone_tvr's, which scores alike: --recipe=backbone_tvr)"
        )
        return _registered("drl", reason, what)
    if len(fitting) == 1:
        return _registered(fitting[0], marks.describe(), what)
    known = [name for name in fitting or RECIPES if name in RECIPES]
    ask = " or ".join(f"--recipe={name}" for name in known)
    written = f"{' and '.join(fitting)} write such names" if fitting else "no known program's names"
    raise ValueError(f"{what}: {marks.describe()}: {written}; say which: {ask}")


def _has_options(recipe: str, options: Collection[str]) -> bool:
    return recipe in RECIPES and set(options) <= set(RECIPES[recipe].options)


def _registered(recipe: str, reason: str, what: str) -> Recognised:
    if recipe not in RECIPES:
        raise ValueError(
            f"{what}: a file of {recipe} ({reason}), which cannot be converted yet; recipes: "
            f"{', '.join(RECIPES)}"
        )
    return Recognised(recipe, reason)
