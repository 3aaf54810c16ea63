"""`vtr parity`: what a person sees who compares a retriever with recorded numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vtr_jax.checkpoint import write_retriever
from vtr_jax.parity.cases import case_weights, load_case
from vtr_jax.parity.compare import case_inputs, retriever_of
from vtr_jax.parity.report import read_case, run_parity

CASE = Path(__file__).parent / "golden" / "clip4clip" / "meanP-2d.json"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    retriever = retriever_of(load_case(CASE))
    directory = tmp_path_factory.mktemp("parity") / "retriever"
    write_retriever(directory, retriever.config, retriever.params)
    return str(directory)


def test_a_converted_checkpoint_holds(checkpoint, tmp_path):
    table, holds = run_parity(checkpoint, str(CASE), str(tmp_path / "deviations.json"))
    assert holds
    assert "all hold" in table and "eval_logits" in table and "more of gradients" in table
    rows = json.loads((tmp_path / "deviations.json").read_text())
    assert all(row["holds"] for row in rows)
    assert {"name", "kind", "deviation", "tolerance"} <= rows[0].keys()


def test_a_case_with_pictures_of_its_own(checkpoint, tmp_path):
    """What a user records: no salt, the frames themselves; another one's weights differ."""
    case = load_case(CASE)
    arrays = case.arrays()
    frames = np.moveaxis(case_inputs(case, arrays).frames, -1, 2)
    named = ("token_ids", "token_mask", "video_mask", "text_features", "frame_features")
    own = {name: arrays[name] for name in (*named, "eval_logits")}
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"system": "clip4clip", "config": case.config}))
    np.savez(path.with_suffix(".npz"), video=frames, **own)
    table, holds = run_parity(checkpoint, str(path))
    assert holds and "3 comparisons: all hold" in table

    weights = case_weights(case)
    weights["clip.ln_final.bias"] = weights["clip.ln_final.bias"] + 1e-3
    other = retriever_of(case, weights)
    write_retriever(tmp_path / "other", other.config, other.params)
    table, holds = run_parity(str(tmp_path / "other"), str(path))
    assert not holds
    differing = [line.split()[0] for line in table.splitlines() if line.endswith("DIFFERS")]
    assert differing == ["text_features", "eval_logits"]


def test_what_is_no_case_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json: no such file; a recorded case is"):
        read_case(str(tmp_path / "nothing.json"))
    lonely = tmp_path / "lonely.json"
    shutil.copy(CASE, lonely)
    with pytest.raises(FileNotFoundError, match=r"lonely\.npz"):
        read_case(str(lonely))
    matrix = tmp_path / "metrics" / "square.json"
    matrix.parent.mkdir()
    matrix.write_text("{}")
    np.savez(matrix.with_suffix(".npz"), x=np.zeros(1))
    with pytest.raises(ValueError, match="records no features of a retriever"):
        read_case(str(matrix))


def test_another_recipe_is_refused(checkpoint):
    case = CASE.parent.parent / "clip" / "vit-p32.json"
    with pytest.raises(
        ValueError, match="recipe clip4clip, but clip/vit-p32 was recorded with clip"
    ):
        run_parity(checkpoint, str(case))
