"""A retriever: two towers, frame aggregation and an interaction, as one pytree of parameters.

retriever = vtr_jax.load_retriever("DIR")
text = retriever.encode_text(*retriever.tokenize(["a cat jumps"]))
frames, frame_mask = retriever.read_video("holiday.mp4")
video = retriever.encode_video(frames[None], frame_mask[None])
logits_tv = retriever.similarity(text, video)
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vtr_jax.models.clip import TextTower, initial_logit_scale
from vtr_jax.models.features import (
    TextFeatures,
    VideoFeatures,
    VisionFeatures,
    check_frames,
    check_pairs,
    check_sides,
    check_tokens,
)
from vtr_jax.models.module_spec import ModuleSpec, Params
from vtr_jax.models.parameter_paths import hold
from vtr_jax.models.recipes import Recipe, RetrieverConfig, recipe_named
from vtr_jax.models.recipes.recipe import OptionValue, Parts, Picks, bind_modules
from vtr_jax.models.runtime import Runtime
from vtr_jax.preprocessing import OPENAI_PIXELS, PixelScale, Preprocessing


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

    @property
    def preprocessing(self) -> Preprocessing:
        """Settings that turn videos and captions into tower input."""
        return self.config.preprocessing

    def with_state(self, state: Params) -> Retriever:
        """The same retriever with another state."""
        return dataclasses.replace(self, state=state)

    def with_runtime(self, **changes: Any) -> Retriever:
        """The same retriever computed otherwise: compute_dtype=..., remat=..."""
        return dataclasses.replace(self, runtime=dataclasses.replace(self.runtime, **changes))

    def with_options(self, **changes: OptionValue) -> Retriever:
        """The same parameters read with other options: rerantopk=..., video_weight=...

        Raises ValueError for options that the recipe does not have, that it cannot be computed
        with, or that need other parameters.
        """
        options = {**dict(self.config.options), **changes}
        config = self.recipe.config(
            self.config.clip,
            options,
            dict(self.config.sizes),
            self.config.preprocessing,
            self.config.assumed,
        )
        if component_specs(config, self.runtime) != component_specs(self.config, self.runtime):
            changed = ", ".join(f"{name}={value}" for name, value in changes.items())
            raise ValueError(f"{changed}: such a {config.recipe} has other parameters")
        return dataclasses.replace(self, config=config)

    def read_video(
        self,
        path: str | os.PathLike[str],
        start: float | None = None,
        end: float | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read one clip of a video file by this retriever's preprocessing.

        start, end: seconds; None = from the beginning, to the end. Returns frames uint8
        [F,R,R,3] and frame_mask int32 [F]. Raises UnreadableVideo or ValueError as read_video.
        """
        from vtr_jax.data.preprocess import read_preprocessed

        return read_preprocessed(path, self.preprocessing, start, end)

    def tokenize(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and mask of captions, int32 [T,L], by this retriever's preprocessing.

        Raises ValueError as tokenize.
        """
        from vtr_jax.data.preprocess import tokenize_preprocessed

        return tokenize_preprocessed(texts, self.preprocessing)

    def encode_text(self, token_ids: ArrayLike, token_mask: ArrayLike) -> TextFeatures:
        """Encode captions.

        token_ids, token_mask: int [B,L] as tokenize gives them. Raises ValueError for shapes
        the text tower cannot read.
        """
        check_tokens(token_ids, token_mask, self.config.clip.text.context_length)
        spec = ModuleSpec(TextTower, self.config.clip.text, self.runtime)
        mask = jnp.asarray(token_mask)
        hide = mask if self.recipe.masks_padding else None
        projects = self.recipe.projects_tokens(self.config)
        ids = jnp.asarray(token_ids)
        sentence_bd, tokens_bld = _run_text(spec, projects, self.params["text"], ids, hide)
        return TextFeatures(sentence_bd, tokens_bld, mask)

    def encode_video(self, frames: ArrayLike, frame_mask: ArrayLike) -> VideoFeatures:
        """Encode video clips, frame aggregation included.

        frames: [B,F,R,R,3], uint8 pixels or floats already normalised; frame_mask: [B,F] of
        0/1. Frames outside the mask are zero after normalising. Raises ValueError for shapes
        the vision tower cannot read.
        """
        return self.aggregate(self.encode_frames(frames, frame_mask), frame_mask)

    def encode_frames(self, frames: ArrayLike, frame_mask: ArrayLike) -> VisionFeatures:
        """What the vision tower alone makes of frames; arguments and errors as encode_video."""
        frames = jnp.asarray(frames)
        check_frames(frames, frame_mask, self.config.clip.vision.image_resolution)
        spec = self.recipe.vision_tower(self.config, self.runtime)
        keep = self.recipe.keeps_patches(self.config)
        params = hold(self.params, self.recipe.frozen(self.config))["visual"]
        scale = self.preprocessing.pixel_scale
        return _run_vision(spec, keep, params, frames, jnp.asarray(frame_mask), scale)

    def aggregate(self, vision: VisionFeatures, frame_mask: ArrayLike) -> VideoFeatures:
        """Relate the tower's frames in time: the second half of encode_video."""
        mask = jnp.asarray(frame_mask)
        temporal = _run_aggregation(
            self._head_config, self.runtime, self._own_params, vision.frames, mask
        )
        return VideoFeatures(vision.frames, temporal, vision.pooled, vision.patches, mask)

    def similarity(self, text: TextFeatures, video: VideoFeatures) -> Array:
        """What the original's evaluation ranks by, float32 [T,V]: rows texts, columns videos.

        Raises ValueError for arguments in another order, or that are no features.
        """
        check_sides(text, video)
        return _run_similarity(
            self._head_config, self.runtime, self._own_params, self.state, text, video
        )

    def scores(
        self, text: TextFeatures, video: VideoFeatures, train: bool = False
    ) -> dict[str, Array]:
        """The named score matrices behind similarity, each [T,V]; train: as the loss sees them.

        Raises ValueError as similarity does.
        """
        check_sides(text, video)
        return _run_scores(
            self._head_config, self.runtime, train, self._own_params, self.state, text, video
        )

    def loss(
        self,
        text: TextFeatures,
        video: VideoFeatures,
        rng: Array | None = None,
        picks: Picks | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Training loss of a batch whose i-th text belongs to its i-th video.

        rng: key for dropout and draws, None for no dropout. picks: (text_index, video_index) for
        recipes that draw samples, int [B] each. Returns (loss, terms); terms["state"] is the state
        after the call. Raises ValueError if the recipe draws and has neither rng nor picks, and
        for texts, videos and picks that do not pair up.
        """
        if rng is None and picks is None and self.recipe.draws(self.config):
            raise ValueError(
                f"the loss of this {self.config.recipe} draws samples: pass "
                "rng=jax.random.key(...) or picks=(text_index, video_index)"
            )
        check_sides(text, video)
        check_pairs(text, video, picks)
        loss, terms = _run_loss(
            self._head_config, self.runtime, self._own_params, self.state, text, video, rng, picks
        )
        return loss, {"state": self.state, "cdcr": jnp.zeros(()), **terms}

    @property
    def _head_config(self) -> RetrieverConfig:
        """The config without preprocessing, so that heads compile once for all of them."""
        return dataclasses.replace(self.config, preprocessing=Preprocessing(), assumed=())

    @property
    def _own_params(self) -> Params:
        return {
            name: value for name, value in self.params.items() if name not in ("visual", "text")
        }


def component_specs(config: RetrieverConfig, runtime: Runtime) -> dict[str, ModuleSpec]:
    """Every module of a retriever by the name of its parameters."""
    recipe = recipe_named(config.recipe)
    return {
        "visual": recipe.vision_tower(config, runtime),
        "text": ModuleSpec(TextTower, config.clip.text, runtime),
        **recipe.modules(config, runtime),
    }


def init_params(specs: Mapping[str, ModuleSpec], key: Array) -> Params:
    """Freshly drawn parameters of some modules, each from a key of its own."""
    keys = jax.random.split(key, len(specs))
    return {name: spec.init(k) for (name, spec), k in zip(specs.items(), keys, strict=True)}


def initial_state(config: RetrieverConfig, key: Array) -> Params:
    """The state a fresh retriever has; {} for most recipes."""
    return recipe_named(config.recipe).state(config, key)


def init_retriever(
    config: RetrieverConfig, key: Array, runtime: Runtime | None = None
) -> Retriever:
    """A retriever with freshly drawn parameters; the same key gives the same ones."""
    runtime = runtime or Runtime()
    params = init_params(component_specs(config, runtime), key)
    state = initial_state(config, key)
    return Retriever({**params, "logit_scale": initial_logit_scale()}, state, config, runtime)


def abstract_retriever(config: RetrieverConfig, runtime: Runtime | None = None) -> Retriever:
    """The retriever with ShapeDtypeStruct leaves; nothing is allocated."""
    runtime = runtime or Runtime()
    params: Params = {
        name: spec.abstract() for name, spec in component_specs(config, runtime).items()
    }
    params["logit_scale"] = jax.ShapeDtypeStruct((), jnp.float32)
    state = jax.eval_shape(lambda: initial_state(config, jax.random.key(0)))
    return Retriever(params, state, config, runtime)


def normalised_frames(frames: Array, mask_bf: Array, scale: PixelScale = OPENAI_PIXELS) -> Array:
    """Pixels as the vision tower reads them, float32 [B,F,R,R,3]; zero outside the mask."""
    if frames.dtype == jnp.uint8:
        frames = (frames.astype(jnp.float32) * scale.rescale - scale.mean) / scale.std
    return jnp.where(mask_bf[:, :, None, None, None] > 0, frames.astype(jnp.float32), 0.0)


# Towers, aggregation and heads compile apart: recipes with equal towers share the work.


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_text(
    spec: ModuleSpec, projects: bool, params: Params, token_ids: Array, hide: Array | None
) -> tuple[Array, Array]:
    return spec.bind(params)(token_ids, hide, projects)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_vision(
    spec: ModuleSpec,
    keep_patches: bool,
    params: Params,
    frames: Array,
    mask: Array,
    scale: PixelScale,
) -> VisionFeatures:
    vision = spec.bind(params)(normalised_frames(frames, mask, scale), mask)
    return vision if keep_patches else vision._replace(patches=None)


def _parts(config: RetrieverConfig, runtime: Runtime, params: Params, state: Params) -> Parts:
    modules = bind_modules(recipe_named(config.recipe).modules(config, runtime), params)
    return Parts(config, runtime, modules, params, state)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_aggregation(
    config: RetrieverConfig, runtime: Runtime, params: Params, frames_bfd: Array, mask: Array
) -> Array:
    parts = _parts(config, runtime, params, {})
    return recipe_named(config.recipe).aggregate(parts, frames_bfd, mask)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run_scores(
    config: RetrieverConfig,
    runtime: Runtime,
    train: bool,
    params: Params,
    state: Params,
    text: TextFeatures,
    video: VideoFeatures,
) -> dict[str, Array]:
    parts = _parts(config, runtime, params, state)
    return recipe_named(config.recipe).scores(parts, text, video, train)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_similarity(
    config: RetrieverConfig,
    runtime: Runtime,
    params: Params,
    state: Params,
    text: TextFeatures,
    video: VideoFeatures,
) -> Array:
    recipe = recipe_named(config.recipe)
    parts = _parts(config, runtime, params, state)
    if recipe.similarity is None:
        return recipe.scores(parts, text, video, False)["logits_tv"]
    return recipe.similarity(parts, text, video)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_loss(
    config: RetrieverConfig,
    runtime: Runtime,
    params: Params,
    state: Params,
    text: TextFeatures,
    video: VideoFeatures,
    rng: Array | None,
    picks: Picks | None,
) -> tuple[Array, dict[str, Any]]:
    parts = _parts(config, runtime, params, state)
    return recipe_named(config.recipe).loss(parts, text, video, rng, picks)
