"""EERCF's heads against plain NumPy in double precision, and what must not change them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.models.interactions.coarse_to_fine import coarse_to_fine, weighted_sum
from vtr_jax.models.interactions.gated_pooling import (
    gated_video,
    pooled_by_own_text,
    sentence_video,
    strong_scores,
    weak_scores,
    with_every_video,
)
from vtr_jax.models.interactions.pearson import pearson_constraint
from vtr_jax.models.interactions.recalled_pairs import scores_of_pairs

TEXTS, VIDEOS, FRAMES, PATCHES, WIDTH = 7, 5, 3, 4, 16


def normalised(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def inputs():
    """Unnormalised features, mask and the learned matrices; videos have 1 to 3 real frames."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(VIDEOS, 1, WIDTH))
    return {
        "sentence": normalised(rng.normal(size=(TEXTS, WIDTH))).astype(np.float32),
        "frames": (centre + rng.normal(size=(VIDEOS, FRAMES, WIDTH))).astype(np.float32),
        "temporal": (centre + rng.normal(size=(VIDEOS, FRAMES, WIDTH))).astype(np.float32),
        "patches": rng.normal(size=(VIDEOS, FRAMES, PATCHES, WIDTH)).astype(np.float32),
        "mask": np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]], np.int32),
        "frame_matrix": (np.eye(FRAMES) + 0.1 * rng.normal(size=(FRAMES, FRAMES))).astype(
            np.float32
        ),
        "sentence_matrix": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def video(inputs):
    return gated_video(*(jnp.asarray(inputs[n]) for n in ("frames", "temporal", "patches", "mask")))


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def expected_scores(inputs):
    """The five matrices of evaluation, pair by pair, as the paper's equations have them."""
    names = ("sentence", "frames", "temporal", "patches", "frame_matrix", "sentence_matrix")
    t, frames, temporal, patches, mix, through = (inputs[n].astype(np.float64) for n in names)
    frames, temporal = normalised(frames), normalised(temporal)
    patches = normalised(patches.reshape(VIDEOS, -1, WIDTH))
    scores = {
        name: np.zeros((TEXTS, VIDEOS))
        for name in ("frame_weak", "frame_strong", "patch_weak", "patch_strong", "sentence_video")
    }
    for i in range(TEXTS):
        for j in range(VIDEOS):
            of_frames, of_patches = frames[j] @ t[i], patches[j] @ t[i]
            gated = (softmax(of_frames / 0.01) @ mix) @ of_frames
            pooled = normalised(softmax(of_frames / 0.1) @ temporal[j])
            weights = softmax(of_patches / 0.01)
            scores["frame_weak"][i, j] = gated
            scores["frame_strong"][i, j] = pooled @ t[i]
            scores["patch_weak"][i, j] = weights @ of_patches
            scores["patch_strong"][i, j] = normalised(weights @ patches[j]) @ t[i]
            real = temporal[j][inputs["mask"][j] > 0].mean(axis=0)
            scores["sentence_video"][i, j] = (t[i] @ through) @ normalised(real)
    return scores


def all_of_one(inputs, strong_patches=True):
    def of_one(texts, one):
        weak = weak_scores(texts, one, jnp.asarray(inputs["frame_matrix"]))
        return {**weak, **strong_scores(texts, one, strong_patches)}

    return of_one


@pytest.mark.parametrize("tile", [2, 3, 64])
def test_scores_are_those_of_the_equations(inputs, video, tile):
    sentence = jnp.asarray(inputs["sentence"])
    ours = jax.jit(lambda: with_every_video(all_of_one(inputs), sentence, video, tile))()
    ours["sentence_video"] = sentence_video(
        sentence, video.pooled_vd, jnp.asarray(inputs["sentence_matrix"])
    )
    for name, expected in expected_scores(inputs).items():
        # A temperature of 0.01 makes a rounding of 1e-7 one of 1e-5 in the weights.
        np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=3e-6, err_msg=name)


def test_patches_that_are_not_gated_strongly_score_as_frames(inputs, video):
    one = jax.tree.map(lambda leaf: leaf[0], video)
    scores = strong_scores(jnp.asarray(inputs["sentence"]), one, strong_patches=False)
    assert scores["patch_strong"] is scores["frame_strong"]


def test_padded_frames_count_but_for_the_whole_video(inputs):
    """As in the original, where only the mean of the frames knows the mask."""
    others = np.array(inputs["temporal"])
    others[2, 1:] += 1.0
    parts = [jnp.asarray(inputs[n]) for n in ("frames", "patches", "mask")]
    videos = [
        gated_video(parts[0], jnp.asarray(temporal), *parts[1:])
        for temporal in (inputs["temporal"], others)
    ]
    np.testing.assert_array_equal(videos[0].pooled_vd, videos[1].pooled_vd)
    sentence = jnp.asarray(inputs["sentence"])
    one, other = (
        with_every_video(all_of_one(inputs), sentence, video, 64)["frame_strong"]
        for video in videos
    )
    changed = np.abs(np.asarray(one - other)).max(axis=0) > 1e-3
    np.testing.assert_array_equal(changed, np.arange(VIDEOS) == 2)


def test_a_video_without_frames_is_nan_in_the_first_stage_alone(inputs):
    mask = np.array(inputs["mask"])
    mask[1] = 0
    features = [jnp.asarray(inputs[n]) for n in ("frames", "temporal", "patches")]
    video = gated_video(*features, jnp.asarray(mask))
    assert np.isnan(video.pooled_vd).all(axis=1).tolist() == [False, True, False, False, False]
    assert not np.isnan(video.frames_vfd).any()


def test_training_pools_by_the_own_text_and_lets_no_gradient_through_the_weights(inputs, video):
    sentence = jnp.asarray(inputs["sentence"][:VIDEOS])
    frames_bd, patches_bd = pooled_by_own_text(sentence, video)
    scores = expected_scores(inputs)
    own = np.arange(VIDEOS)
    np.testing.assert_allclose(
        jnp.sum(sentence * frames_bd, axis=1), scores["frame_strong"][own, own], atol=3e-6
    )
    np.testing.assert_allclose(
        jnp.sum(sentence * patches_bd, axis=1), scores["patch_strong"][own, own], atol=3e-6
    )
    gradient = jax.grad(lambda t: sum(x.sum() for x in pooled_by_own_text(t, video)))(sentence)
    assert not np.any(gradient)


def test_gradients_do_not_depend_on_the_tile(inputs, video):
    sentence = jnp.asarray(inputs["sentence"])

    def total(video, tile):
        scores = with_every_video(all_of_one(inputs), sentence, video, tile)
        return sum(jnp.sum(score**2) for score in scores.values())

    whole, tiled = (jax.grad(total)(video, tile) for tile in (64, 2))
    for one, other in zip(whole, tiled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("texts_a_round", [1, 3, 64])
def test_some_pairs_score_as_they_do_among_all(inputs, video, texts_a_round):
    """Videos that nobody, one text and every text asks for; in any order within a row."""
    sentence = jnp.asarray(inputs["sentence"])
    columns = jnp.asarray([[0, 4], [4, 0], [0, 2], [0, 4], [2, 0], [4, 0], [0, 1]])
    whole = with_every_video(all_of_one(inputs), sentence, video, 64)
    pairs = jax.jit(
        lambda columns: scores_of_pairs(
            all_of_one(inputs), lambda one: one, sentence, video, columns, texts_a_round
        )
    )(columns)
    for name, matrix in whole.items():
        expected = jnp.take_along_axis(matrix, columns, axis=1)
        np.testing.assert_allclose(pairs[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def rerank_by_sorting(coarse, recall, final, count):
    """The original's procedure: both choices by sorting, the second among lifted scores."""
    main = coarse.copy()
    for _ in range(2):
        best = np.argsort(main, axis=1)[:, -count:]
        for row, columns in enumerate(best):
            main[row, columns] = (recall if _ == 0 else final)[row, columns] + 100
    return main


@pytest.mark.parametrize("spread", [1.0, 200.0])
@pytest.mark.parametrize("count", [1, 4, 9, 500])
def test_reranking_is_the_originals_procedure(spread, count):
    """Also where scores are so large that the second choice is another than the first."""
    rng = np.random.default_rng(3)
    coarse, recall, final = (
        (spread * rng.normal(size=(6, 9))).astype(np.float32) for _ in range(3)
    )
    scores = {"recall": jnp.asarray(recall), "final": jnp.asarray(final)}
    ours = coarse_to_fine(
        jnp.asarray(coarse),
        lambda columns: {
            name: jnp.take_along_axis(matrix, columns, axis=1) for name, matrix in scores.items()
        },
        rerantopk=count,
        recall_score=lambda scores: scores["recall"],
        final_score=lambda scores: scores["final"] + 100,
    )
    expected = rerank_by_sorting(coarse, recall, final, min(count, 9))
    np.testing.assert_array_equal(ours, expected)


def test_an_undefined_score_is_looked_at_again_as_where_the_original_sorts():
    coarse = jnp.asarray([[1.0, -jnp.nan, 3.0, 2.0], [jnp.nan, 1.0, 2.0, 3.0]])
    seen = []

    def scores_at(columns):
        jax.debug.callback(lambda c: seen.append(np.asarray(c).tolist()), columns)
        return {"all": jnp.zeros(columns.shape)}

    coarse_to_fine(
        coarse,
        scores_at,
        rerantopk=2,
        recall_score=lambda scores: scores["all"],
        final_score=lambda scores: scores["all"],
    )
    jax.effects_barrier()
    assert seen[0] == [[1, 2], [0, 3]]


def test_weighted_sums_add_in_order_and_keep_what_is_undefined():
    scores = {"a": jnp.asarray([1.0, jnp.nan]), "b": jnp.asarray([2.0, 5.0])}
    ours = weighted_sum(scores, {"b": 0.5, "a": 3.0}, start=100.0)
    np.testing.assert_array_equal(ours, np.array([104.0, np.nan], np.float32))


def test_pearson_constraint():
    """A perfect match has (n-1)/n, so that a batch of 5 in 16 dimensions keeps 0.14 * 16 / 25."""
    rng = np.random.default_rng(1)
    text = rng.normal(size=(5, 16)).astype(np.float32)
    assert float(pearson_constraint(text, 3 * text + 1)) == pytest.approx(0.14 * 16 / 25, rel=1e-4)
    video = rng.normal(size=(5, 16)).astype(np.float32)
    z_text, z_video = ((x - x.mean(0)) / x.std(0, ddof=1) for x in (text, video))
    correlation = np.diagonal(z_text.T @ z_video) / 5
    expected = 0.14 * np.sum((correlation - 1) ** 2)
    assert float(pearson_constraint(text, video)) == pytest.approx(expected, rel=1e-5)
    assert np.isnan(pearson_constraint(text[:1], video[:1]))
