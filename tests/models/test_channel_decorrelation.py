"""Channel decorrelation against plain NumPy over the rows that count, and what it draws."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.models.interactions.channel_decorrelation import (
    best_positions,
    decorrelation_loss,
    diagonal_parts,
    draw_picks,
    matched_correlation,
    picked_correlation,
    pooled_correlation,
    standardise,
)
from vtr_jax.models.interactions.token_wise import WeightedVectors, weighted
from vtr_jax.parity.cases import load_case, system_cases
from vtr_jax.parity.kinds import kind_of

BATCH, WORDS, FRAMES, WIDTH = 5, 6, 4, 3
DEFAULT = Path(__file__).parents[1] / "parity" / "golden"
GOLDEN = Path(os.environ.get("VTR_GOLDEN_DIR", DEFAULT))


def random_side(seed, positions):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((BATCH, positions, WIDTH)).astype(np.float32)
    count = rng.integers(1, positions + 1, BATCH)
    mask = np.arange(positions) < count[:, None]
    weights = rng.random((BATCH, positions)) * mask
    return weighted(vectors, np.int32(mask), np.float32(weights / weights.sum(1, keepdims=True)))


@pytest.fixture(scope="module")
def sides():
    return random_side(0, WORDS), random_side(1, FRAMES)


def z_scores(rows):
    return (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)


def test_standardise_reads_the_real_rows_alone(sides):
    vectors, mask = np.asarray(sides[0].vectors), np.asarray(sides[0].mask)
    z = np.asarray(standardise(sides[0].vectors, sides[0].mask))
    np.testing.assert_allclose(z[mask > 0], z_scores(vectors[mask > 0]), atol=1e-5)


def numpy_matched(own, others, by_weight):
    vectors, mask, weights = (np.asarray(leaf, np.float64) for leaf in own)
    other_vectors, other_mask = np.asarray(others.vectors), np.asarray(others.mask)
    rows, matches, shares = [], [], []
    for b in range(BATCH):
        for n in np.flatnonzero(mask[b]):
            similarity = (other_vectors[b] @ vectors[b, n]) * other_mask[b]
            rows.append(vectors[b, n])
            matches.append(other_vectors[b, similarity.argmax()])
            shares.append(weights[b, n] / BATCH if by_weight else 1 / mask.sum())
    z_rows, z_matches = z_scores(np.array(rows)), z_scores(np.array(matches))
    return (np.array(shares)[:, None] * z_rows).T @ z_matches


@pytest.mark.parametrize("by_weight", [False, True], ids=["cdcr2", "cdcr3"])
def test_matched_correlation_is_the_definition(sides, by_weight):
    text, video = sides
    halves = numpy_matched(text, video, by_weight), numpy_matched(video, text, by_weight)
    found = jax.jit(matched_correlation, static_argnums=2)(text, video, by_weight)
    np.testing.assert_allclose(found, (halves[0] + halves[1]) / 2, atol=1e-5)


def test_the_best_is_the_first_of_equals_and_may_be_padding():
    text = WeightedVectors(jnp.array([[[1.0, 0.0]]]), jnp.ones((1, 1)), jnp.ones((1, 1)))
    frames = jnp.array([[[-1.0, 0.0], [0.6, 0.8], [0.6, 0.8]]])
    for mask, best in ((jnp.array([[1.0, 1.0, 1.0]]), 1), (jnp.array([[1.0, 0.0, 0.0]]), 1)):
        video = WeightedVectors(frames, mask, mask)
        assert int(best_positions(text, video)[0][0, 0]) == best


def test_perfect_agreement_misses_one_by_the_batch_size():
    rows = jnp.asarray(np.random.default_rng(0).standard_normal((BATCH, WIDTH)))
    diagonal = jnp.diagonal(pooled_correlation(rows, rows))
    np.testing.assert_allclose(diagonal, (BATCH - 1) / BATCH, atol=1e-6)
    assert np.isnan(pooled_correlation(rows[:1], rows[:1])).all()


def test_the_loss_weighs_diagonal_and_rest():
    correlation = jnp.array([[0.5, 2.0], [3.0, 1.0]])
    assert [float(part) for part in diagonal_parts(correlation)] == [0.25, 13.0]
    assert float(decorrelation_loss(correlation, 2.0, 0.5)) == 7.0


def test_picks_are_real_positions_and_follow_the_key(sides):
    text, video = sides
    picks = draw_picks(jax.random.key(0), text.mask, video.mask)
    for pick, side in zip(picks, sides, strict=True):
        assert (np.asarray(side.mask)[np.arange(BATCH), pick] == 1).all()
    same = draw_picks(jax.random.key(0), text.mask, video.mask)
    jax.tree.map(np.testing.assert_array_equal, picks, same)
    many = [draw_picks(jax.random.key(seed), text.mask, video.mask) for seed in range(20)]
    assert len({tuple(np.concatenate(each).tolist()) for each in many}) > 10


CASES = [load_case(path) for path in system_cases(GOLDEN, "drl") if kind_of(path) == "model"]
DECORRELATED = [case for case in CASES if case.config.get("cdcr")]


@pytest.mark.parametrize("case", DECORRELATED, ids=lambda case: case.name)
def test_correlation_of_recorded_features(case):
    """The same features give the original's matrix: nothing but rounding is between them."""
    recorded = case.arrays()
    if "text_pooled_norm" in recorded:
        names = "text_pooled_norm", "video_pooled_norm"
        found = pooled_correlation(*(jnp.asarray(recorded[name]) for name in names))
    else:
        sides = [
            weighted(
                jnp.asarray(recorded[f"{side}_feat"]),
                jnp.asarray(recorded[mask]),
                jnp.asarray(recorded.get(f"{side}_weight", recorded[mask])),
            )
            for side, mask in (("text", "token_mask"), ("video", "video_mask"))
        ]
        if "cdcr1_text_index" in recorded:
            names = "cdcr1_text_index", "cdcr1_video_index"
            found = picked_correlation(*sides, tuple(jnp.asarray(recorded[n]) for n in names))
        else:
            found = matched_correlation(*sides, by_weight=case.config["cdcr"] == 3)
    # Deviations of 1e-3 enlarge the rounding of the normalised features.
    np.testing.assert_allclose(found, recorded["cdcr_c"], atol=5e-6)
