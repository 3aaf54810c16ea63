"""EMCL-Net: text-conditioned pooling of frames, whose features EM reconstructs from a few bases.

Scores of a pair depend on what it is compared together with: a whole batch in training, blocks of
mini_batch texts and videos in evaluation, as in the original.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from vtr_jax.losses import symmetric_contrastive
from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.interactions.emcl_head import emcl_logits, pair_rows
from vtr_jax.models.interactions.expectation_maximisation import EmSettings
from vtr_jax.models.module_spec import ModuleSpec, Params
from vtr_jax.models.recipes.frame_aggregation import (
    aggregate_frames,
    aggregation_modules,
    aggregation_sizes,
    unused_aggregation_parameters,
)
from vtr_jax.models.recipes.linear_patch import unused_patch_parameters
from vtr_jax.models.recipes.recipe import (
    Options,
    Parts,
    Picks,
    Recipe,
    RetrieverConfig,
    Scores,
)
from vtr_jax.models.recipes.token_wise import SHARED_OPTIONS, check_shared_options
from vtr_jax.models.runtime import Runtime
from vtr_jax.models.tiling import map_blocks
from vtr_jax.models.torch_normal import torch_normal

POSITIVE_COUNTS = ("centerK", "stage_num", "mini_batch")
POSITIVE_NUMBERS = ("lamd", "temp")


def fresh_mu(seed: int, components: int) -> np.ndarray:
    """What EMCL's bases start as, float32 [1,K]: random signs, each up to 1e-5 short of one.

    seed: of the original program, whose draw this repeats: 0 is EMCL-Net's default.
    """
    drawn = torch_normal(seed, components) * np.float32((2.0 / components) ** 0.5)
    return (drawn / (1e-6 + np.abs(drawn)))[None, :]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(clip: ClipConfig, options: Options) -> None:
    check_shared_options(clip, options)
    value: Any
    for name in POSITIVE_COUNTS:
        value = options[name]
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}: expected a whole number of 1 or more, got {value!r}")
    for name in POSITIVE_NUMBERS:
        value = options[name]
        if not _is_number(value) or value <= 0:
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    if not _is_number(options["beta"]):
        raise ValueError(f"beta: expected a number, got {options['beta']!r}")
    momentum: Any = options["momentum"]
    if not _is_number(momentum) or not 0 <= momentum <= 1:
        raise ValueError(f"momentum: expected a number from 0 to 1, got {momentum!r}")
    _check_mu(options["mu"], options["centerK"])


def _check_mu(mu: Any, components: Any) -> None:
    if isinstance(mu, tuple):
        if len(mu) != components:
            raise ValueError(f"mu: expected centerK={components} values, got {len(mu)}")
    elif type(mu) is not int or mu < 0:
        raise ValueError(f"mu: expected a seed of 0 or more, or the values themselves, got {mu!r}")


def _modules(config: RetrieverConfig, runtime: Runtime) -> dict[str, ModuleSpec]:
    return aggregation_modules(config.option("agg_module"), config, runtime)


def _state(config: RetrieverConfig, key: Array) -> Params:
    mu = config.option("mu")
    if isinstance(mu, tuple):
        return {"mu": jnp.asarray(mu, jnp.float32)[None, :]}
    return {"mu": jnp.asarray(fresh_mu(mu, config.option("centerK")))}


def em_settings(config: RetrieverConfig) -> EmSettings:
    """The operator's settings of a retriever."""
    return EmSettings(
        stages=config.option("stage_num"),
        lamd=config.option("lamd"),
        beta=config.option("beta"),
        momentum=config.option("momentum"),
    )


def _block_logits(parts: Parts, texts: Any, videos: Any) -> tuple[Array, Array]:
    """(cosines, mu after a training step) of texts (sentences, valid) and videos (frames, mask)."""
    (sentence_td, valid_t), (frames_vfd, mask_vf) = texts, videos
    components = parts.config.option("centerK")
    if parts.state["mu"].shape != (1, components):
        raise ValueError(
            f"state mu: expected shape (1, {components}) as centerK says, got "
            f"{parts.state['mu'].shape}"
        )
    rows = pair_rows(sentence_td, frames_vfd, mask_vf, parts.config.option("temp"))
    rows = rows._replace(weights_tvf=rows.weights_tvf * valid_t[:, None, None])
    return emcl_logits(rows, parts.state["mu"][0], em_settings(parts.config))


def _texts_and_videos(text: TextFeatures, video: VideoFeatures) -> tuple[Any, Any]:
    valid_t = jnp.ones(text.sentence.shape[0], jnp.float32)
    return (text.sentence, valid_t), (video.temporal, video.mask.astype(jnp.float32))


def _scores(parts: Parts, text: TextFeatures, video: VideoFeatures, train: bool) -> Scores:
    """Cosines, which only the loss scales by logit_scale; train: all pairs as one tile."""
    texts, videos = _texts_and_videos(text, video)
    if train:
        return {"logits_tv": _block_logits(parts, texts, videos)[0]}

    def compare(texts: Any, videos: Any) -> Array:
        return _block_logits(parts, texts, videos)[0]

    return {"logits_tv": map_blocks(compare, texts, videos, parts.config.option("mini_batch"))}


def _loss(
    parts: Parts,
    text: TextFeatures,
    video: VideoFeatures,
    rng: Array | None,
    picks: Picks | None,
) -> tuple[Array, dict[str, Any]]:
    cosine_tv, mu_k = _block_logits(parts, *_texts_and_videos(text, video))
    scaled_tv = cosine_tv * jnp.exp(parts.params["logit_scale"])
    loss, terms = symmetric_contrastive(scaled_tv, scaled_tv.T)
    return loss, {**terms, "state": {"mu": mu_k[None, :]}}


def _unused(config: RetrieverConfig) -> tuple[str, ...]:
    aggregation = unused_aggregation_parameters(config.option("agg_module"))
    return (*aggregation, *unused_patch_parameters(config))


EMCL = Recipe(
    name="emcl",
    options={
        **SHARED_OPTIONS,
        "centerK": 32,
        "stage_num": 9,
        "momentum": 0.9,
        "lamd": 1.0,
        "beta": 3.0,
        "temp": 3.0,
        "mini_batch": 32,
        "mu": 0,
    },
    check=_check,
    sizes=lambda clip, options: aggregation_sizes(str(options["agg_module"]), clip),
    modules=_modules,
    aggregate=aggregate_frames,
    scores=_scores,
    loss=_loss,
    reads=lambda config: frozenset({"sentence", "temporal"}),
    masks_padding=True,
    state=_state,
    row_multiple=lambda config: config.option("mini_batch"),
    unused=_unused,
    # The original trains everything but its patch embedding, whatever else is frozen.
    frozen=lambda config: ("visual/patch_embedding/kernel",),
)
