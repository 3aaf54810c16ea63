"""InternVideo's tower and recipe: what it reads, what starts how, and what is refused."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.models.initialise import initialise_from_clip
from vtr_jax.models.interactions.mean_pooling import l2_normalise
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.recipes.internvideo import clip_vector, listed_layers
from vtr_jax.models.retriever import abstract_retriever, init_retriever
from vtr_jax.models.runtime import Runtime
from vtr_jax.models.video_tower import VideoTower, VideoTowerConfig, layer_runs

RECIPE = recipe_named("internvideo")


def path_leaves(params):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def nth(stack, layer):
    """One layer of a stack of modules."""
    return jax.tree.map(lambda leaf: leaf[layer], stack)


@pytest.fixture(scope="module")
def retriever(tiny_retriever):
    """Two vision layers, both listed."""
    return tiny_retriever("internvideo")


@pytest.fixture(scope="module")
def tower(retriever):
    spec = RECIPE.vision_tower(retriever.config, retriever.runtime)
    return spec.bind(retriever.params["visual"])


@pytest.fixture(scope="module")
def frames(tiny_batch):
    rng = np.random.default_rng(3)
    return rng.standard_normal(tiny_batch["frames"].shape).astype(np.float32)


@pytest.fixture(scope="module")
def stages(tower, frames):
    return jax.jit(lambda tower, frames: tower.stages(frames))(tower, frames)


@pytest.mark.parametrize(
    ("layers", "listed", "runs"),
    [
        (12, (8, 9, 10, 11), [(0, 8, None), (8, 12, 0)]),
        (3, (0, 1, 2), [(0, 3, 0)]),
        (6, (1, 2, 4), [(0, 1, None), (1, 3, 0), (3, 4, None), (4, 5, 2), (5, 6, None)]),
        (4, (0,), [(0, 1, 0), (1, 4, None)]),
    ],
)
def test_runs_of_layers(layers, listed, runs):
    assert list(layer_runs(layers, listed)) == runs


@pytest.mark.parametrize("listed", [(0, 2), (1,), (0, 1, 3)])
def test_runs_give_what_layer_after_layer_gives(listed, tiny_clip):
    """Lists with gaps: the j-th reader belongs to the j-th listed layer."""
    vision = dataclasses.replace(tiny_clip.vision, layers=4)
    spec = ModuleSpec(VideoTower, VideoTowerConfig(vision, listed), Runtime())
    params = spec.init(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    params = structure.unflatten(
        [leaf + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    )
    frames = rng.standard_normal((2, 3, 16, 16, 3)).astype(np.float32)

    def one_by_one(params, frames):
        tower = spec.bind(params)
        x, token = tower.embed(frames), tower.temporal.first(2)
        for layer in range(4):
            x = nth(tower.transformer.blocks, layer)(x, None, False)
            if layer in listed:
                reader = nth(tower.temporal.blocks, listed.index(layer))
                token, _ = reader(token, x.reshape(2, 3, *x.shape[1:]))
        return tower.project(tower.temporal.mix(token, x[:, 0].reshape(2, 3, -1)))

    ours = jax.jit(lambda params, frames: spec.bind(params)(frames, None).pooled)(params, frames)
    np.testing.assert_allclose(ours, jax.jit(one_by_one)(params, frames), rtol=1e-5, atol=1e-5)


def test_positions_are_a_zero_padded_depthwise_convolution(tower, stages, frames):
    """Against XLA's grouped convolution, for the first listed layer."""
    b, f, side = *frames.shape[:2], 2
    patches = stages.blocks[0][:, 1:].reshape(b, f, side, side, -1)
    blocks = tower.temporal.blocks.positions
    convolved = jax.lax.conv_general_dilated(
        patches,
        blocks.kernel[...][0],
        (1, 1, 1),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=patches.shape[-1],
    )
    np.testing.assert_allclose(
        stages.positions[0], convolved + blocks.bias[...][0], rtol=1e-5, atol=1e-5
    )


def test_the_token_attends_as_multi_head_attention_does(tower):
    """Against keys and values of every token; the key's bias cancels."""
    attn = nth(tower.temporal.blocks, 0).attn
    rng = np.random.default_rng(0)
    query, tokens = rng.standard_normal((2, 32)), rng.standard_normal((2, 7, 32))
    q, k, v = (
        part.reshape(2, -1, attn.heads, 32 // attn.heads)
        for part in (
            query[:, None] @ attn.qkv.kernel[...][:, :32] + attn.qkv.bias[...][:32],
            tokens @ attn.qkv.kernel[...][:, 32:64] + attn.qkv.bias[...][32:64],
            tokens @ attn.qkv.kernel[...][:, 64:] + attn.qkv.bias[...][64:],
        )
    )
    mixed = jax.nn.dot_product_attention(q, k, v).reshape(2, 32)
    ours = attn(jnp.asarray(query, jnp.float32), jnp.asarray(tokens, jnp.float32))
    np.testing.assert_allclose(ours, attn.out(mixed), rtol=2e-5, atol=2e-5)


def test_the_token_changes_no_frame(retriever, frames, tiny_batch):
    """The stream through the blocks is CLIP's, whatever the readers add to their copies."""
    mask = tiny_batch["frame_mask"]
    other = jax.tree.map(lambda leaf: leaf, retriever.params)
    temporal = jax.tree.map(lambda leaf: leaf + 0.5, other["visual"]["temporal"])
    other = {**other, "visual": {**other["visual"], "temporal": temporal}}
    one = retriever.encode_video(frames, mask)
    two = type(retriever)(other, {}, retriever.config).encode_video(frames, mask)
    np.testing.assert_array_equal(one.frames, two.frames)
    assert np.abs(one.pooled - two.pooled).max() > 0.1


def test_padded_frames_are_read_like_any_other(retriever, frames):
    """As in the original: the tower never sees the mask, and zero pictures are pictures."""
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1]], np.int32)
    padded = retriever.encode_video(frames, mask)
    cut = retriever.encode_video(frames[:, :2], mask[:, :2])
    assert np.abs(padded.pooled[1] - cut.pooled[1]).max() > 1e-3
    zeroed = frames.copy()
    zeroed[1, 2] = 0
    full = retriever.encode_video(zeroed, np.ones_like(mask))
    np.testing.assert_allclose(padded.pooled, full.pooled, rtol=1e-5, atol=1e-5)


def test_any_number_of_frames_is_read(retriever, frames):
    many = np.concatenate([frames, frames], axis=1)
    video = retriever.encode_video(many, np.ones(many.shape[:2], np.int32))
    assert video.pooled.shape == (3, 32) and video.frames.shape == (3, 6, 32)
    assert video.patches is None


def test_shorter_captions_score_alike(retriever, tiny_batch):
    """The original takes the whole context only; padding stands after the end of the text."""
    ids, mask = tiny_batch["token_ids"], tiny_batch["token_mask"]
    longer = [np.pad(array, ((0, 0), (0, 4))) for array in (ids, mask)]
    one, two = retriever.encode_text(ids, mask), retriever.encode_text(*longer)
    np.testing.assert_allclose(one.sentence, two.sentence, rtol=1e-5, atol=1e-5)


def test_a_clip_without_a_frame_has_no_score(retriever, frames, tiny_batch):
    mask = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0]], np.int32)
    video = retriever.encode_video(frames, mask)
    text = retriever.encode_text(tiny_batch["token_ids"], tiny_batch["token_mask"])
    scores = np.asarray(retriever.similarity(text, video))
    assert np.isnan(scores[:, 1]).all() and np.isfinite(scores[:, [0, 2]]).all()
    np.testing.assert_array_equal(clip_vector(video)[1], 0)


def test_recomputing_blocks_changes_no_gradient(retriever, frames, tiny_batch):
    def loss(retriever):
        text = retriever.encode_text(tiny_batch["token_ids"], tiny_batch["token_mask"])
        return retriever.loss(text, retriever.encode_video(frames, tiny_batch["frame_mask"]))[0]

    plain = path_leaves(jax.grad(loss)(retriever).params)
    again = path_leaves(jax.grad(loss)(retriever.with_runtime(remat=True)).params)
    for path, leaf in plain.items():
        np.testing.assert_allclose(leaf, again[path], rtol=1e-4, atol=1e-6, err_msg=path)


def test_lower_precision_stays_near(retriever, frames, tiny_batch):
    mask = tiny_batch["frame_mask"]
    exact = l2_normalise(retriever.encode_video(frames, mask).pooled)
    rough = l2_normalise(
        retriever.with_runtime(compute_dtype="bfloat16").encode_video(frames, mask).pooled
    )
    assert rough.dtype == jnp.float32
    assert np.einsum("bd,bd->b", exact, rough).min() > 0.99


def test_a_fresh_token_adds_nothing(tiny_clip, frames, tiny_batch):
    """Readers start silent, so a clip starts as half its mean class token."""
    fresh = init_retriever(RECIPE.config(tiny_clip), jax.random.key(0))
    spec = RECIPE.vision_tower(fresh.config, fresh.runtime)
    tower = spec.bind(fresh.params["visual"])
    stages = tower.stages(jnp.asarray(frames))
    np.testing.assert_array_equal(stages.tokens, 0)
    last = stages.blocks[-1][:, 0].reshape(3, 3, -1).mean(axis=1)
    np.testing.assert_allclose(stages.mixed, last / 2, rtol=1e-5, atol=1e-6)
    kernel = fresh.params["visual"]["temporal"]["blocks"]["positions"]["kernel"]
    assert np.abs(kernel).max() <= 27**-0.5 and np.abs(kernel).std() > 0.05


def test_it_starts_from_clip(tiny_retriever):
    clip = tiny_retriever("clip")
    started = initialise_from_clip(clip, "internvideo", jax.random.key(0))
    ours, theirs = path_leaves(started.params), path_leaves(clip.params)
    assert set(theirs) < set(ours)
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(np.reshape(ours[path], leaf.shape), leaf, err_msg=path)
    expected = path_leaves(abstract_retriever(started.config).params)
    assert {p: leaf.shape for p, leaf in ours.items()} == {
        p: leaf.shape for p, leaf in expected.items()
    }


def test_the_last_layers_are_listed_by_default(tiny_clip):
    assert listed_layers(RECIPE.config(tiny_clip)) == (0, 1)
    assert listed_layers(RECIPE.config(tiny_clip, {}, {"temporal_blocks": 1})) == (1,)
    assert listed_layers(RECIPE.config(tiny_clip, {"return_list": [0]})) == (0,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interaction": "dp"}, "interaction: expected one of no, ti, wti, got 'dp'"),
        ({"interaction": "wti"}, "it needs wti_arch 1, 2 or 3"),
        ({"interaction": "wti", "wti_arch": 4}, "wti_arch: expected one of 0, 1, 2, 3, got 4"),
        ({"sim_header": "seqTransf"}, "gives one vector a clip.*Use meanP"),
        ({"sim_header": "maxP"}, "sim_header: expected one of meanP"),
        ({"cdcr": 1}, "cdcr=1 correlates words with frames: it needs interaction=wti"),
        ({"cdcr": 5}, "cdcr: expected one of 0, 1, 2, 3"),
        ({"interaction": "ti", "cdcr": 2}, "one vector a clip and no weights"),
        ({"interaction": "ti", "cdcr": 3}, "one vector a clip and no weights"),
        ({"return_list": [1, 0]}, "return_list: expected rising layer numbers between 0 and 1"),
        ({"return_list": [2]}, "return_list: expected rising layer numbers between 0 and 1"),
        ({"return_list": []}, "return_list: expected rising"),
        ({"return_list": "last"}, "return_list: expected rising"),
    ],
)
def test_what_the_original_cannot_do_is_refused(options, words, tiny_clip):
    with pytest.raises(ValueError, match=words):
        RECIPE.config(tiny_clip, options)


def test_as_many_layers_as_there_are_temporal_blocks(tiny_clip):
    config = RECIPE.config(tiny_clip, {"return_list": [0, 1]}, {"temporal_blocks": 1})
    with pytest.raises(ValueError, match="expected 1 of the 2 layers, one for each temporal block"):
        abstract_retriever(config)


def test_a_loss_that_draws_asks_for_a_key_or_picks(tiny_retriever, frames, tiny_batch):
    retriever = tiny_retriever("internvideo", interaction="wti", wti_arch=1, cdcr=1)
    text = retriever.encode_text(tiny_batch["token_ids"], tiny_batch["token_mask"])
    video = retriever.encode_video(frames, tiny_batch["frame_mask"])
    with pytest.raises(ValueError, match="draws samples"):
        retriever.loss(text, video)
    loss, terms = retriever.loss(text, video, rng=jax.random.key(0))
    assert float(loss) == pytest.approx(float(terms["contrastive"] + 0.001 * terms["cdcr"]))
