"""Merging an InternVideo file with a CLIP, and files that lack parameters or have others."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from vtr_jax.checkpoint import load_retriever
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.from_state_dict import to_state_dict
from vtr_jax.convert.incomplete import expected_of, with_fresh, without_unknown
from vtr_jax.convert.loading import LoadingOptions, take_loading_options
from vtr_jax.convert.merge import clip_tensors, inflated, merge_with_clip, pretrained_names

CONV1 = "clip.visual.conv1.weight"
HEADS = {"vision_heads": 2, "text_heads": 2}


@pytest.fixture(scope="module")
def retriever(tiny_retriever):
    return tiny_retriever("internvideo")


@pytest.fixture(scope="module")
def expected(retriever):
    return expected_of(retriever.config)


@pytest.fixture(scope="module")
def video_trained(retriever):
    return to_state_dict(retriever)


@pytest.fixture(scope="module")
def clip(tiny_retriever):
    """Other numbers than the video-trained one has, conv1 with two axes of space alone."""
    others = to_state_dict(tiny_retriever("clip"))
    return {name: np.asarray(value + 1) for name, value in others.items()}


@pytest.fixture
def files(video_trained, clip, tmp_path):
    """Both as files: (video-trained, CLIP)."""
    paths = tmp_path / "video.safetensors", tmp_path / "clip.safetensors"
    save_file(video_trained, paths[0])
    save_file(clip, paths[1])
    return paths


def numbers(tensor):
    return tensor.read() if hasattr(tensor, "read") else tensor


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0, 1.5, 1])
def test_what_both_have_is_mixed(weight, video_trained, clip, expected):
    merged, notes = merge_with_clip(video_trained, clip, expected, weight)
    assert set(merged) == set(video_trained)
    for name, tensor in merged.items():
        ours, bare = video_trained[name], name.removeprefix("clip.")
        theirs = clip.get(bare)
        if theirs is not None:
            ours = weight * theirs.reshape(ours.shape) + (1 - weight) * ours
        np.testing.assert_allclose(numbers(tensor), ours, rtol=1e-6, atol=1e-6, err_msg=name)
    share = f"{weight:g} x CLIP + {1 - weight:g} x the file"
    assert any(share in note for note in notes)


@pytest.mark.parametrize("projection", [False, True])
def test_the_projection_is_merged_only_where_asked(projection, video_trained, clip, expected):
    merged, _ = merge_with_clip(video_trained, clip, expected, 1.0, projection)
    for name, theirs in (
        ("clip.visual_proj", "visual.proj"),
        ("clip.visual_ln_post.bias", "visual.ln_post.bias"),
    ):
        source = clip[theirs] if projection else video_trained[name]
        np.testing.assert_array_equal(numbers(merged[name]), source)


def test_what_the_file_lacks_is_clips(video_trained, clip, expected):
    lacking = dict(video_trained)
    del lacking["clip.visual.ln_pre.bias"]
    merged, notes = merge_with_clip(lacking, clip, expected, 0.5)
    found = numbers(merged["clip.visual.ln_pre.bias"])
    np.testing.assert_array_equal(found, clip["visual.ln_pre.bias"])
    assert "from CLIP alone, the file lacks them: clip.visual.ln_pre.bias" in notes


def test_half_precision_is_merged_in_single(video_trained, clip, expected):
    halves = {name: value.astype(np.float16) for name, value in clip.items()}
    merged, _ = merge_with_clip(video_trained, halves, expected, 0.5)
    name = "clip.text_projection"
    mixed = 0.5 * halves["text_projection"].astype(np.float32) + 0.5 * video_trained[name]
    assert numbers(merged[name]).dtype == np.float32
    np.testing.assert_array_equal(numbers(merged[name]), mixed)


@pytest.mark.parametrize(("depth", "tap"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_a_kernel_becomes_the_middle_tap(depth, tap):
    kernel = np.random.default_rng(0).standard_normal((5, 3, 4, 4))
    filled = inflated(kernel, (5, 3, depth, 4, 4))
    np.testing.assert_array_equal(filled[:, :, tap], kernel)
    assert np.count_nonzero(filled) == kernel.size
    with pytest.raises(ValueError, match="cannot be inflated"):
        inflated(kernel, (5, 3, depth, 4, 5))


@pytest.mark.parametrize("weight", ["half", None, float("nan"), True])
def test_a_share_is_a_number(weight, video_trained, clip, expected):
    with pytest.raises(ValueError, match="mergeweight: expected a number"):
        merge_with_clip(video_trained, clip, expected, weight)


def test_towers_of_other_sizes_are_refused(video_trained, clip, expected):
    other = {**clip, "text_projection": np.zeros((32, 16), np.float32)}
    with pytest.raises(ValueError, match=r"text_projection of the CLIP has shape \(32, 16\)"):
        clip_tensors(other, expected)
    fewer = {**video_trained, "clip.ln_final.bias": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match="clip.ln_final.bias has shape .3,., and CLIP's .32,."):
        merge_with_clip(fewer, clip, expected, 0.5)


def test_names_are_those_of_the_whole_model():
    """Of another form: CLIP's own names of the projection, a scalar, a scorer, and no prefix."""
    names = {
        "clip.visual.proj": 1,
        "visual.ln_post.weight": 2,
        "video.clip.decoder": 3,
        "clip.context_length": 4,
        "text_weight_fc.weight": 5,
    }
    renamed, notes = pretrained_names(names)
    assert renamed == {
        "clip.visual_proj": 1,
        "clip.visual_ln_post.weight": 2,
        "clip.video.decoder": 3,
        "text_weight_fc.weight": 5,
    }
    assert notes and "adapted" in notes[0]
    with pytest.raises(ValueError, match="two of its names become clip.ln_final.bias"):
        pretrained_names({"ln_final.bias": 1, "clip.ln_final.bias": 2})


def test_a_trained_file_keeps_its_names(video_trained):
    renamed, notes = pretrained_names(video_trained)
    assert list(renamed) == list(video_trained) and notes == ()


def test_unknown_parts_are_left_out_and_named(video_trained, retriever):
    given = {**video_trained, "clip.decoder.weight": np.zeros(2), "clip.vocab_size": np.zeros(())}
    kept, notes = without_unknown(given, retriever.config)
    assert set(given) - set(kept) == {"clip.decoder.weight"}
    assert notes == ("ignored, no part of this model: clip.decoder.weight",)


def test_missing_parts_are_drawn_and_named(video_trained, retriever):
    names = ["clip.visual.ln_pre.bias", "clip.visual_proj"]
    given = {name: value for name, value in video_trained.items() if name not in names}
    whole, notes = with_fresh(given, retriever.config, seed=1)
    assert set(whole) == set(video_trained)
    np.testing.assert_array_equal(numbers(whole[names[0]]), 0)
    again, _ = with_fresh(given, retriever.config, seed=1)
    np.testing.assert_array_equal(numbers(whole[names[1]]), numbers(again[names[1]]))
    assert "start afresh from seed 1" in notes[0] and all(name in notes[0] for name in names)


def test_the_command_merges_and_says_so(files, video_trained, clip, tmp_path):
    report = convert_checkpoint(
        files[0],
        tmp_path / "merged",
        "internvideo",
        mergeclip=True,
        mergeweight=0.25,
        pretrained_clip_name=str(files[1]),
        **HEADS,
    )
    assert "0.25 x CLIP + 0.75 x the file" in str(report)
    assert "merged with clip.safetensors, sha256" in str(report)
    merged = to_state_dict(load_retriever(tmp_path / "merged"))
    kernel = 0.25 * clip["visual.conv1.weight"][:, :, None] + 0.75 * video_trained[CONV1]
    np.testing.assert_allclose(merged[CONV1], kernel, rtol=1e-6, atol=1e-6)


def test_without_being_asked_nothing_is_skipped(files, video_trained, tmp_path):
    odd = {**video_trained, "clip.text_decoder.weight": np.zeros(2, np.float32)}
    del odd["clip.ln_final.bias"]
    save_file(odd, files[0])
    with pytest.raises(ValueError, match="1 missing, 1 unexpected") as error:
        convert_checkpoint(files[0], tmp_path / "strict", "internvideo", **HEADS)
    assert "clip.ln_final.bias" in str(error.value)
    assert "clip.text_decoder.weight" in str(error.value)
    assert str(error.value).endswith(
        "(allow_missing=True draws what is missing, ignore_unknown=True leaves out what is "
        "unexpected)"
    )
    assert not (tmp_path / "strict").exists()
    skipping = {"allow_missing": True, "ignore_unknown": True}
    report = convert_checkpoint(files[0], tmp_path / "loose", "internvideo", **skipping, **HEADS)
    assert "ignored, no part of this model: clip.text_decoder.weight" in str(report)
    assert "start afresh from seed 0: clip.ln_final.bias" in str(report)


def test_a_clip_alone_starts_one(files, tmp_path):
    report = convert_checkpoint(files[1], tmp_path / "fresh", "internvideo", **HEADS)
    assert "CLIP weights start a internvideo" in str(report)
    assert load_retriever(tmp_path / "fresh").config.recipe == "internvideo"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mergeclip": True}, "mergeclip: needs the CLIP's file"),
        ({"mergeclip": "true"}, "mergeclip: expected True or False, got 'true'"),
        ({"allow_missing": 1}, "allow_missing: expected True or False"),
        ({"mergeweight": 0.0}, "mergeweight: is read with mergeclip=True only"),
        ({"merge_projection": True}, "merge_projection: is read with mergeclip=True only"),
        ({"pretrained_clip_name": "c.pt"}, "pretrained_clip_name: is read with mergeclip=True"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        LoadingOptions(**options)


def test_loading_options_are_told_apart():
    loading, others = take_loading_options({"allow_missing": True, "sim_header": "meanP"})
    assert loading == LoadingOptions(allow_missing=True)
    assert others == {"sim_header": "meanP"}


def test_other_recipes_do_not_merge(files, tmp_path):
    merging = {"mergeclip": True, "pretrained_clip_name": str(files[1])}
    with pytest.raises(ValueError, match="InternVideo merges with CLIP, clip does not"):
        convert_checkpoint(files[1], tmp_path / "clip", "clip", **merging, **HEADS)


def test_a_video_trained_file_starts_the_weighted_interaction(files, tmp_path):
    """As the original does: scorers are drawn, everything else is the file's."""
    wti = {"interaction": "wti", "wti_arch": 2, **HEADS}
    with pytest.raises(ValueError, match="8 missing"):
        convert_checkpoint(files[0], tmp_path / "strict", "internvideo", **wti)
    report = convert_checkpoint(
        files[0], tmp_path / "wti", "internvideo", allow_missing=True, seed=3, **wti
    )
    assert "start afresh from seed 3: text_weight_fc.0.weight" in str(report)
    assert dict(report.config.options)["wti_arch"] == 2
