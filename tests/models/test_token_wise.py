"""Token-wise interaction against its definition, pair by pair, and its independence of tiles."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.models.interactions.token_wise import (
    BACKBONE_TVR_MASKED,
    DRL_MASKED,
    LAYERS_OF_ARCH,
    TokenWeight,
    TokenWeightConfig,
    WeightedVectors,
    mean_weights,
    own_similarities,
    softmax_weights,
    token_wise_scores,
    weighted,
)
from vtr_jax.models.module_spec import ModuleSpec
from vtr_jax.models.runtime import Runtime

TEXTS, VIDEOS, WORDS, FRAMES, WIDTH = 7, 5, 6, 4, 8


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(3)
    lengths_t, lengths_v = rng.integers(1, WORDS + 1, TEXTS), rng.integers(1, FRAMES + 1, VIDEOS)
    return {
        "tokens": np.float32(rng.standard_normal((TEXTS, WORDS, WIDTH))),
        "frames": np.float32(rng.standard_normal((VIDEOS, FRAMES, WIDTH))),
        "token_mask": np.int32(np.arange(WORDS) < lengths_t[:, None]),
        "frame_mask": np.int32(np.arange(FRAMES) < lengths_v[:, None]),
        "raw_tokens": np.float32(rng.standard_normal((TEXTS, WORDS))),
        "raw_frames": np.float32(rng.standard_normal((VIDEOS, FRAMES))),
    }


def sides_of(arrays, masked=DRL_MASKED):
    return tuple(
        weighted(
            arrays[name], mask, softmax_weights(jnp.asarray(arrays[f"raw_{name}"]), mask, masked)
        )
        for name, mask in (("tokens", arrays["token_mask"]), ("frames", arrays["frame_mask"]))
    )


@functools.partial(jax.jit, static_argnums=2)
def scores_of(text, video, tile):
    return token_wise_scores(text, video, tile)


def pair_scores(tokens, frames, token_mask, frame_mask, token_weights, frame_weights):
    """(t2v, v2t) of one pair, word by word as the formula is written."""
    similarity = np.zeros((WORDS, FRAMES))
    for t in np.flatnonzero(token_mask):
        for v in np.flatnonzero(frame_mask):
            norms = np.linalg.norm(tokens[t]) * np.linalg.norm(frames[v])
            similarity[t, v] = tokens[t] @ frames[v] / norms
    return token_weights @ similarity.max(axis=1), frame_weights @ similarity.max(axis=0)


@pytest.mark.parametrize("kind", ["wti", "ti"])
def test_scores_are_the_definition(arrays, kind):
    text, video = sides_of(arrays)
    if kind == "ti":
        text = weighted(arrays["tokens"], arrays["token_mask"], mean_weights(text.mask))
        video = weighted(arrays["frames"], arrays["frame_mask"], mean_weights(video.mask))
    expected = np.array(
        [
            [
                pair_scores(
                    arrays["tokens"][a],
                    arrays["frames"][b],
                    arrays["token_mask"][a],
                    arrays["frame_mask"][b],
                    np.asarray(text.weights[a], np.float64),
                    np.asarray(video.weights[b], np.float64),
                )
                for b in range(VIDEOS)
            ]
            for a in range(TEXTS)
        ]
    )
    scores = scores_of(text, video, 64)
    # Sums of at most six cosines in float32.
    np.testing.assert_allclose(scores["t2v"], expected[..., 0], atol=1e-6)
    np.testing.assert_allclose(scores["v2t"], expected[..., 1], atol=1e-6)
    np.testing.assert_allclose(scores["logits_tv"], expected.mean(axis=-1), atol=1e-6)


@pytest.mark.parametrize("tile", [1, 3, 5, 6])
def test_results_do_not_depend_on_the_tile(arrays, tile):
    text, video = sides_of(arrays)
    whole, tiled = scores_of(text, video, 64), scores_of(text, video, tile)
    for name, matrix in whole.items():
        # Products of other shapes may add in another order.
        np.testing.assert_allclose(tiled[name], matrix, atol=3e-7, err_msg=name)


@pytest.mark.parametrize("tile", [2, 5])
def test_gradients_do_not_depend_on_the_tile(arrays, tile):
    upstream = jnp.asarray(np.random.default_rng(1).standard_normal((TEXTS, VIDEOS)))

    @functools.partial(jax.jit, static_argnums=1)
    def gradients(sides, tile):
        def total(sides):
            return jnp.sum(upstream * token_wise_scores(*sides, tile)["logits_tv"])

        return jax.grad(total)(sides)

    whole, tiled = gradients(sides_of(arrays), 64), gradients(sides_of(arrays), tile)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), whole, tiled)


def test_padding_counts_as_zero_and_not_as_absent():
    """A word whose only frame is its opposite scores -1, or 0 once the clip is padded."""
    tokens, frames = np.array([[[1.0, 0.0]]]), np.array([[[-2.0, 0.0], [0.0, 1.0]]])
    one_word = weighted(tokens, np.ones((1, 1)), np.ones((1, 1)))

    def t2v(frames, mask):
        video = weighted(frames, mask, mean_weights(mask))
        return float(token_wise_scores(one_word, video, 64)["t2v"][0, 0])

    assert t2v(frames[:, :1], np.array([[1]])) == -1.0
    assert t2v(frames, np.array([[1, 0]])) == 0.0


def test_features_at_padding_never_matter(arrays):
    text, video = sides_of(arrays)
    changed = np.where(arrays["frame_mask"][..., None] > 0, arrays["frames"], 9.0)
    other = weighted(np.float32(changed), arrays["frame_mask"], video.weights)
    np.testing.assert_array_equal(
        scores_of(text, video, 64)["logits_tv"], scores_of(text, other, 64)["logits_tv"]
    )


@pytest.mark.parametrize("masked", [DRL_MASKED, BACKBONE_TVR_MASKED])
def test_weights_are_a_softmax_over_the_real_positions(arrays, masked):
    weights = softmax_weights(jnp.asarray(arrays["raw_tokens"]), arrays["token_mask"], masked)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    assert (np.asarray(weights)[arrays["token_mask"] == 0] == 0).all()


def test_a_clip_without_a_frame_is_nan_in_drl_and_zero_in_backbone_tvr(arrays):
    """Its own column alone, in both."""
    emptied = dict(arrays, frame_mask=arrays["frame_mask"] * (np.arange(VIDEOS) != 2)[:, None])
    whole = np.asarray(scores_of(*sides_of(arrays), 3)["logits_tv"])
    for masked, expected in ((DRL_MASKED, np.nan), (BACKBONE_TVR_MASKED, 0.0)):
        logits_tv = np.asarray(scores_of(*sides_of(emptied, masked), 3)["logits_tv"])
        np.testing.assert_array_equal(logits_tv[:, 2], np.full(TEXTS, expected))
        others = [0, 1, 3, 4]
        np.testing.assert_allclose(logits_tv[:, others], whole[:, others], atol=3e-7)
    assert np.isnan(mean_weights(jnp.zeros((1, 3)))).all()


def test_own_similarities_are_the_diagonal(arrays):
    text, video = sides_of(arrays)
    same = jax.tree.map(lambda leaf: leaf[:VIDEOS], text)
    own_blf = own_similarities(same, video)
    for b in range(VIDEOS):
        best = np.asarray(own_blf[b]).max(axis=1) @ np.asarray(same.weights[b])
        assert best == pytest.approx(float(scores_of(same, video, 64)["t2v"][b, b]), abs=1e-6)


@pytest.mark.parametrize("arch", LAYERS_OF_ARCH)
def test_token_weights_have_as_many_layers_as_wti_arch(arch):
    spec = ModuleSpec(TokenWeight, TokenWeightConfig(WIDTH, arch), Runtime())
    params = spec.init(jax.random.key(0))
    assert tuple(params) == LAYERS_OF_ARCH[arch] and len(params) == arch
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    x = np.random.default_rng(0).standard_normal((2, 3, WIDTH)).astype(np.float32)
    expected = x
    for name in LAYERS_OF_ARCH[arch]:
        expected = expected @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])
        if name != LAYERS_OF_ARCH[arch][-1]:
            expected = np.maximum(expected, 0)
    np.testing.assert_allclose(spec.bind(params)(x), expected[..., 0], atol=1e-5)


def test_the_backward_pass_never_holds_all_pairs():
    """Asked of the compiler: [T,V,L,F] of this batch alone would be 400 MB."""
    batch, words, frames, width = 512, 32, 12, 8

    def side(positions):
        shapes = (batch, positions, width), (batch, positions), (batch, positions)
        return WeightedVectors(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))

    def total(text, video):
        return token_wise_scores(text, video, Runtime().tile)["logits_tv"].sum()

    gradient = jax.jit(jax.grad(total, argnums=(0, 1))).lower(side(words), side(frames)).compile()
    all_pairs = 4 * batch**2 * words * frames
    assert gradient.memory_analysis().temp_size_in_bytes < all_pairs / 8
