"""What BackBone_tvr's recorded cases hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtr_jax.models.interactions.token_wise import BACKBONE_TVR_MASKED, WeightedVectors
from vtr_jax.models.recipes.token_wise import weighted_sides
from vtr_jax.parity.recorded import ArrayTable, RecordedArray, RecordedSystem
from vtr_jax.parity.systems.token_wise import (
    FEATURES,
    LOSSES,
    SCORES,
    half_keys,
    parts_of,
    token_wise_arrays,
)

if TYPE_CHECKING:
    from vtr_jax.parity.compare import Outputs


def _sides(outputs: Outputs) -> tuple[WeightedVectors, WeightedVectors]:
    return weighted_sides(parts_of(outputs), outputs.text, outputs.video, BACKBONE_TVR_MASKED)


BACKBONE_TVR = RecordedSystem(
    options=lambda config: {"agg_module": config["agg_module"]},
    resolution=lambda config: config["image_resolution"],
    half_keys=half_keys,
    arrays=ArrayTable(
        {
            **FEATURES,
            **SCORES,
            **LOSSES,
            **token_wise_arrays(_sides),
            # Recorded for being zero: it has no channel decorrelation.
            "loss_cdcr": RecordedArray("loss", lambda outputs: 0.0),
        }
    ),
)
