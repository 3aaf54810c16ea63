"""What turns encoded texts and videos into the matrix that is ranked: the recipe, or EMCL on top.

EMCL as a plug-in needs one vector a text and one a video, which every retriever has: the sentence,
and what the tower gives for a clip or else the mean of its frames. Source: EMCL's inference module.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.interactions.expectation_maximisation import EmSettings, emcl
from vtr_jax.models.interactions.mean_pooling import l2_normalise, mean_frame
from vtr_jax.models.recipes import RetrieverConfig, recipe_named
from vtr_jax.models.recipes.emcl import fresh_mu
from vtr_jax.models.retriever import Retriever
from vtr_jax.models.tiling import map_blocks


class Scoring(Protocol):
    """A way to compare texts and videos; hashable, so that it compiles once."""

    def reads(self, config: RetrieverConfig) -> frozenset[str]:
        """The features it reads besides the masks."""

    def row_multiple(self, config: RetrieverConfig) -> int | None:
        """How many texts and videos are compared in one go where that decides the scores."""

    def logits(self, retriever: Retriever, text: TextFeatures, video: VideoFeatures) -> Array:
        """The matrix [T,V]."""


@dataclasses.dataclass(frozen=True)
class RecipeScoring:
    """What the recipe's original ranks by."""

    def reads(self, config: RetrieverConfig) -> frozenset[str]:
        """As the recipe says."""
        return recipe_named(config.recipe).reads(config)

    def row_multiple(self, config: RetrieverConfig) -> int | None:
        """As the recipe says."""
        return recipe_named(config.recipe).row_multiple(config)

    def logits(self, retriever: Retriever, text: TextFeatures, video: VideoFeatures) -> Array:
        """The retriever's similarity."""
        return retriever.similarity(text, video)


@dataclasses.dataclass(frozen=True)
class EmclScoring:
    """EMCL over the features of one block of texts and videos, then scaled cosines.

    K: bases. stage_num: EM iterations. lamd: softmax temperature. beta: share of what is put back.
    seed: of the bases' random signs. batch_size_val: texts and videos a block, which decides the
    scores. momentum: of the bases in training, without effect here. Names and defaults are the
    original flags. Raises ValueError for values out of range.
    """

    K: int = 16
    stage_num: int = 5
    lamd: float = 1.0
    beta: float = 1.0
    seed: int = 42
    batch_size_val: int = 64
    momentum: float = 0.9

    def __post_init__(self) -> None:
        for name in ("K", "stage_num", "batch_size_val"):
            if getattr(self, name) < 1:
                raise ValueError(f"emcl {name}: expected 1 or more, got {getattr(self, name)}")
        if self.lamd <= 0:
            raise ValueError(f"emcl lamd: expected a positive number, got {self.lamd}")
        if self.seed < 0:
            raise ValueError(f"emcl seed: expected 0 or more, got {self.seed}")

    @classmethod
    def parse(cls, text: str) -> EmclScoring:
        """From "K=7,stage_num=10,lamd=0.1,beta=4"; "" for the defaults.

        Raises ValueError naming what is known for anything else.
        """
        kinds: dict[str, type[int] | type[float]] = {
            name: type(value) for name, value in dataclasses.asdict(cls()).items()
        }
        values: dict[str, Any] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name not in kinds:
                raise ValueError(f"--emcl: expected {', '.join(kinds)}; got {name!r}")
            try:
                values[name] = kinds[name](value)
            except ValueError as error:
                wanted = kinds[name].__name__
                raise ValueError(f"--emcl: {name} expects {wanted}, got {value!r}") from error
        return cls(**values)

    def __str__(self) -> str:
        values = {k: v for k, v in dataclasses.asdict(self).items() if k != "momentum"}
        return ", ".join(f"{name} {value:g}" for name, value in values.items())

    def reads(self, config: RetrieverConfig) -> frozenset[str]:
        """One vector a text and one a video."""
        return frozenset({"sentence", "temporal", "pooled"})

    def row_multiple(self, config: RetrieverConfig) -> int:
        """batch_size_val."""
        return self.batch_size_val

    def logits(self, retriever: Retriever, text: TextFeatures, video: VideoFeatures) -> Array:
        """Blocks of batch_size_val texts and videos, in the given order."""
        pooled_vd = video.pooled
        if pooled_vd is None:
            pooled_vd = mean_frame(video.temporal, video.mask)
        scale = jnp.exp(retriever.params["logit_scale"])
        mu_k = jnp.asarray(fresh_mu(self.seed, self.K)[0])
        logits_tv = map_blocks(
            lambda text_td, video_vd: self.block_cosines(text_td, video_vd, mu_k),
            l2_normalise(text.sentence),
            l2_normalise(pooled_vd),
            self.batch_size_val,
        )
        return scale * logits_tv

    def block_cosines(self, text_td: Array, video_vd: Array, mu_k: Array) -> Array:
        """Products of normalised vectors after EMCL over all of them, [T,V]."""
        settings = EmSettings(self.stage_num, self.lamd, self.beta, self.momentum)
        rows_nd = emcl(jnp.concatenate([video_vd, text_td]), mu_k, settings)[0]
        count_v = video_vd.shape[0]
        return jnp.einsum("td,vd->tv", rows_nd[count_v:], rows_nd[:count_v], precision="highest")


@functools.partial(jax.jit, static_argnums=0)
def scored(
    scoring: Scoring, retriever: Retriever, text: TextFeatures, video: VideoFeatures
) -> Array:
    """The matrix [T,V] of these texts and videos, compiled once a shape."""
    return scoring.logits(retriever, text, video)


RECIPE_SCORING = RecipeScoring()
