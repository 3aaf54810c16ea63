"""EERCF beyond its model cases: both stages of its evaluation, its metrics, what it freezes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.convert.from_state_dict import config_of_state_dict
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.names.params import applicable_rows, leaf_at, original_keys
from vtr_jax.evaluation.metrics import summarise, text_to_video_ranks, video_to_text_ranks
from vtr_jax.models.interactions.coarse_to_fine import coarse_to_fine
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.recipes.eercf_weights import final, mixed
from vtr_jax.models.retriever import abstract_retriever
from vtr_jax.parity.cases import load_case, system_cases
from vtr_jax.parity.compare import case_inputs, retriever_of, run_case
from vtr_jax.parity.kinds import kind_of
from vtr_jax.parity.systems.eercf import (
    EERCF,
    EVALUATION_NAMES,
    rerankings,
    synthetic_matrices,
    synthetic_reranking,
)
from vtr_jax.training.optimizer import Group
from vtr_jax.training.parameter_groups import parameter_groups, trainable_mask

FOLDER = Path(os.environ.get("VTR_GOLDEN_DIR", Path(__file__).parent / "golden"))
CASES = system_cases(FOLDER, "eercf")
MODELS = [path for path in CASES if kind_of(path) == "model"]
EVALUATIONS = [path for path in CASES if kind_of(path) == "evaluation"]
EERCF_RECIPE = recipe_named("eercf")
OUR_METRICS = {"R1": "R@1", "R5": "R@5", "R10": "R@10", "MedianR": "MdR", "MeanR": "MnR"}
# Recorded scores stand at 100 and more, where a float32 has a spacing of 8e-6 to 1.5e-5.
TWO_ROUNDINGS = 3e-5


def name_of(path):
    return path.stem


def assert_metrics(logits_tv, reranking):
    """The recorded metrics of both directions, with the original's rule for ties."""
    caption_clip = np.repeat(np.arange(len(reranking.captions)), reranking.captions)
    many = reranking.metrics[0]["fn"] == "tensor_text_to_video_metrics"
    rule = "original-many" if many else "original"
    ranks = [
        text_to_video_ranks(logits_tv, caption_clip, rule),
        video_to_text_ranks(logits_tv, caption_clip, rule),
    ]
    for direction, recorded in zip(ranks, reranking.metrics, strict=True):
        lower = recorded["fn"] == "tensor_text_to_video_metrics"
        ours = summarise(direction, "lower" if lower else "middle")
        for theirs, name in OUR_METRICS.items():
            assert ours[name] == pytest.approx(recorded["values"][theirs], rel=1e-6), name
        if "cols" in recorded["values"]:
            np.testing.assert_array_equal(direction, recorded["values"]["cols"])


@pytest.mark.parametrize("path", EVALUATIONS, ids=name_of)
def test_reranking_of_recorded_matrices(path, tiny_clip):
    """Bit for bit: the additions are the original's, in its order."""
    record, arrays = json.loads(path.read_text()), dict(np.load(path.with_suffix(".npz")))
    reranking = synthetic_reranking(record, arrays)
    config = EERCF_RECIPE.config(tiny_clip, reranking.options)
    matrices = synthetic_matrices(record, reranking.captions)
    for theirs, name in EVALUATION_NAMES.items():
        np.testing.assert_allclose(matrices[name].ravel()[:3], record["heads"][theirs], rtol=1e-6)

    @jax.jit
    def rerank(matrices):
        return coarse_to_fine(
            matrices["sentence_video"],
            lambda columns: {
                name: jnp.take_along_axis(matrix, columns, axis=1)
                for name, matrix in matrices.items()
            },
            rerantopk=config.option("rerantopk"),
            recall_score=lambda scores: mixed(config, scores),
            final_score=lambda scores: final(config, scores),
        )

    ours_tv = np.asarray(rerank(matrices))
    np.testing.assert_array_equal(ours_tv, reranking.final)
    lifted = [
        np.flatnonzero(row != coarse)
        for row, coarse in zip(ours_tv, matrices["sentence_video"], strict=True)
    ]
    np.testing.assert_array_equal(lifted, arrays["recalled"])
    caption_clip = np.repeat(np.arange(len(reranking.captions)), reranking.captions)
    for name, matrix in (
        ("rank_t2v", ours_tv),
        ("rank_t2v_before", matrices["sentence_video"]),
    ):
        ranks = text_to_video_ranks(matrix, caption_clip, "once")
        np.testing.assert_array_equal(ranks, arrays[name])
    assert_metrics(ours_tv, reranking)


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_evaluation_from_frames_to_metrics(path):
    case = load_case(path)
    arrays = case.arrays()
    retriever = retriever_of(case)
    outputs = run_case(retriever, case_inputs(case, arrays))
    found = rerankings(case.record, arrays)
    assert found, "a model case without an evaluation"
    for reranking in found:
        chosen = retriever.with_options(**reranking.options)
        ours_tv = np.asarray(chosen.similarity(outputs.text, outputs.video))
        np.testing.assert_allclose(ours_tv, reranking.final, rtol=0, atol=TWO_ROUNDINGS)
        scores = chosen.scores(outputs.text, outputs.video)
        np.testing.assert_allclose(scores["logits_tv"], ours_tv, rtol=0, atol=TWO_ROUNDINGS)
        for theirs, name in EVALUATION_NAMES.items():
            np.testing.assert_allclose(
                scores[name], arrays[f"{reranking.name}/{theirs}"], rtol=0, atol=1e-4, err_msg=name
            )
        np.testing.assert_allclose(
            mixed(chosen.config, scores), arrays[f"{reranking.name}/rerank"], rtol=0, atol=1e-4
        )
        assert_metrics(reranking.final, reranking)
        if not has_close_scores(reranking.final):
            assert_metrics(ours_tv, reranking)


def has_close_scores(logits_tv):
    """Whether some scores of a row or column are so close that rounding decides their order."""
    gaps = [np.diff(np.sort(logits_tv, axis=axis), axis=axis).min() for axis in (0, 1)]
    return min(gaps) <= 2 * TWO_ROUNDINGS


def described(path):
    """(record, abstract params, config, {original key: (path, layer)}) of a model case."""
    case = load_case(path)
    shapes = {key: np.empty(shape, np.void) for key, shape in case.record["keys"].items()}
    config = config_of_state_dict(shapes, "eercf", **EERCF.options(case.config))
    params = abstract_retriever(config).params
    keys = {
        key: (row.ours, layer)
        for row, leaf in applicable_rows(NAME_TABLES["eercf"], params)
        for layer, key in enumerate(original_keys(row, leaf))
    }
    return case.record, params, config, keys


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_freezing(path):
    record, params, config, keys = described(path)
    assert list(keys) and set(keys) == set(record["keys"])
    for number, expected in record["frozen_by_freeze_layer_num"].items():
        mask = trainable_mask(params, config, int(number), freeze_nothing_in_3d=True)
        trained = {key: leaf_at(mask, ours) for key, (ours, _) in keys.items()}
        frozen = {
            key
            for key, flags in trained.items()
            if not (flags if isinstance(flags, bool) else flags[keys[key][1]])
        }
        # CLIP's own embedding beside a 3d one: never trained here, without a gradient there.
        unused = {key for key, (ours, _) in keys.items() if ours in EERCF_RECIPE.unused(config)}
        assert frozen - unused == set(expected) - unused, number


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_parameter_groups(path):
    """Rate by "clip." and decay by "bias" in the original's name: the identities are decayed."""
    _, _, _, keys = described(path)
    group_of = parameter_groups(1.0, 1e-3, 0.2)
    for key, (ours, _) in keys.items():
        rate = 1e-3 if key.startswith("clip.") else 1.0
        assert group_of(ours) == Group(rate, 0.0 if "bias" in key else 0.2), key
    assert group_of("gating/sentence_matrix") == group_of("gating/frame_matrix") == Group(1.0, 0.2)
