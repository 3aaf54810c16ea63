"""What a recipe has to say about itself, and the complete description of a retriever."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jax import Array

from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.module_spec import ModuleSpec, Params
from vtr_jax.models.runtime import Runtime

OptionValue = str | int | float | bool | None


@dataclasses.dataclass(frozen=True)
class RetrieverConfig:
    """Everything that decides a retriever's parameters and scores, hashable.

    options: every option of the recipe, spelt as the original program's flags, sorted.
    sizes: sizes of the recipe's own modules that the towers do not tell, sorted.
    """

    recipe: str
    clip: ClipConfig
    options: tuple[tuple[str, OptionValue], ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()

    def option(self, name: str) -> OptionValue:
        """The value of one option; KeyError for a name the recipe does not have."""
        return dict(self.options)[name]

    def size(self, name: str) -> int:
        """One of the recipe's own sizes; KeyError for a name it does not have."""
        return dict(self.sizes)[name]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One system over the shared parts.

    options: its options with their defaults. sizes(clip, options): the default sizes of its own
    modules. modules(config, runtime): those modules, by the name of their parameters.
    aggregate(config, modules, frames_bfd, mask_bf): frame aggregation. scores(config, modules,
    params, text, video, train): named score matrices; "logits_tv" is what it ranks by.
    loss(config, modules, params, text, video): loss and terms. check(clip, options): raises
    ValueError for what is undefined. reads: the features that similarity reads besides the
    masks; an evaluation keeps no others. keeps_patches: encode_video gives patches. unused:
    paths of parameters that the original keeps but never reads.
    """

    name: str
    options: Mapping[str, OptionValue]
    check: Callable[[ClipConfig, Mapping[str, OptionValue]], None]
    sizes: Callable[[ClipConfig, Mapping[str, OptionValue]], dict[str, int]]
    modules: Callable[[RetrieverConfig, Runtime], dict[str, ModuleSpec]]
    aggregate: Callable[[RetrieverConfig, dict[str, Any], Array, Array], Array]
    scores: Callable[..., dict[str, Array]]
    loss: Callable[..., tuple[Array, dict[str, Array]]]
    reads: frozenset[str]
    keeps_patches: bool = False
    unused: Callable[[RetrieverConfig], tuple[str, ...]] = lambda config: ()

    def complete_options(
        self, given: Mapping[str, OptionValue], others: Iterable[str] = ()
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
        return {**self.options, **given}

    def config(
        self,
        clip: ClipConfig,
        options: Mapping[str, OptionValue] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> RetrieverConfig:
        """A checked, complete description; raises ValueError for what cannot be built."""
        complete = self.complete_options(options or {})
        self.check(clip, complete)
        all_sizes = {**self.sizes(clip, complete), **(sizes or {})}
        return RetrieverConfig(
            self.name, clip, tuple(sorted(complete.items())), tuple(sorted(all_sizes.items()))
        )


def bind_modules(specs: Mapping[str, ModuleSpec], params: Params) -> dict[str, Any]:
    """The recipe's modules with their parameters, ready to be called."""
    return {name: spec.bind(params[name]) for name, spec in specs.items()}
