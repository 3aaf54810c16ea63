"""The plan of the training batches: no clip twice, nothing lost, everything from seed and step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtr_jax.data.batch_plan import (
    EVERY_CAPTION,
    RANDOM_CAPTION,
    BatchPlan,
    draw_captions,
    most_batches,
)
from vtr_jax.data.split import Split, VideoClip


def split_of_counts(counts, seed=0):
    """A split whose clips have these numbers of captions, the captions in a mixed order."""
    relation = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    clips = tuple(VideoClip(f"v{number}", f"v{number}.mp4") for number in range(len(counts)))
    captions = tuple(f"caption {number}" for number in range(len(relation)))
    return Split("toy", "train", clips, captions, relation)


def epoch_of(plan, epoch):
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    batches = [plan.batch(step) for step in steps]
    return np.stack([clips for clips, _ in batches]), np.stack(
        [captions for _, captions in batches]
    )


@given(
    counts=st.lists(st.integers(1, 25), min_size=1, max_size=20),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=150, deadline=None)
def test_every_caption_once_and_no_clip_twice_in_a_batch(counts, batch_size, seed):
    split = split_of_counts(counts)
    if batch_size > len(counts):
        with pytest.raises(ValueError, match=f"batch_size {batch_size} is more than the"):
            BatchPlan.of(split, batch_size, seed, caption_mode=EVERY_CAPTION)
        return
    plan = BatchPlan.of(split, batch_size, seed, caption_mode=EVERY_CAPTION)
    for epoch in (0, 3):
        clips, captions = epoch_of(plan, epoch)
        assert clips.shape == captions.shape == (plan.steps_per_epoch, batch_size)
        np.testing.assert_array_equal(split.caption_clip[captions], clips)
        assert len(np.unique(captions)) == captions.size
        assert all(len(set(row)) == batch_size for row in clips.tolist())
    assert captions.size + plan.dropped_last + plan.left_out == len(split.captions)


def can_fill(counts, batch_size, batches):
    """Whether so many batches can be filled, tried out: always the clips with most captions."""
    left = np.array(counts)
    for _ in range(batches):
        chosen = np.argsort(-left, kind="stable")[:batch_size]
        if len(chosen) < batch_size or left[chosen].min() == 0:
            return False
        left[chosen] -= 1
    return True


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 8))
@settings(max_examples=150, deadline=None)
def test_an_epoch_has_as_many_batches_as_can_be(counts, batch_size):
    most = most_batches(np.array(counts), batch_size)
    assert can_fill(counts, batch_size, most)
    assert not can_fill(counts, batch_size, most + 1)


def test_captions_that_would_repeat_a_clip_are_counted():
    plan = BatchPlan.of(split_of_counts([10, 1, 1, 1]), 2, 0, caption_mode=EVERY_CAPTION)
    assert (plan.steps_per_epoch, plan.dropped_last, plan.left_out) == (3, 1, 6)
    assert plan.describe() == (
        "3 steps an epoch, 6 of 13 captions (drawn anew each epoch); "
        "1 do not fill a batch, 6 would repeat a clip in one"
    )
    assert dataclasses.replace(plan, steps_per_epoch=1).describe().startswith("1 step an epoch, ")
    drawn = {caption for epoch in range(30) for caption in epoch_of(plan, epoch)[1].ravel()}
    assert drawn == set(range(13))


def test_random_caption_visits_each_clip_once_with_any_of_its_captions():
    split = split_of_counts([3, 1, 2, 4, 1])
    plan = BatchPlan.of(split, 2, 7)
    assert (plan.steps_per_epoch, plan.dropped_last, plan.left_out) == (2, 1, 0)
    assert "4 of 5 clips" in plan.describe()
    drawn = set()
    for epoch in range(60):
        clips, captions = epoch_of(plan, epoch)
        assert len(np.unique(clips)) == 4
        np.testing.assert_array_equal(split.caption_clip[captions], clips)
        drawn |= set(captions.ravel().tolist())
    assert drawn == set(range(11))


def test_captions_are_drawn_uniformly():
    relation = np.array([0, 1, 0, 0, 0])
    rng = np.random.default_rng(0)
    draws = np.concatenate([draw_captions(relation, 2, rng) for _ in range(4000)])
    counts = np.bincount(draws)
    assert counts[1] == 4000
    assert np.all(np.abs(counts[[0, 2, 3, 4]] - 1000) < 150)


def test_clips_that_met_in_a_batch_do_not_stay_together():
    plan = BatchPlan.of(split_of_counts([20] * 100), 10, 0, caption_mode=EVERY_CAPTION)
    clips, _ = epoch_of(plan, 0)
    together = np.zeros((100, 100), int)
    for row in clips:
        together[np.ix_(row, row)] += 1
    np.fill_diagonal(together, 0)
    assert together.max() < 10  # 1.8 on average; 20 if the same clips always met


def test_the_originals_way_repeats_clips():
    split = split_of_counts([50, 50])
    plan = BatchPlan.of(split, 10, 0, caption_mode=EVERY_CAPTION, allow_repeated_clips=True)
    clips, captions = epoch_of(plan, 0)
    assert sorted(captions.ravel()) == list(range(100))
    assert len(set(clips[0].tolist())) < 10
    assert plan.left_out == 0


@pytest.mark.parametrize("mode", [RANDOM_CAPTION, EVERY_CAPTION])
def test_a_batch_depends_on_seed_and_step_alone(mode):
    split = split_of_counts([4] * 9)
    plan = BatchPlan.of(split, 4, 5, caption_mode=mode)
    steps = 5 * plan.steps_per_epoch
    straight = [plan.batch(step) for step in range(steps)]
    again = BatchPlan.of(split, 4, 5, caption_mode=mode)
    for step in np.random.default_rng(0).permutation(steps):
        np.testing.assert_array_equal(again.batch(int(step)), straight[step])
    assert straight[0][0].dtype == straight[0][1].dtype == np.int32
    other = BatchPlan.of(split, 4, 6, caption_mode=mode)
    assert any(not np.array_equal(other.batch(s), straight[s]) for s in range(steps))
    epochs = [np.concatenate([b[1] for b in straight[: steps // 5]]), epoch_of(plan, 1)[1].ravel()]
    assert not np.array_equal(*epochs)


def test_a_batch_larger_than_the_split_is_refused_with_both_numbers():
    split = split_of_counts([5, 5, 5])
    for mode in (RANDOM_CAPTION, EVERY_CAPTION):
        with pytest.raises(
            ValueError, match="4 is more than the 3 clips of toy train.*--config.batch_size=3$"
        ):
            BatchPlan.of(split, 4, 0, caption_mode=mode)
        with pytest.raises(ValueError, match="more than the 1 clips.*a batch needs two clips"):
            BatchPlan.of(split_of_counts([5]), 4, 0, caption_mode=mode)
    with pytest.raises(ValueError, match="batch_size 16 is more than the 15 captions"):
        BatchPlan.of(split, 16, 0, caption_mode=EVERY_CAPTION, allow_repeated_clips=True)


def test_a_clip_without_caption_is_refused_by_name():
    with pytest.raises(ValueError, match="1 of the 3 clips of toy train have no caption: v1"):
        BatchPlan.of(split_of_counts([2, 0, 2]), 2, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"caption_mode": "first"}, r"expected one of \('random_caption', 'every_caption'\)"),
        ({"seed": -1}, "seed of 0 or more"),
        ({"batch_size": 0}, "batch_size of 1 or more"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        BatchPlan.of(split_of_counts([2, 2]), **({"batch_size": 2, "seed": 0} | options))
