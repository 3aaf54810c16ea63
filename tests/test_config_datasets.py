"""CLIP4Clip's recipe for every public data set reads that data set."""

from __future__ import annotations

import pytest

from vtr_jax.data.annotations import READERS, reader_options
from vtr_jax.training.command import read_config
from vtr_jax.training.config import check_config

CONFIG = "clip4clip"


@pytest.mark.parametrize(
    "variant, limits, validation",
    [
        ("msrvtt", (32, 12), "holdout"),
        ("msvd", (32, 12), "val"),
        ("lsmdc-seqTransf", (32, 12), "val"),
        ("activitynet", (64, 64), "holdout"),
        ("didemo-seqTransf", (64, 64), "val"),
        ("vatex", (32, 12), "val"),
    ],
)
def test_published_limits_and_what_is_validated_on(variant, limits, validation):
    config = read_config(f"{CONFIG}:{variant}")
    check_config(config)
    assert config.data.dataset == variant.split("-")[0] and config.data.dataset in READERS
    assert set(config.data.options) <= set(reader_options(config.data.dataset))
    assert (config.data.max_words, config.data.max_frames) == limits
    assert config.data.validation == validation
    assert (config.batch_size, config.epochs) == (128, 5)


@pytest.mark.parametrize("variant", ["msrvtt7k", "msrvttfull", "table", "smoke"])
def test_other_variants_read_what_they_did(variant):
    data = read_config(f"{CONFIG}:{variant}").data
    assert data.dataset == ("msrvtt" if variant.startswith("msrvtt") else "table")
    assert data.validation == ("holdout" if variant == "msrvtt7k" else "val")


@pytest.mark.parametrize(
    "variant, meant",
    [
        ("tabel", "table"),
        ("mvsd", "msvd"),
        ("msvd-seqTrans", "seqTransf"),
        ("Table-meanp", "table"),
    ],
)
def test_misspelt_variants_name_the_nearest(variant, meant):
    with pytest.raises(ValueError, match=rf"HEAD one of .*; did you mean {meant}\?$"):
        read_config(f"{CONFIG}:{variant}")
