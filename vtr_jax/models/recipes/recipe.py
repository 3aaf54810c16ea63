"""What a recipe has to say about itself, and the complete description of a retriever."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
from jax import Array

from vtr_jax.models.clip import ClipConfig, VisionTower
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.module_spec import ModuleSpec, Params
from vtr_jax.models.runtime import Runtime
from vtr_jax.preprocessing import Preprocessing

OptionValue = str | int | float | bool | tuple[int, ...] | None
Options = Mapping[str, OptionValue]
Picks = tuple[Array, Array]
Scores = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class RetrieverConfig:
    """Everything that decides a retriever's parameters and scores, hashable.

    options: every option of the recipe, spelt as the original program's flags, sorted.
    sizes: sizes of the recipe's own modules that the towers do not tell, sorted.
    preprocessing: settings that turn videos and captions into tower input.
    assumed: one sentence per fact that was assumed because nothing stated it; not compared.
    """

    recipe: str
    clip: ClipConfig
    options: tuple[tuple[str, OptionValue], ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()
    preprocessing: Preprocessing = Preprocessing()
    assumed: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def option(self, name: str) -> Any:
        """The value of one option; KeyError for a name the recipe does not have."""
        return dict(self.options)[name]

    def size(self, name: str) -> int:
        """One of the recipe's own sizes; KeyError for a name it does not have."""
        return dict(self.sizes)[name]


@dataclasses.dataclass(frozen=True)
class Parts:
    """A retriever's parts as the functions of its recipe receive them.

    modules: the recipe's own modules, bound to their parameters. params: the parameters outside
    the towers (logit_scale among them). state: what a training step replaces.
    """

    config: RetrieverConfig
    runtime: Runtime
    modules: dict[str, Any]
    params: Params
    state: Params


def clip_vision_tower(config: RetrieverConfig, runtime: Runtime) -> ModuleSpec:
    """CLIP's own vision tower, which all recipes but one use."""
    return ModuleSpec(VisionTower, config.clip.vision, runtime)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One system over the shared parts.

    options: its options with their defaults. check(clip, options): raises ValueError for what is
    undefined. sizes(clip, options): the default sizes of its own modules. modules(config,
    runtime): those modules, by the name of their parameters. aggregate(parts, frames_bfd,
    mask_bf): frame aggregation. scores(parts, text, video, train): named score matrices [T,V].
    loss(parts, text, video, rng, picks): loss and terms, "state" among them if it changes.
    reads(config): the features that similarity reads besides the masks; an evaluation keeps no
    others. similarity(parts, text, video): what evaluation ranks by; None: logits_tv of the scores.
    keeps_patches(config): encode_video gives patches. masks_padding: the text tower hides padding
    tokens. projects_tokens(config): text tokens are in the joint space. draws(config): the loss
    draws samples. state(config, key): what its state starts as. row_multiple(config): the texts
    and videos that are compared in one go where that decides the scores, or None.
    unused(config): paths of parameters that the original keeps but never reads. frozen(config):
    paths below visual/ that no gradient reaches.
    vision_tower(config, runtime): the tower that reads frames.
    """

    name: str
    options: Options
    check: Callable[[ClipConfig, Options], None]
    sizes: Callable[[ClipConfig, Options], dict[str, int]]
    modules: Callable[[RetrieverConfig, Runtime], dict[str, ModuleSpec]]
    aggregate: Callable[[Parts, Array, Array], Array]
    scores: Callable[[Parts, TextFeatures, VideoFeatures, bool], Scores]
    loss: Callable[
        [Parts, TextFeatures, VideoFeatures, Array | None, Picks | None], tuple[Array, Params]
    ]
    reads: Callable[[RetrieverConfig], frozenset[str]]
    similarity: Callable[[Parts, TextFeatures, VideoFeatures], Array] | None = None
    keeps_patches: Callable[[RetrieverConfig], bool] = lambda config: False
    masks_padding: bool = False
    projects_tokens: Callable[[RetrieverConfig], bool] = lambda config: True
    draws: Callable[[RetrieverConfig], bool] = lambda config: False
    state: Callable[[RetrieverConfig, Array], Params] = lambda config, key: {}
    row_multiple: Callable[[RetrieverConfig], int | None] = lambda config: None
    unused: Callable[[RetrieverConfig], tuple[str, ...]] = lambda config: ()
    frozen: Callable[[RetrieverConfig], tuple[str, ...]] = lambda config: ()
    vision_tower: Callable[[RetrieverConfig, Runtime], ModuleSpec] = clip_vision_tower

    def complete_options(
        self, given: Options, others: Iterable[str] = ()
    ) -> dict[str, OptionValue]:
        """Defaults overlaid with what was given.

        Raises ValueError for an unknown name, suggesting the nearest of the recipe's options
        and of others, names that are known elsewhere.
        """
        for name in given:
            if name not in self.options:
                near = difflib.get_close_matches(name, [*self.options, *others], n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                known = ", ".join(sorted(self.options)) or "none"
                raise ValueError(
                    f"recipe {self.name} has no option {name!r} (it has: {known}){hint}"
                )
        return {name: plain_value(name, v) for name, v in {**self.options, **given}.items()}

    def config(
        self,
        clip: ClipConfig,
        options: Options | None = None,
        sizes: Mapping[str, int] | None = None,
        preprocessing: Preprocessing | None = None,
        assumed: Iterable[str] = (),
    ) -> RetrieverConfig:
        """Return a checked, complete description.

        preprocessing: None for the defaults at the towers' resolution and context length. Raises
        ValueError for what cannot be built, and for preprocessing that the towers cannot read.
        """
        given = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in (options or {}).items()
        }
        complete = self.complete_options(given)
        self.check(clip, complete)
        all_sizes = {**self.sizes(clip, complete), **(sizes or {})}
        preprocessing = preprocessing or default_preprocessing(clip, all_sizes)
        check_preprocessing(clip, preprocessing)
        return RetrieverConfig(
            self.name,
            clip,
            tuple(sorted(complete.items())),
            tuple(sorted(all_sizes.items())),
            preprocessing,
            tuple(assumed),
        )


def default_preprocessing(clip: ClipConfig, sizes: Mapping[str, int]) -> Preprocessing:
    """Return OpenAI's preprocessing at the towers' resolution and context length.

    sizes: of the recipe's modules; max_frames is theirs if they fix it.
    """
    default = Preprocessing()
    return Preprocessing(
        max_words=max(3, min(default.max_words, clip.text.context_length)),
        resolution=clip.vision.image_resolution,
        max_frames=sizes.get("max_frames", default.max_frames),
    )


def check_preprocessing(clip: ClipConfig, preprocessing: Preprocessing) -> None:
    """Raise ValueError if the towers cannot read what the preprocessing produces."""
    resolution = clip.vision.image_resolution
    if preprocessing.resolution != resolution:
        raise ValueError(
            f"preprocessing: frames of {preprocessing.resolution} pixels, but the vision tower "
            f"reads {resolution}; set resolution={resolution}"
        )


def plain_value(name: str, value: Any) -> OptionValue:
    """An option's value as a description keeps it: plain Python, tuples for lists and arrays.

    Raises ValueError for a number that is not finite.
    """
    if isinstance(value, list | tuple | np.ndarray | Array) and np.ndim(value):
        value = tuple(np.ravel(np.asarray(value)).tolist())
    elif isinstance(value, np.generic | np.ndarray | Array):
        value = value.item()
    numbers = value if isinstance(value, tuple) else (value,)
    if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
        raise ValueError(f"{name}: expected finite numbers, got {value!r}")
    return value


def check_choice(option: str, value: OptionValue, choices: Collection[OptionValue]) -> None:
    """Raise ValueError naming the choices if an option has none of them."""
    if value not in choices or isinstance(value, bool) != all(isinstance(c, bool) for c in choices):
        known = ", ".join(str(choice) for choice in choices)
        raise ValueError(f"{option}: expected one of {known}, got {value!r}")


def bind_modules(specs: Mapping[str, ModuleSpec], params: Params) -> dict[str, Any]:
    """The recipe's modules with their parameters, ready to be called."""
    return {name: spec.bind(params[name]) for name, spec in specs.items()}
