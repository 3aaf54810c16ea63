"""What DRL's recorded cases hold, interaction by interaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from vtr_jax.models.interactions.channel_decorrelation import diagonal_parts
from vtr_jax.models.interactions.mean_pooling import l2_normalise, mean_frame
from vtr_jax.models.interactions.token_wise import WeightedVectors
from vtr_jax.models.recipes.drl import correlation, sides
from vtr_jax.parity.recorded import ArrayTable, RecordedArray, RecordedSystem, loss_term
from vtr_jax.parity.systems.clip4clip import cross_hidden, cross_pooled
from vtr_jax.parity.systems.token_wise import (
    FEATURES,
    LOSSES,
    SCORES,
    half_keys,
    parts_of,
    token_wise_arrays,
)

if TYPE_CHECKING:
    from vtr_jax.parity.cases import Case
    from vtr_jax.parity.compare import Outputs

OPTIONS = (
    "interaction",
    "wti_arch",
    "agg_module",
    "cdcr",
    "cdcr_alpha1",
    "cdcr_alpha2",
    "cdcr_lambda",
)


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in OPTIONS if name in config}


def _sides(outputs: Outputs) -> tuple[WeightedVectors, WeightedVectors]:
    return sides(parts_of(outputs), outputs.text, outputs.video)


def _correlation(outputs: Outputs) -> jax.Array:
    picks = outputs.inputs.picks
    found = correlation(parts_of(outputs), outputs.text, outputs.video, picks=picks)
    assert found is not None
    return found


def _by_pair(pairs_tv: jax.Array) -> jax.Array:
    return pairs_tv.reshape(-1, *pairs_tv.shape[2:])


def _pooled(outputs: Outputs) -> jax.Array:
    return mean_frame(jnp.asarray(outputs.video.temporal), outputs.video.mask)


_DOT_PRODUCT = {
    "text_pooled_norm": RecordedArray("inside a head", lambda o: l2_normalise(o.text.sentence)),
    "video_pooled": RecordedArray("inside a head", _pooled),
    "video_pooled_norm": RecordedArray("inside a head", lambda o: l2_normalise(_pooled(o))),
}

_CROSS = {
    "cross_seq_out": RecordedArray("inside a head", lambda o: _by_pair(cross_hidden(o))),
    "cross_pooled": RecordedArray("inside a head", lambda o: _by_pair(cross_pooled(o))),
}

# Standardising divides by deviations of about 1e-3 in a batch of four, and so enlarges what the
# features already differ by; from the recorded features the same function is right to 2e-6.
_CORRELATION_TOLERANCE = 1e-4


def _correlation_tolerance(case: Case, recorded: Any) -> float:
    return _CORRELATION_TOLERANCE


_DECORRELATION = {
    "loss_cdcr": RecordedArray("loss", loss_term("cdcr")),
    "cdcr_c": RecordedArray("inside a head", _correlation, _correlation_tolerance),
    "cdcr_on_diag": RecordedArray("loss", lambda o: diagonal_parts(_correlation(o))[0]),
    "cdcr_off_diag": RecordedArray("loss", lambda o: diagonal_parts(_correlation(o))[1]),
}

DRL = RecordedSystem(
    options=_options,
    resolution=lambda config: config["image_resolution"],
    picks=("cdcr1_text_index", "cdcr1_video_index"),
    half_keys=half_keys,
    arrays=ArrayTable(
        {
            **FEATURES,
            **SCORES,
            **LOSSES,
            **token_wise_arrays(_sides),
            **_DOT_PRODUCT,
            **_CROSS,
            **_DECORRELATION,
        }
    ),
)
