"""What the names of trained retrievers tell: options and sizes."""

from __future__ import annotations

import pytest

from vtr_jax.convert.told import (
    NO_AGGREGATION,
    contradicts,
    told_aggregation,
    told_by_names,
    told_cross,
)

TRANSFORMER = {
    "transformerClip.resblocks.0.ln_1.weight": (8,),
    "transformerClip.resblocks.1.ln_1.weight": (8,),
    "frame_position_embeddings.weight": (77, 8),
}
LSTM = {"lstm_visual.weight_ih_l0": (32, 8), "frame_position_embeddings.weight": (50, 8)}
CROSS = {
    "cross.transformer.resblocks.0.ln_1.weight": (8,),
    "cross.embeddings.position_embeddings.weight": (60, 8),
}


@pytest.mark.parametrize(
    ("names", "header", "patch", "sizes"),
    [
        ({}, "meanP", "2d", {}),
        ({"clip.visual.conv2.weight": (1,)}, "meanP", "3d", {}),
        (TRANSFORMER, "seqTransf", "2d", {"temporal_layers": 2, "temporal_positions": 77}),
        (LSTM, "seqLSTM", "2d", {"temporal_positions": 50}),
        (CROSS, "tightTransf", "2d", {"cross_layers": 1, "cross_positions": 60}),
    ],
)
def test_what_the_names_of_clip4clip_tell(names, header, patch, sizes):
    options = {"sim_header": header, "linear_patch": patch}
    assert told_by_names("clip4clip", names) == (options, sizes)
    assert told_by_names("clip", names) == ({}, {})


def test_frames_that_nothing_relates_have_no_sizes():
    assert told_aggregation({}) == ("none", {})
    assert told_aggregation({}, none="None") == ("None", {})
    assert told_cross(TRANSFORMER) == {}


@pytest.mark.parametrize("told", NO_AGGREGATION)
@pytest.mark.parametrize("given", NO_AGGREGATION)
def test_spellings_of_no_aggregation_do_not_contradict_each_other(told, given):
    assert not contradicts(told, given)


def test_other_values_contradict():
    assert contradicts("seqTransf", "none")
    assert contradicts("2d", "3d")
    assert not contradicts(2, 2)
