"""InternVideo beyond its model cases: merging with CLIP, dual softmax, groups and freezing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from vtr_jax.checkpoint import load_retriever
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.from_state_dict import config_of_state_dict, to_state_dict
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.names.params import applicable_rows, leaf_at, original_keys
from vtr_jax.evaluation.metrics import metrics_of
from vtr_jax.evaluation.normalisation import MatrixTiles, count_both_ways, dual_softmax_scores
from vtr_jax.models.interactions.mean_pooling import cosine_logits
from vtr_jax.models.retriever import abstract_retriever
from vtr_jax.parity.cases import load_case, system_cases
from vtr_jax.parity.compare import TOLERANCES, compare_case, deviation
from vtr_jax.parity.kinds import kind_of
from vtr_jax.parity.systems.internvideo import INTERNVIDEO
from vtr_jax.training.parameter_groups import parameter_groups, trainable_mask

FOLDER = Path(os.environ.get("VTR_GOLDEN_DIR", Path(__file__).parent / "golden"))
CASES = system_cases(FOLDER, "internvideo")
MODELS = [path for path in CASES if kind_of(path) == "model"]
MERGES = [path for path in CASES if kind_of(path) == "merge"]
EVALUATIONS = [path for path in CASES if kind_of(path) == "evaluation"]

OUR_METRICS = {"R1": "R@1", "R5": "R@5", "R10": "R@10", "MedianR": "MdR", "MeanR": "MnR"}


def name_of(path):
    return path.stem


def files_of(path, record):
    """The video-trained file and CLIP's, or a skip where the folder lacks them."""
    description = (path.parent / record["files"]).resolve()
    names = json.loads(description.read_text())["keys"]
    video_trained = [
        name for name, keys in names.items() if any("temporal_cls_token" in key for key in keys)
    ]
    (clip,) = set(names) - set(video_trained)
    files = [description.parent / name for name in (*video_trained, clip)]
    for file in files:
        if not file.is_file():
            pytest.skip(f"{file.name} is not in this folder")
    return files


@pytest.mark.parametrize("path", MERGES, ids=name_of)
def test_merging(path, tmp_path):
    """Every parameter after loading, and what the merged retriever computes."""
    case = load_case(path)
    video_trained, clip = files_of(path, case.record)
    merging = {}
    if case.config["mergeclip"]:
        weight = case.config["mergeweight"]
        merging = {"mergeclip": True, "mergeweight": weight, "pretrained_clip_name": str(clip)}
    convert_checkpoint(
        video_trained,
        tmp_path / "retriever",
        "internvideo",
        **INTERNVIDEO.options(case.config),
        **merging,
        allow_missing=True,
        ignore_unknown=True,
    )
    retriever = load_retriever(tmp_path / "retriever")
    ours, arrays = to_state_dict(retriever), case.arrays()
    assert {f"paramnorm/{key}" for key in ours} == {n for n in arrays if n.startswith("paramnorm/")}
    for key, value in ours.items():
        norm = np.linalg.norm(value.astype(np.float64))
        np.testing.assert_allclose(norm, arrays[f"paramnorm/{key}"], rtol=1e-6, err_msg=key)
        head = arrays[f"paramhead/{key}"].ravel()
        # Products and sums of two float32 numbers, in one order or the other.
        np.testing.assert_allclose(
            value.ravel()[: len(head)], head, rtol=2e-7, atol=1e-9, err_msg=key
        )
    failed = [d for d in compare_case(case, retriever) if not d.holds]
    assert not failed


def caption_clip_of(record):
    return np.repeat(np.arange(len(record["config"]["groups"])), record["config"]["groups"])


@pytest.mark.parametrize("path", EVALUATIONS, ids=name_of)
def test_dual_softmax(path):
    record, arrays = json.loads(path.read_text()), dict(np.load(path.with_suffix(".npz")))
    caption_clip = caption_clip_of(record)
    logits_tv = cosine_logits(
        arrays["text_features"], arrays["video_features"], arrays["logit_scale"]
    )
    ways = dual_softmax_scores(arrays["sim"], caption_clip)
    recorded = {"t2v": arrays["sim_dsl"], "v2t": arrays["sim_dsl_T"].T}
    if record["config"]["multi"]:
        recorded["v2t"] = arrays["sim_dsl"]
    deviations = [
        deviation("logits", "sim", np.asarray(logits_tv), arrays["sim"]),
        *(deviation("logits", way, ways[way], recorded[way]) for way in ways),
    ]
    assert all(d.deviation <= TOLERANCES["logits"] for d in deviations), deviations


@pytest.mark.parametrize("tile", [3, 4096])
@pytest.mark.parametrize("path", EVALUATIONS, ids=name_of)
def test_metrics_with_and_without_dual_softmax(path, tile):
    record, arrays = json.loads(path.read_text()), dict(np.load(path.with_suffix(".npz")))
    tiles = MatrixTiles(arrays["sim"], caption_clip_of(record), tile)
    for prefix, normalisation in (("", "none"), ("dsl_", "dual_softmax")):
        counters = count_both_ways(tiles, normalisation)
        for way, counter in counters.items():
            ours = metrics_of(counter, "original")[way]
            recorded = record["metrics"][prefix + way]
            for theirs, name in OUR_METRICS.items():
                # Recorded percentages are float32 in some places.
                assert ours[name] == pytest.approx(recorded[theirs], rel=1e-6), (prefix, way, name)


def described(path):
    """(abstract params, config, {original key: (path, leaf, layer)}) of a model case."""
    case = load_case(path)
    shapes = {key: np.empty(shape, np.void) for key, shape in case.record["keys"].items()}
    config = config_of_state_dict(shapes, "internvideo", **INTERNVIDEO.options(case.config))
    params = abstract_retriever(config).params
    keys = {
        key: (row.ours, layer)
        for row, leaf in applicable_rows(NAME_TABLES["internvideo"], params)
        for layer, key in enumerate(original_keys(row, leaf))
    }
    return case.record, config, params, keys


def frozen_keys(params, config, keys, **settings):
    mask = trainable_mask(params, config, **settings)
    trained = {key: leaf_at(mask, path) for key, (path, _) in keys.items()}
    return {
        key
        for key, flags in trained.items()
        if not (flags if isinstance(flags, bool) else flags[keys[key][1]])
    }


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_freezing(path):
    record, config, params, keys = described(path)
    assert set(keys) == set(record["keys"])
    # What no gradient reaches is not trained here, frozen or not.
    unused = set(record["keys_without_gradient"])
    assert frozen_keys(params, config, keys, freeze_layer_num=-1) == unused
    frozen = frozen_keys(params, config, keys, freeze_layer_num=0)
    assert frozen == set(record["frozen_when_freeze_layer_num_0"]) | unused
    meant = frozen_keys(params, config, keys, freeze_layer_num=0, train_video_projection=True)
    assert frozen - meant == {
        "clip.visual_proj",
        "clip.visual_ln_post.weight",
        "clip.visual_ln_post.bias",
    }


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_parameter_groups(path):
    record, _, _, keys = described(path)
    group_of = parameter_groups(1.0, 0.5, 0.2)
    for key, (ours, _) in keys.items():
        if key == "clip.text_mask_embedding":  # never trained
            continue
        group = group_of(ours)
        decay = "decay" if group.weight_decay else "nodecay"
        side = "clip" if group.learning_rate == 0.5 else "other"
        assert f"{decay}/{side}" == record["optimizer_group"][key], key
