"""Rank metrics against what the original programs computed, ties and groups included."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vtr_jax.evaluation.metrics import (
    retrieval_metrics,
    summarise,
    text_to_video_ranks,
    video_to_text_ranks,
)
from vtr_jax.parity.cases import find_cases, system_cases

# Names of the original programs' results in this project's words.
OUR_NAMES = {
    "R1": "R@1",
    "R5": "R@5",
    "R10": "R@10",
    "R50": "R@50",
    "MR": "MdR",
    "MedianR": "MdR",
    "MeanR": "MnR",
}


def assert_same(expected: dict, ranks: np.ndarray, median: str = "middle") -> None:
    ours = summarise(ranks, median)
    compared = [name for name in expected if name in OUR_NAMES]
    assert compared
    for name in compared:
        np.testing.assert_allclose(ours[OUR_NAMES[name]], expected[name], rtol=1e-6, err_msg=name)
    if expected.get("cols") is not None:
        np.testing.assert_array_equal(ranks, expected["cols"])
    if expected.get("n_counted") is not None:
        assert len(ranks) == expected["n_counted"]
    if "Std_Rank" in expected:
        np.testing.assert_allclose(np.std(ranks), expected["Std_Rank"], rtol=1e-6)


def clips_of_groups(ends: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(ends)), np.diff([0, *ends]))


def read_cases(paths: list[Path], what: str, folder: Path) -> list[tuple[dict, Path]]:
    if not paths:
        pytest.skip(f"no {what} below {folder}")
    return [(json.loads(path.read_text()), path) for path in paths]


def cases_in(folder: Path, system: str) -> list[tuple[dict, Path]]:
    return read_cases(system_cases(folder, system), f"case of {system}", folder)


def cases_named(folder: Path, name: str) -> list[tuple[dict, Path]]:
    paths = [path for path in find_cases(folder) if path.stem.endswith(name)]
    return read_cases(paths, name, folder)


def test_cases_are_found_at_any_depth(golden_dir, tmp_path):
    matrices, below = cases_in(golden_dir, "metrics"), tmp_path / "any" / "depth" / "metrics"
    below.mkdir(parents=True)
    for _, path in matrices:
        shutil.copy(path, below)
    assert {path for _, path in cases_in(tmp_path, "metrics")} == {
        below / path.name for _, path in matrices
    }
    (below.parent / "drl").mkdir()
    extra = below.parent / "drl" / "extra_metrics.json"
    extra.write_text('{"system": "drl"}')
    assert [path for _, path in cases_named(tmp_path, "extra_metrics")] == [extra]


def test_metrics_cases(golden_dir):
    compared = 0
    for case, path in cases_in(golden_dir, "metrics"):
        matrices = path.with_suffix(".npz")
        if "result" not in case or not matrices.is_file():
            continue
        with np.load(matrices) as stored:
            arrays = dict(stored)
        for name, expected in case["result"].items():
            compare = compare_many_captions if name.startswith("multi") else compare_one_caption
            compare(name, expected, arrays)
            compared += 1
    assert compared, f"no metrics case with its matrices below {golden_dir}"


def compare_one_caption(name: str, expected: dict, arrays: dict[str, np.ndarray]) -> None:
    logits_tv = arrays[name]
    diagonal = np.arange(len(logits_tv))
    assert_same(expected["text_to_video"], text_to_video_ranks(logits_tv, diagonal, "original"))
    if "video_to_text_error" in expected:
        with pytest.raises(ValueError, match="no caption"):
            video_to_text_ranks(logits_tv, diagonal, "original")
    else:
        ranks = video_to_text_ranks(logits_tv, diagonal, "original")
        assert_same(expected["video_to_text"], ranks)


def compare_many_captions(name: str, expected: dict, arrays: dict[str, np.ndarray]) -> None:
    ends = expected.get("cut_off_points")
    logits_tv = arrays[name] if name in arrays else arrays["plain"]
    caption_clip = clips_of_groups(ends or list(range(1, len(logits_tv) + 1)))
    t2v = text_to_video_ranks(logits_tv, caption_clip, "original-many")
    assert_same(expected["text_to_video"], t2v, median="lower")
    v2t = video_to_text_ranks(logits_tv, caption_clip, "original-many")
    assert_same(expected["video_to_text"], v2t)


def test_protocol_cases(golden_dir):
    for listing, path in cases_in(golden_dir, "eval_protocol"):
        with np.load(path.with_suffix(".npz")) as matrices:
            for case in listing["cases"]:
                compare_protocol(case, matrices[case["name"]])


def compare_protocol(case: dict, logits_tv: np.ndarray) -> None:
    caption_clip = clips_of_groups(case["cut_off_points"])
    metrics = retrieval_metrics(logits_tv, caption_clip, "original")
    assert_summaries(metrics["t2v"], case["t2v"], case.get("t2v_n_ranks"))
    assert_summaries(metrics["v2t"], case["v2t"], case.get("v2t_n_ranks"))
    if "emcl_backbone_t2v" in case:
        shifted = retrieval_metrics(logits_tv, caption_clip, "original-emcl")
        assert_summaries(shifted["t2v"], case["emcl_backbone_t2v"], len(logits_tv) - 1)
        assert_summaries(shifted["v2t"], case["emcl_backbone_v2t"], None)


def assert_summaries(ours: dict, expected: dict, queries: int | None) -> None:
    for name in (name for name in expected if name in OUR_NAMES):
        np.testing.assert_allclose(ours[OUR_NAMES[name]], expected[name], rtol=1e-6, err_msg=name)
    assert queries is None or ours["queries"] == queries


def test_extra_metrics_of_other_systems(golden_dir):
    for case, path in cases_named(golden_dir, "extra_metrics"):
        with np.load(path.with_suffix(".npz")) as matrices:
            arrays = dict(matrices)
        results = case["results"]
        diagonal = np.arange(len(arrays["sim"]))
        sim, tie, multi = arrays["sim"], arrays["tie"], arrays["multi"]
        assert_same(results["sim_t2v"], text_to_video_ranks(sim, diagonal, "original"))
        assert_same(results["sim_v2t"], video_to_text_ranks(sim, diagonal, "original"))
        assert_same(results["tie_t2v"], text_to_video_ranks(tie, diagonal, "original"))
        caption_clip = clips_of_groups(arrays["multi_cut_points"].tolist())
        t2v = text_to_video_ranks(multi, caption_clip, "original-many")
        assert_same(results["multi_t2v"], t2v, median="lower")
        v2t = video_to_text_ranks(multi, caption_clip, "original-many")
        assert_same(results["multi_v2t"], v2t)


def test_emcl_shifted_groups(golden_dir):
    for case, path in cases_named(golden_dir, "multi_sentence"):
        with np.load(path.with_suffix(".npz")) as matrices:
            logits_tv = matrices["sim_matrix"]
        counts = case["config"]["captions_per_video"]
        caption_clip = np.repeat(np.arange(len(counts)), counts)
        t2v = text_to_video_ranks(logits_tv, caption_clip, "original-emcl")
        v2t = video_to_text_ranks(logits_tv, caption_clip, "original-emcl")
        expected = {entry["fn"]: entry["values"] for entry in case["metrics"]}
        assert_same(expected["tensor_text_to_video_metrics"], t2v, median="lower")
        assert_same(expected["compute_metrics"], v2t)
