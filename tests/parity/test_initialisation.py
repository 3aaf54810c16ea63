"""How a fresh CLIP4Clip starts from a CLIP file: which tensor every parameter is a copy of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from vtr_jax.convert.checkpoint_file import open_checkpoint
from vtr_jax.convert.from_state_dict import retriever_from_state_dict, to_state_dict
from vtr_jax.models.initialise import initialise_from_clip
from vtr_jax.parity.cases import find_cases
from vtr_jax.parity.kinds import kind_of

FOLDER = Path(os.environ.get("VTR_GOLDEN_DIR", Path(__file__).parent / "golden"))
VARIANTS = [
    pytest.param(path, variant, id=f"{path.stem}-{variant}")
    for path in find_cases(FOLDER)
    if kind_of(path) == "initialisation"
    for variant in json.loads(path.read_text())["result"]
]
SIZES_OF_HEAD = {"seqTransf": ("temporal_layers",), "tightTransf": ("cross_layers",)}


@pytest.mark.parametrize(("path", "variant"), VARIANTS)
def test_initialisation(path, variant):
    head, linear_patch = variant.split("-")
    case = json.loads(path.read_text())
    source = path.parent.parent / "files" / Path(case["source_file"]).name
    if not source.is_file():
        pytest.skip(f"{source.name} is not in this folder")
    tensors = open_checkpoint(source).tensors
    clip = retriever_from_state_dict(tensors, "clip")
    layers = case["config"]["cross_num_hidden_layers"]
    sizes = {name: layers for name in SIZES_OF_HEAD.get(head, ())}
    options = {"sim_header": head, "linear_patch": linear_patch}
    if head == "tightTransf":
        options["cross_num_attention_heads"] = 1
    retriever = initialise_from_clip(clip, "clip4clip", jax.random.key(0), options, sizes)
    ours = to_state_dict(retriever)
    recorded = case["result"][variant]["keys"]
    assert set(ours) == set(recorded)
    for key, row in recorded.items():
        assert list(ours[key].shape) == row["shape"], key
        if not row.get("from"):
            continue
        expected = np.asarray(tensors[row["from"][0]].read(), np.float32)
        if row["how"] != "copy":
            expected = np.stack([0 * expected, expected, 0 * expected], axis=2)
        np.testing.assert_array_equal(ours[key], expected, err_msg=key)
