"""Which recorded array is which of ours: the one table between their names and ours."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vtr_jax.models.clip import TextTower, VisionTower
from vtr_jax.models.interactions.mean_pooling import l2_normalise, mean_frame
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.recipes.recipe import bind_modules

INPUTS = ("image", "token_ids", "token_mask", "video_mask")


@dataclasses.dataclass(frozen=True)
class RecordedArray:
    """The kind of a recorded array, and how ours is computed from a run's Outputs."""

    kind: str
    value: Callable[[Any], Any] | None


class ArrayTable(Mapping[str, RecordedArray]):
    """Recorded names to arrays; a name may hold a number, written {}."""

    def __init__(self, rows: Mapping[str, RecordedArray]) -> None:
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> RecordedArray:
        if name in self._rows:
            return self._rows[name]
        number = re.search(r"\d+", name)
        row = self._rows.get(re.sub(r"\d+", "{}", name, count=1)) if number else None
        if number is None or row is None or row.value is None:
            raise KeyError(name)
        index, value = int(number[0]), row.value
        return RecordedArray(row.kind, lambda outputs: value(outputs)[index])

    def __iter__(self) -> Any:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _vision(outputs: Any) -> VisionTower:
    retriever = outputs.retriever
    spec = ModuleSpec(VisionTower, retriever.config.clip.vision, retriever.runtime)
    return spec.bind(retriever.params["visual"])


def _text(outputs: Any) -> TextTower:
    retriever = outputs.retriever
    spec = ModuleSpec(TextTower, retriever.config.clip.text, retriever.runtime)
    return spec.bind(retriever.params["text"])


@jax.jit
def _embed(tower: VisionTower | TextTower, inputs: jax.Array) -> jax.Array:
    return tower.embed(inputs)


@functools.partial(jax.jit, static_argnums=2)
def _first_through_blocks(
    tower: VisionTower | TextTower, embedded_blw: jax.Array, is_causal: bool
) -> jax.Array:
    return tower.transformer.layer_outputs(embedded_blw[:1], is_causal=is_causal)[:, 0]


def _vision_embedded(outputs: Any) -> jax.Array:
    return _embed(_vision(outputs), outputs.inputs.frames)


def _text_embedded(outputs: Any) -> jax.Array:
    return _embed(_text(outputs), outputs.inputs.token_ids)


def _vision_blocks(outputs: Any) -> jax.Array:
    return _first_through_blocks(_vision(outputs), _vision_embedded(outputs), False)


def _text_blocks(outputs: Any) -> jax.Array:
    return _first_through_blocks(_text(outputs), _text_embedded(outputs), True)


def _visual_tokens(outputs: Any) -> jax.Array:
    video = outputs.video
    return jnp.concatenate([video.frames[:, :1], video.patches[:, 0]], axis=1)


def _temporal(outputs: Any) -> jax.Array:
    retriever = outputs.retriever
    specs = retriever.recipe.modules(retriever.config, retriever.runtime)
    temporal = bind_modules(specs, retriever.params)["aggregation"]
    return temporal.transformed(outputs.video.frames, outputs.video.mask)


def _similarity(outputs: Any) -> jax.Array:
    return outputs.retriever.similarity(outputs.text, outputs.video)


def _loss_term(name: str) -> Callable[[Any], jax.Array]:
    return lambda outputs: outputs.retriever.loss(outputs.text, outputs.video)[1][name]


_CLIP = {
    "image_features": RecordedArray("feature", lambda o: o.video.frames[:, 0]),
    "text_features": RecordedArray("feature", lambda o: o.text.sentence),
    "visual_tokens": RecordedArray("feature", _visual_tokens),
    "text_tokens": RecordedArray("feature", lambda o: o.text.tokens),
    "visual_ln_pre": RecordedArray("feature", _vision_embedded),
    "visual_block{}_item0": RecordedArray("feature", _vision_blocks),
    "text_embedded": RecordedArray("feature", lambda o: _text_embedded(o)[:2]),
    "text_block{}_item0": RecordedArray("feature", _text_blocks),
    "text_ln_final": RecordedArray("feature", lambda o: _text(o).hidden(o.inputs.token_ids)[:2]),
    "logits_per_text": RecordedArray("logits", _similarity),
    "logits_per_image": RecordedArray("logits", lambda o: _similarity(o).T),
    "logit_scale_exp": RecordedArray("loss", lambda o: jnp.exp(o.retriever.params["logit_scale"])),
}

_CLIP4CLIP = {
    "text_features": RecordedArray("feature", lambda o: o.text.sentence),
    "frame_features": RecordedArray("feature", lambda o: o.video.frames),
    "frame_transformer_out": RecordedArray("inside a head", _temporal),
    "frames_for_pooling": RecordedArray("inside a head", lambda o: l2_normalise(o.video.temporal)),
    "video_pooled": RecordedArray(
        "inside a head", lambda o: mean_frame(o.video.temporal, o.video.mask)
    ),
    "eval_logits": RecordedArray("logits", _similarity),
    "train_logits": RecordedArray("logits", _loss_term("logits_tv")),
    "loss": RecordedArray("loss", lambda o: o.retriever.loss(o.text, o.video)[0]),
    "loss_text_to_video": RecordedArray("loss", _loss_term("loss_t2v")),
    "loss_video_to_text": RecordedArray("loss", _loss_term("loss_v2t")),
    # The norm over all gradients follows from those of every parameter.
    "gradnorm_total": RecordedArray("gradient norm", None),
}

ARRAYS: dict[str, ArrayTable] = {
    "clip": ArrayTable(_CLIP),
    "clip4clip": ArrayTable(_CLIP4CLIP),
}
