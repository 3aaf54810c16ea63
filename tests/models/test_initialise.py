"""Starting CLIP4Clip from CLIP: what is copied, what is drawn, what is refused."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from vtr_jax.models.initialise import initialise_from_clip
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import abstract_retriever

SEQ_TRANSF = {"sim_header": "seqTransf"}


@pytest.fixture(scope="module")
def clip(tiny_retriever):
    return tiny_retriever("clip")


def start(clip, options=None, sizes=None, seed=0):
    return initialise_from_clip(clip, "clip4clip", jax.random.key(seed), options, sizes)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_towers_are_the_clips(clip):
    started = start(clip)
    assert_equal(started.params, clip.params)
    assert started.config.recipe == "clip4clip"


def test_it_fits_its_own_description(clip):
    options = {**SEQ_TRANSF, "linear_patch": "3d"}
    started = start(clip, options, {"temporal_layers": 5})
    shapes = jax.tree.map(lambda leaf: leaf.shape, started.params)
    expected = abstract_retriever(started.config).params
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, expected)


@pytest.mark.parametrize("layers", [2, 5])
def test_temporal_layers_start_as_the_first_of_the_text_tower(clip, layers):
    """The text tower has three; what lies above them is drawn."""
    started = start(clip, SEQ_TRANSF, {"temporal_layers": layers})
    text = clip.params["text"]["transformer"]["blocks"]
    blocks = started.params["aggregation"]["transformer"]["blocks"]
    copied = min(layers, 3)
    assert_equal(
        jax.tree.map(lambda leaf: leaf[:copied], blocks),
        jax.tree.map(lambda leaf: leaf[:copied], text),
    )
    kernels = blocks["attn"]["qkv"]["kernel"]
    assert kernels.shape[0] == layers
    assert np.abs(kernels[copied:]).sum() > 0 or copied == layers
    positions = started.params["aggregation"]["position_embedding"]
    assert_equal(positions, clip.params["text"]["position_embedding"])


def test_what_clip_lacks_follows_the_seed(clip):
    def drawn(seed):
        started = start(clip, SEQ_TRANSF, {"temporal_layers": 5}, seed)
        return np.asarray(
            started.params["aggregation"]["transformer"]["blocks"]["mlp"]["fc"]["kernel"]
        )

    np.testing.assert_array_equal(drawn(0), drawn(0))
    np.testing.assert_array_equal(drawn(0)[:3], drawn(1)[:3])
    assert not np.allclose(drawn(0)[3], drawn(1)[3])


def test_3d_patches_start_as_the_2d_ones(clip, tiny_batch):
    flat, deep = start(clip), start(clip, {"linear_patch": "3d"})
    kernel = deep.params["visual"]["patch_embedding_3d"]["kernel"]
    assert not kernel[0].any()
    assert not kernel[2].any()
    frames, mask = tiny_batch["frames"], tiny_batch["frame_mask"]
    np.testing.assert_allclose(
        flat.encode_video(frames, mask).frames, deep.encode_video(frames, mask).frames, atol=1e-6
    )


def test_unknown_options_are_refused(clip):
    with pytest.raises(ValueError, match="no option 'sim_head'.*did you mean sim_header"):
        start(clip, {"sim_head": "seqTransf"})
    with pytest.raises(ValueError, match="linear_patch: expected one of 2d, 3d, got '4d'"):
        start(clip, {"linear_patch": "4d"})


def test_a_text_tower_of_another_width_cannot_seed_the_frames(clip):
    text = dataclasses.replace(clip.config.clip.text, width=64)
    towers = dataclasses.replace(clip.config.clip, text=text)
    other = abstract_retriever(recipe_named("clip").config(towers))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), other.params)
    with pytest.raises(ValueError, match="width 64 must equal the joint width 32; use frame"):
        start(dataclasses.replace(other, params=params), SEQ_TRANSF)
