"""The comparison with recorded numbers can fail: each way of being wrong is found."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from vtr_jax.convert.from_state_dict import to_state_dict
from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.recipes.recipe import bind_modules
from vtr_jax.parity import compare
from vtr_jax.parity.cases import case_weights, find_cases, load_case
from vtr_jax.parity.compare import (
    Deviation,
    case_inputs,
    compare_case,
    compare_gradients,
    deviation,
    retriever_of,
    run_case,
)
from vtr_jax.parity.kinds import kind_of
from vtr_jax.parity.systems import SYSTEMS

# The project's own cases, whatever folder is compared.
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def case():
    return load_case(GOLDEN / "clip" / "vit-p32.json")


@pytest.fixture(scope="module")
def retriever(case):
    return retriever_of(case)


def failing(case, retriever) -> set[str]:
    return {d.name for d in compare_case(case, retriever) if not d.holds}


def with_arrays(case, tmp_path, arrays):
    """The same case with other recorded arrays."""
    path = tmp_path / case.system / case.path.name
    path.parent.mkdir(exist_ok=True)
    path.write_text(case.path.read_text())
    np.savez(path.with_suffix(".npz"), **arrays)
    return load_case(path)


def test_the_recorded_case_holds(case, retriever):
    assert failing(case, retriever) == set()


def test_a_perturbed_weight_is_found(case):
    weights = case_weights(case)
    weights["visual.transformer.resblocks.1.mlp.c_fc.bias"] += 1e-3
    found = failing(case, retriever_of(case, weights))
    assert {"image_features", "visual_tokens", "visual_block1_item0"} <= found
    assert "visual_block0_item0" not in found
    assert "text_features" not in found


def test_a_wrong_norm_epsilon_is_found(case, retriever):
    vision = dataclasses.replace(retriever.config.clip.vision, layer_norm_eps=1e-12)
    clip = ClipConfig(vision, retriever.config.clip.text)
    config = dataclasses.replace(retriever.config, clip=clip)
    found = failing(case, dataclasses.replace(retriever, config=config))
    assert "image_features" in found
    assert "text_features" not in found


def test_the_epsilon_of_a_head_is_found():
    """1e-5 for 1e-12 changes little: only a narrow tolerance inside the head shows it."""
    case = load_case(GOLDEN / "clip4clip" / "seqTransf-2d.json")
    retriever, arrays = retriever_of(case), case.arrays()
    video = run_case(retriever, case_inputs(case, arrays)).video
    specs = retriever.recipe.modules(retriever.config, retriever.runtime)
    recorded = arrays["frame_transformer_out"]

    def holds(epsilon):
        temporal = bind_modules(specs, retriever.params)["aggregation"]
        blocks = temporal.transformer.blocks
        blocks.ln_1.epsilon = blocks.ln_2.epsilon = epsilon
        ours = temporal.transformed(video.frames, video.mask)
        return deviation("inside a head", "frame_transformer_out", ours, recorded).holds

    assert holds(1e-12)
    assert not holds(1e-5)


def test_a_wrong_activation_is_found(case, retriever):
    text = dataclasses.replace(retriever.config.clip.text, activation="gelu")
    config = dataclasses.replace(
        retriever.config, clip=ClipConfig(retriever.config.clip.vision, text)
    )
    assert "text_features" in failing(case, dataclasses.replace(retriever, config=config))


def test_an_array_that_is_not_known_is_an_error(case, retriever, tmp_path):
    other = with_arrays(case, tmp_path, {**case.arrays(), "patch_norms": np.ones(3)})
    with pytest.raises(ValueError, match="nothing here corresponds to the recorded 'patch_norms'"):
        compare_case(other, retriever)


def test_a_case_without_results_is_an_error(case, retriever, tmp_path):
    inputs = {name: case.arrays()[name] for name in ("token_ids", "token_mask")}
    with pytest.raises(ValueError, match="recorded nothing that could be compared"):
        compare_case(with_arrays(case, tmp_path, inputs), retriever)


def test_an_array_of_another_shape_is_found(case, retriever, tmp_path):
    arrays = {**case.arrays(), "text_features": case.arrays()["text_features"][:, :-1]}
    assert failing(with_arrays(case, tmp_path, arrays), retriever) == {"text_features"}


INDICES = {"max_frame_index_diag": "token_mask", "max_token_index_diag": "video_mask"}


def test_positions_of_padding_are_not_compared(tmp_path):
    """Of a word or frame that is none, the best partner means nothing."""
    case = load_case(GOLDEN / "backbone_tvr" / "none.json")
    retriever, arrays = retriever_of(case), case.arrays()
    inputs = {name: arrays[name] for name in ("token_ids", "token_mask", "video_mask")}
    padding, meant = dict(inputs), dict(inputs)
    for name, mask in INDICES.items():
        assert (arrays[mask] == 0).any() and (arrays[mask] == 1).any()
        padding[name] = np.where(arrays[mask] == 1, arrays[name], 10_000)
        meant[name] = arrays[name].copy()
        meant[name][0, 0] += 1
    assert failing(with_arrays(case, tmp_path, padding), retriever) == set()
    assert failing(with_arrays(case, tmp_path, meant), retriever) == {*INDICES}
    shorter = {**inputs, **{name: arrays[name][:, :-1] for name in INDICES}}
    assert failing(with_arrays(case, tmp_path, shorter), retriever) == {*INDICES}


EMCL_NAMES = {
    "eval_logits": "logits",
    "eval_logits_tile3": "logits",
    "eval_logits_after3": "logits",
    "train_logits": "logits",
    "train_logits_step2": "logits",
    "train_loss_step1": "loss",
    "train_loss_t2v": "loss",
    "train_loss_v2t": "loss",
}


@pytest.mark.parametrize(("name", "kind"), EMCL_NAMES.items())
def test_a_badly_conditioned_case_allows_what_it_states(name, kind):
    """20 times its float64 deviation, which is absolute, where that exceeds the kind's."""
    case = load_case(GOLDEN / "emcl" / "none.json")
    recorded = np.array([-3.0, 1.0]) if kind == "logits" else np.array(-4.0)
    row = SYSTEMS["emcl"].arrays[name]

    def allowed(stated):
        record = {**case.record, "operator_float64_max_abs_dev": stated}
        return row.tolerance(dataclasses.replace(case, record=record), recorded)

    assert row.kind == kind
    assert allowed(1e-3) == pytest.approx(20 * 1e-3 / 4)
    assert allowed(1e-8) == compare.TOLERANCES[kind]


def test_the_scorers_of_internvideo_are_those_the_flag_names():
    """Whatever the interaction: where it is not wti the recipe reads none."""
    config = {"interaction": "no", "wti_arch": 2, "resolution": 32, "sim_header": "meanP"}
    assert SYSTEMS["internvideo"].options(config) == {
        "interaction": "no",
        "wti_arch": 2,
        "sim_header": "meanP",
    }


def test_frames_that_cannot_be_regenerated_are_an_error(case):
    record = {**case.record, "video_sha256": "0" * 64, "config": {**case.config}}
    arrays = {"token_ids": np.zeros((1, 4), np.int32), "video_mask": np.ones((1, 2), np.int32)}
    other = dataclasses.replace(case, record=record)
    with pytest.raises(ValueError, match="the regenerated frames differ from the recorded ones"):
        case_inputs(other, arrays)


def test_images_are_clips_of_one_frame(case):
    """Recorded ones are fed as they are, whatever the salt would give."""
    token_ids = np.zeros((3, 4), np.int32)
    image = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    inputs = case_inputs(case, {"token_ids": token_ids, "image": image})
    np.testing.assert_array_equal(inputs.frames[:, 0], image.transpose(0, 2, 3, 1))
    assert inputs.frame_mask.tolist() == [[1], [1]]
    regenerated = case_inputs(case, case.arrays())
    again = {**case.arrays(), "image": np.moveaxis(regenerated.frames[:, 0], -1, 1)}
    record = {name: value for name, value in case.record.items() if name != "salt"}
    recorded = case_inputs(dataclasses.replace(case, record=record), again)
    np.testing.assert_array_equal(recorded.frames, regenerated.frames)


def test_images_that_cannot_be_regenerated_are_an_error(case):
    other = dataclasses.replace(case, record={**case.record, "image_sha256": "0" * 64})
    with pytest.raises(ValueError, match="the regenerated frames differ from the recorded ones"):
        case_inputs(other, {"token_ids": np.zeros((1, 4), np.int32)})


def test_a_case_without_any_pictures_says_what_to_record(case):
    record = {name: value for name, value in case.record.items() if name != "salt"}
    arrays = {"token_ids": np.zeros((1, 4), np.int32), "video_mask": np.ones((1, 2), np.int32)}
    with pytest.raises(ValueError, match=r"vit-p32\.npz: expected the frames .* as `video`"):
        case_inputs(dataclasses.replace(case, record=record), arrays)


@pytest.fixture(scope="module")
def gradients(tiny_retriever):
    """Any retriever will do: what counts is how its arrays are compared."""
    return tiny_retriever("clip4clip", sim_header="seqTransf")


@pytest.fixture
def recorded(gradients):
    """What an original would have recorded of these gradients."""
    arrays = {}
    for key, gradient in to_state_dict(gradients).items():
        arrays[f"gradnorm/{key}"] = np.array(np.linalg.norm(gradient.astype(np.float64)))
        arrays[f"gradhead/{key}"] = gradient.ravel()[:8]
    return arrays


def wrong_gradients(gradients, arrays) -> list[str]:
    return [d.name for d in compare_gradients(gradients, arrays) if not d.holds]


KEY = "transformerClip.resblocks.1.mlp.c_fc.weight"


def test_equal_gradients_hold(gradients, recorded):
    assert wrong_gradients(gradients, recorded) == []


def test_a_gradient_of_another_length_is_found(gradients, recorded):
    recorded[f"gradnorm/{KEY}"] = recorded[f"gradnorm/{KEY}"] * 1.01
    assert wrong_gradients(gradients, recorded) == [f"gradnorm/{KEY}"]


def test_a_gradient_of_another_direction_is_found(gradients, recorded):
    recorded[f"gradhead/{KEY}"] = -recorded[f"gradhead/{KEY}"]
    assert wrong_gradients(gradients, recorded) == [f"gradhead/{KEY}"]


def test_a_gradient_that_the_original_does_not_have_must_be_zero(gradients, recorded):
    del recorded[f"gradnorm/{KEY}"]
    assert wrong_gradients(gradients, recorded) == [f"gradnorm/{KEY}"]
    zero = jax.tree.map(np.zeros_like, gradients)
    assert wrong_gradients(zero, {}) == []


def test_a_recorded_gradient_of_an_unknown_parameter_is_an_error(gradients, recorded):
    recorded["gradnorm/similarity_dense.bias"] = np.array(0.0)
    with pytest.raises(ValueError, match="corresponds to the recorded gradnorm/similarity_dense"):
        compare_gradients(gradients, recorded)


@pytest.mark.parametrize(
    ("kind", "ours", "recorded", "expected"),
    [
        ("feature", [100.0, 1.0], [100.0, 1.5], 0.5),  # absolute
        ("logits", [0.0, 5.0], [0.0, 4.0], 0.25),  # of the spread
        ("logits", [7.0, 7.0], [7.0, 7.0], 0.0),
        ("loss", [2.2], [2.0], 0.1),  # relative
        ("logits", [np.nan, 1.0], [np.nan, 1.0], 0.0),
        ("logits", [np.nan, 1.0], [3.0, 1.0], math.inf),
        ("feature", [1.0], [1.0, 1.0], math.inf),
    ],
)
def test_each_kind_has_its_own_measure(kind, ours, recorded, expected):
    found = deviation(kind, "x", np.array(ours), np.array(recorded))
    assert found.deviation == pytest.approx(expected)
    assert found.holds == (expected == 0.0)
    assert found.tolerance == compare.TOLERANCES[kind]


def test_nan_never_holds():
    assert not Deviation("x", "feature", math.nan, 1.0).holds


def test_names_with_a_number_are_one_row():
    row = SYSTEMS["clip"].arrays["text_block11_item0"]
    assert row.kind == "feature"
    for name in ("text_block_item0", "image_block1_item0", "gradnorm_total2"):
        with pytest.raises(KeyError):
            SYSTEMS["clip"].arrays[name]


def write_case(folder: Path, name: str, record) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize(
    ("system", "name", "record", "kind"),
    [
        ("clip", "vit", {"system": "clip", "config": {}}, "model"),
        ("clip", "vit", {"config": {}}, "model"),  # the folder's name is the system
        ("clip4clip", "x", {"config": {"task_config": {"sim_header": "meanP"}}}, "model"),
        ("clip4clip", "freeze", {"config": {}}, "freeze"),
        ("clip4clip", "bertadam-x", {"config": {}}, "optimizer"),
        ("clip4clip", "allgather", {"config": {}}, "information"),
        ("frames", "slice_table", [[1, 2]], "data"),
        ("metrics", "square", {}, "evaluation"),
        ("files", "tiny", {"system": "clip-file", "file": "x.pt", "config": {}}, "file"),
        ("files", "internvideo-files", {"system": "internvideo"}, "merged-files"),
        ("emcl", "operator", {"system": "emcl", "config": {}}, "operator"),
        ("drl", "extra_bertadam", {"system": "drl"}, "recipe-optimizer"),
        ("eercf", "rerank_top3", {"system": "eercf", "config": {}}, "evaluation"),
        ("files", "awkward", {"system": "tensor-file"}, "tensor-file"),
    ],
)
def test_kinds_of_cases(system, name, record, kind, tmp_path):
    assert kind_of(write_case(tmp_path / system, name, record)) == kind


def test_an_unknown_system_is_an_error(tmp_path):
    for record in ({"system": "siglip", "config": {}}, {"config": {}}):
        with pytest.raises(ValueError, match="unknown system 'siglip'"):
            kind_of(write_case(tmp_path / "siglip", "base", record))


def test_every_case_below_a_folder_is_found(tmp_path):
    for folder, name in (("b/clip", "two"), ("a/clip", "one"), ("files/tiny-hf", "config")):
        write_case(tmp_path / folder, name, {})
    assert [path.stem for path in find_cases(tmp_path)] == ["one", "two"]
