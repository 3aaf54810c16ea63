"""Choosing a frame aggregation by name: CLIP4Clip, DRL, BackBone_tvr and EMCL-Net share these."""

from __future__ import annotations

from jax import Array

from vtr_jax.models.aggregation import FrameLstm, LstmConfig, TemporalConfig, TemporalTransformer
from vtr_jax.models.clip import HEAD_WIDTH, ClipConfig
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.recipes.recipe import Options, OptionValue, Parts, RetrieverConfig
from vtr_jax.models.runtime import Runtime

AGGREGATION_LAYERS = 4
# Options that every recipe with frame aggregation has besides its own.
AGGREGATION_OPTIONS: dict[str, OptionValue] = {"lstm_longest": None}


def check_aggregation(options: Options) -> None:
    """Raise ValueError if lstm_longest is not a number of frames or None."""
    longest = options["lstm_longest"]
    if longest is not None and (not isinstance(longest, int) or longest < 1):
        raise ValueError(f"lstm_longest: expected a number of frames or None, got {longest!r}")


def aggregation_sizes(aggregation: str, clip: ClipConfig) -> dict[str, int]:
    """The default sizes of "seqTransf" (layers, positions) and "seqLSTM" (positions); else {}."""
    positions = {"temporal_positions": clip.text.context_length}
    if aggregation == "seqTransf":
        return {"temporal_layers": AGGREGATION_LAYERS, **positions}
    return positions if aggregation == "seqLSTM" else {}


def aggregation_modules(
    aggregation: str, config: RetrieverConfig, runtime: Runtime
) -> dict[str, ModuleSpec]:
    """The module "aggregation" of "seqTransf" or "seqLSTM"; {} for any other name."""
    width = config.clip.embed_dim
    if aggregation == "seqLSTM":
        lstm = LstmConfig(width=width, positions=config.size("temporal_positions"))
        return {"aggregation": ModuleSpec(FrameLstm, lstm, runtime)}
    if aggregation != "seqTransf":
        return {}
    temporal = TemporalConfig(
        width=width,
        layers=config.size("temporal_layers"),
        heads=max(1, width // HEAD_WIDTH),
        positions=config.size("temporal_positions"),
    )
    return {"aggregation": ModuleSpec(TemporalTransformer, temporal, runtime)}


def aggregate_frames(parts: Parts, frames_bfd: Array, mask_bf: Array) -> Array:
    """Frames after the recipe's aggregation [B,F,D]; the same frames where it has none.

    seqLSTM reads the option lstm_longest: how many frames the longest clip of a batch is taken to
    have, None for what it has.
    """
    aggregation = parts.modules.get("aggregation")
    if aggregation is None:
        return frames_bfd
    if isinstance(aggregation, FrameLstm):
        return aggregation(frames_bfd, mask_bf, parts.config.option("lstm_longest"))
    return aggregation(frames_bfd, mask_bf)


def unused_aggregation_parameters(aggregation: str) -> tuple[str, ...]:
    """Paths that the originals keep for an aggregation but never read."""
    return ("aggregation/position_embedding",) if aggregation == "seqLSTM" else ()
