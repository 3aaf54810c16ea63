"""A retriever: two towers, frame aggregation and an interaction, as one pytree of parameters.

retriever = vtr_jax.load_retriever("DIR")
text = retriever.encode_text(*vtr_jax.tokenize(["a cat jumps"]))
video = retriever.encode_video(frames, frame_mask)
logits_tv = retriever.similarity(text, video)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vtr_jax.data.pixels import PIXEL_MEAN, PIXEL_STD
from vtr_jax.models.clip import TextTower, VisionTower, initial_logit_scale
from vtr_jax.models.features import TextFeatures, VideoFeatures, check_frames, check_tokens
from vtr_jax.models.module_spec import ModuleSpec, Params
from vtr_jax.models.recipes import Recipe, RetrieverConfig, recipe_named
from vtr_jax.models.recipes.recipe import bind_modules
from vtr_jax.models.runtime import Runtime


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Retriever:
    """Parameters and state with the description that gives them meaning.

    params: nested dict of float32 arrays (visual, text, logit_scale, and the recipe's own).
    state: arrays that a training step replaces but no gradient reaches; empty for most recipes.
    A pytree: jax.grad of a function of a retriever gives a retriever of gradients.
    """

    params: Params
    state: Params
    config: RetrieverConfig = dataclasses.field(metadata={"static": True})
    runtime: Runtime = dataclasses.field(default=Runtime(), metadata={"static": True})

    @property
    def recipe(self) -> Recipe:
        """The recipe this retriever follows."""
        return recipe_named(self.config.recipe)

    def with_state(self, state: Params) -> Retriever:
        """The same retriever with another state."""
        return dataclasses.replace(self, state=state)

    def with_runtime(self, **changes: Any) -> Retriever:
        """The same retriever computed otherwise: compute_dtype=..., remat=..."""
        return dataclasses.replace(self, runtime=dataclasses.replace(self.runtime, **changes))

    def encode_text(self, token_ids: ArrayLike, token_mask: ArrayLike) -> TextFeatures:
        """Encode captions.

        token_ids, token_mask: int [B,L] as tokenize gives them. Raises ValueError for shapes
        the text tower cannot read.
        """
        check_tokens(token_ids, token_mask, self.config.clip.text.context_length)
        spec = ModuleSpec(TextTower, self.config.clip.text, self.runtime)
        sentence_bd, tokens_bld = _run_text(spec, self.params["text"], jnp.asarray(token_ids))
        return TextFeatures(sentence_bd, tokens_bld, jnp.asarray(token_mask))

    def encode_video(self, frames: ArrayLike, frame_mask: ArrayLike) -> VideoFeatures:
        """Encode video clips, frame aggregation included.

        frames: [B,F,R,R,3], uint8 pixels or floats already normalised; frame_mask: [B,F] of
        0/1. Frames outside the mask are zero after normalising. Raises ValueError for shapes
        the vision tower cannot read.
        """
        frames = jnp.asarray(frames)
        check_frames(frames, frame_mask, self.config.clip.vision.image_resolution)
        mask = jnp.asarray(frame_mask)
        spec = ModuleSpec(VisionTower, self.config.clip.vision, self.runtime)
        keep = self.recipe.keeps_patches
        frames_bfd, patches_bfpd = _run_vision(spec, keep, self.params["visual"], frames, mask)
        temporal = _run_aggregation(self.config, self.runtime, self._own_params, frames_bfd, mask)
        return VideoFeatures(frames_bfd, temporal, None, patches_bfpd, mask)

    def similarity(self, text: TextFeatures, video: VideoFeatures) -> Array:
        """What the original's evaluation ranks by, float32 [T,V]: rows texts, columns videos."""
        return self.scores(text, video)["logits_tv"]

    def scores(
        self, text: TextFeatures, video: VideoFeatures, train: bool = False
    ) -> dict[str, Array]:
        """The named score matrices behind similarity, each [T,V]."""
        return _run_scores(self.config, self.runtime, train, self._own_params, text, video)

    def loss(
        self,
        text: TextFeatures,
        video: VideoFeatures,
        rng: Array | None = None,
        picks: tuple[Array, Array] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Training loss of a batch whose i-th text belongs to its i-th video.

        rng: key for dropout, None for none. picks: (text_index, video_index) for recipes that
        draw samples. Returns (loss, terms); terms["state"] is the state after the call.
        """
        del rng, picks  # no recipe built so far draws anything
        loss, terms = _run_loss(self.config, self.runtime, self._own_params, text, video)
        return loss, {**terms, "state": self.state}

    @property
    def _own_params(self) -> Params:
        return {
            name: value for name, value in self.params.items() if name not in ("visual", "text")
        }


def component_specs(config: RetrieverConfig, runtime: Runtime) -> dict[str, ModuleSpec]:
    """Every module of a retriever by the name of its parameters."""
    return {
        "visual": ModuleSpec(VisionTower, config.clip.vision, runtime),
        "text": ModuleSpec(TextTower, config.clip.text, runtime),
        **recipe_named(config.recipe).modules(config, runtime),
    }


def init_params(specs: Mapping[str, ModuleSpec], key: Array) -> Params:
    """Freshly drawn parameters of some modules, each from a key of its own."""
    keys = jax.random.split(key, len(specs))
    return {name: spec.init(k) for (name, spec), k in zip(specs.items(), keys, strict=True)}


def init_retriever(
    config: RetrieverConfig, key: Array, runtime: Runtime | None = None
) -> Retriever:
    """A retriever with freshly drawn parameters; the same key gives the same ones."""
    runtime = runtime or Runtime()
    params = init_params(component_specs(config, runtime), key)
    return Retriever({**params, "logit_scale": initial_logit_scale()}, {}, config, runtime)


def abstract_retriever(config: RetrieverConfig, runtime: Runtime | None = None) -> Retriever:
    """The retriever with ShapeDtypeStruct leaves; nothing is allocated."""
    runtime = runtime or Runtime()
    params: Params = {
        name: spec.abstract() for name, spec in component_specs(config, runtime).items()
    }
    params["logit_scale"] = jax.ShapeDtypeStruct((), jnp.float32)
    return Retriever(params, {}, config, runtime)


def normalised_frames(frames: Array, mask_bf: Array) -> Array:
    """Pixels as the vision tower reads them, float32 [B,F,R,R,3]; zero outside the mask."""
    if frames.dtype == jnp.uint8:
        frames = (frames.astype(jnp.float32) / 255.0 - PIXEL_MEAN) / PIXEL_STD
    return jnp.where(mask_bf[:, :, None, None, None] > 0, frames.astype(jnp.float32), 0.0)


# Towers, aggregation and heads compile apart: recipes with equal towers share the work.


@functools.partial(jax.jit, static_argnums=0)
def _run_text(spec: ModuleSpec, params: Params, token_ids: Array) -> tuple[Array, Array]:
    return spec.bind(params)(token_ids)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_vision(
    spec: ModuleSpec, keep_patches: bool, params: Params, frames: Array, mask: Array
) -> tuple[Array, Array | None]:
    frames_bfd, patches_bfpd = spec.bind(params)(normalised_frames(frames, mask))
    return frames_bfd, (patches_bfpd if keep_patches else None)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_aggregation(
    config: RetrieverConfig, runtime: Runtime, params: Params, frames_bfd: Array, mask: Array
) -> Array:
    recipe = recipe_named(config.recipe)
    modules = bind_modules(recipe.modules(config, runtime), params)
    return recipe.aggregate(config, modules, frames_bfd, mask)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run_scores(
    config: RetrieverConfig,
    runtime: Runtime,
    train: bool,
    params: Params,
    text: TextFeatures,
    video: VideoFeatures,
) -> dict[str, Array]:
    recipe = recipe_named(config.recipe)
    modules = bind_modules(recipe.modules(config, runtime), params)
    return recipe.scores(config, modules, params, text, video, train)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_loss(
    config: RetrieverConfig,
    runtime: Runtime,
    params: Params,
    text: TextFeatures,
    video: VideoFeatures,
) -> tuple[Array, dict[str, Array]]:
    recipe = recipe_named(config.recipe)
    modules = bind_modules(recipe.modules(config, runtime), params)
    return recipe.loss(config, modules, params, text, video)
