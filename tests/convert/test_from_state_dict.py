"""State dicts of the original programs to retrievers and back."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import vtr_jax
from vtr_jax.convert.from_state_dict import config_of_state_dict

HEADS = {"vision_heads": 2, "text_heads": 2}
SEQ_TRANSF = {"sim_header": "seqTransf"}
SEQ_TRANSF_3D = {"sim_header": "seqTransf", "linear_patch": "3d"}
VARIANTS = [
    ("clip", {}),
    ("clip4clip", {"sim_header": "meanP"}),
    ("clip4clip", {"linear_patch": "3d"}),
    ("clip4clip", SEQ_TRANSF),
    ("clip4clip", SEQ_TRANSF_3D),
]


@pytest.fixture(scope="module")
def clip_dict(tiny_retriever):
    return vtr_jax.to_state_dict(tiny_retriever("clip"))


@pytest.fixture(scope="module")
def trained_dict(tiny_retriever):
    return vtr_jax.to_state_dict(tiny_retriever("clip4clip", **SEQ_TRANSF_3D))


@pytest.mark.parametrize(("recipe", "options"), VARIANTS)
def test_there_and_back(recipe, options, tiny_retriever):
    """What the key names tell need not be said again."""
    retriever = tiny_retriever(recipe, **options)
    again = vtr_jax.retriever_from_state_dict(vtr_jax.to_state_dict(retriever), recipe, **HEADS)
    assert again.config == retriever.config
    jax.tree.map(np.testing.assert_array_equal, again.params, retriever.params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(again.params))


def test_it_computes_the_same(trained_dict, tiny_retriever, tiny_batch):
    retriever = tiny_retriever("clip4clip", **SEQ_TRANSF_3D)
    again = vtr_jax.retriever_from_state_dict(trained_dict, "clip4clip", **HEADS)
    frames, mask = tiny_batch["frames"], tiny_batch["frame_mask"]
    np.testing.assert_array_equal(
        again.encode_video(frames, mask).temporal, retriever.encode_video(frames, mask).temporal
    )


def test_float16_becomes_float32_exactly(clip_dict):
    half = {key: array.astype(np.float16) for key, array in clip_dict.items()}
    retriever = vtr_jax.retriever_from_state_dict(half, "clip", **HEADS)
    for key, array in vtr_jax.to_state_dict(retriever).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, half[key].astype(np.float32), err_msg=key)


def test_scalars_of_released_archives_are_ignored(clip_dict):
    scalars = {"input_resolution": 16, "context_length": 12, "vocab_size": 64}
    given = {**clip_dict, **{name: np.array(value) for name, value in scalars.items()}}
    retriever = vtr_jax.retriever_from_state_dict(given, "clip", **HEADS)
    assert set(vtr_jax.to_state_dict(retriever)) == set(clip_dict)


def test_options_that_agree_with_the_names_are_fine(trained_dict):
    given = {**SEQ_TRANSF_3D, "loose_type": True, "cross_num_attention_heads": 8}
    config = config_of_state_dict(trained_dict, "clip4clip", **given, **HEADS)
    assert config.option("cross_num_attention_heads") == 8
    assert config.size("temporal_layers") == 2
    assert config.size("temporal_positions") == 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sim_header": "meanP"}, "sim_header=meanP contradicts its names, which say seqTransf"),
        ({"linear_patch": "2d"}, "linear_patch=2d contradicts its names, which say 3d"),
        ({"sim_heder": "meanP"}, "no option 'sim_heder'.*did you mean sim_header"),
        ({"vision_head": 2}, "no option 'vision_head'.*did you mean vision_heads"),
        ({"loose_type": False}, "loose_type=True"),
        ({"text_heads": 3}, "text_heads: 3 heads do not divide the tower's width 32"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words, trained_dict):
    with pytest.raises(ValueError, match=words):
        vtr_jax.retriever_from_state_dict(trained_dict, "clip4clip", **{**HEADS, **options})


def test_unknown_recipe_is_refused(clip_dict):
    with pytest.raises(ValueError, match="recipe: expected one of clip, clip4clip.*, got 'clap'"):
        vtr_jax.retriever_from_state_dict(clip_dict, "clap")


def test_bare_clip_is_not_a_trained_retriever(clip_dict):
    with pytest.raises(ValueError, match="without 'clip.': not a trained clip4clip. To start one"):
        vtr_jax.retriever_from_state_dict(clip_dict, "clip4clip")


def test_a_trained_retriever_is_not_a_clip(trained_dict):
    with pytest.raises(ValueError, match="this is a trained retriever; name its recipe"):
        vtr_jax.retriever_from_state_dict(trained_dict, "clip")


def test_all_that_does_not_fit_is_in_one_error(trained_dict):
    tensors = dict(trained_dict)
    del tensors["clip.ln_final.bias"]
    tensors["similarity_dense.bias"] = np.zeros(1, np.float32)
    tensors["frame_position_embeddings.weight"] = np.zeros((12, 31), np.float32)
    with pytest.raises(ValueError, match="1 missing, 1 unexpected, 1 wrong shape") as caught:
        vtr_jax.retriever_from_state_dict(tensors, "clip4clip", **HEADS)
    message = str(caught.value)
    assert "clip.ln_final.bias (32,)" in message
    assert "similarity_dense.bias (1,)" in message
    assert "frame_position_embeddings.weight: expected (12, 32), found (12, 31)" in message
