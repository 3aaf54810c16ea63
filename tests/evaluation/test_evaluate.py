"""An evaluation from store to ranks against its own computation step by step in NumPy."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.checkpoint import load_retriever
from vtr_jax.data.annotations import read_split
from vtr_jax.data.frame_choice import slice_positions
from vtr_jax.data.frame_store.encoding import decode_frame
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.data.split import VideoClip
from vtr_jax.data.text import tokenize
from vtr_jax.evaluation.evaluate import (
    EvaluationSettings,
    evaluate_split,
    protocol_card,
    require_frames,
    require_resolution,
    retriever_sha256,
)
from vtr_jax.evaluation.normalisation import dual_softmax_scores
from vtr_jax.sharding import make_mesh
from vtr_jax.versions import software_versions

SETTINGS = EvaluationSettings(max_words=12, max_frames=4, batch_size=4, tile=5)


@pytest.fixture(scope="module")
def store(tiny_store):
    return FrameStore.open(tiny_store)


@pytest.fixture(scope="module")
def retriever(tiny_run):
    return load_retriever(tiny_run)


@pytest.fixture(scope="module")
def splits(tiny_dataset):
    return {
        name: read_split("table", tiny_dataset.captions_file, name) for name in ("train", "test")
    }


def frames_of(store, split, max_frames):
    """Frames and mask of every clip, decoded one by one."""
    clips, masks = [], []
    for clip in split.clips:
        stored = store.read(store.index_of(clip.clip_id))
        chosen = slice_positions(len(stored), max_frames, 2)
        frames = np.stack([decode_frame(stored[position]) for position in chosen])
        missing = max_frames - len(frames)
        clips.append(np.pad(frames, [(0, missing), (0, 0), (0, 0), (0, 0)]))
        masks.append(np.arange(max_frames) < len(frames))
    return np.stack(clips), np.stack(masks).astype(np.int32)


def recalls_by_numpy(logits_tv, caption_clip):
    """Both directions, by sorting; a clip's score for a clip's captions is their best."""
    clips = np.arange(logits_tv.shape[1])
    best_vv = np.stack([logits_tv[caption_clip == clip].max(axis=0) for clip in clips])

    def ranks_of(rows, right):
        return [
            np.flatnonzero(np.argsort(-row) == place)[0]
            for row, place in zip(rows, right, strict=True)
        ]

    t2v, v2t = ranks_of(logits_tv, caption_clip), ranks_of(best_vv.T, clips)
    return {
        name: {
            **{f"R@{k}": 100 * np.mean(np.array(ranks) < k) for k in (1, 5, 10, 50)},
            "MdR": np.median(ranks) + 1,
            "MnR": np.mean(ranks) + 1,
            "queries": len(ranks),
        }
        for name, ranks in (("t2v", t2v), ("v2t", v2t))
    }


@pytest.mark.parametrize("name", ["test", "train"])
def test_scores_are_those_of_numpy(retriever, store, splits, name):
    """The test split has one caption a clip, the training split two."""
    split = splits[name]
    evaluation = evaluate_split(retriever, store, split, SETTINGS, make_mesh())
    text = retriever.encode_text(*tokenize(split.captions, 12))
    video = retriever.encode_video(*frames_of(store, split, 4))
    logits_tv = np.asarray(retriever.similarity(text, video))
    np.testing.assert_allclose(evaluation.tiles.matrix(), logits_tv, rtol=1e-4, atol=1e-4)
    expected = recalls_by_numpy(logits_tv, split.caption_clip)
    for direction, row in expected.items():
        assert evaluation.results[direction] == pytest.approx(row), direction
        assert len(evaluation.ranks[direction]) == row["queries"]
    assert evaluation.results["t2v"]["queries"] == len(split.captions)
    assert evaluation.results["v2t"]["queries"] == len(split.clips)


@pytest.mark.parametrize("name", ["test", "train"])
def test_dual_softmax_ranks_by_its_own_matrices_and_is_said_on_the_card(
    retriever, store, splits, name
):
    split = splits[name]
    settings = dataclasses.replace(SETTINGS, normalisation="dual_softmax")
    plain = evaluate_split(retriever, store, split, SETTINGS, make_mesh())
    evaluation = evaluate_split(retriever, store, split, settings, make_mesh())
    ways = dual_softmax_scores(plain.tiles.matrix(), split.caption_clip)
    for direction, logits_tv in ways.items():
        expected = recalls_by_numpy(logits_tv, split.caption_clip)[direction]
        assert evaluation.results[direction] == pytest.approx(expected), direction
    assert evaluation.results != plain.results
    cards = [
        protocol_card(retriever, store, split, each, checkpoint_sha256="")
        for each in (SETTINGS, settings)
    ]
    assert cards[0].differences(cards[1]) == ["score normalisation: none against dual softmax"]
    assert "dual softmax at temperature 1" in cards[1].text()


def test_training_pairs_are_found_better_than_by_chance(retriever, store, splits):
    results = evaluate_split(retriever, store, splits["train"], SETTINGS, make_mesh()).results
    assert results["t2v"]["R@5"] > 2 * 100 * 5 / 16 * 0.9


@pytest.mark.parametrize(("batch_size", "tile"), [(3, 2), (32, 400)])
def test_batches_and_tiles_decide_nothing(retriever, store, splits, batch_size, tile):
    usual = evaluate_split(retriever, store, splits["train"], SETTINGS, make_mesh())
    settings = dataclasses.replace(SETTINGS, batch_size=batch_size, tile=tile)
    other = evaluate_split(retriever, store, splits["train"], settings, make_mesh())
    assert usual.results == other.results
    for direction in ("t2v", "v2t"):
        np.testing.assert_array_equal(usual.ranks[direction], other.ranks[direction])


def test_frame_order_and_choice_are_read(tiny_config, store, splits):
    """meanP does not see the order of frames, but it sees which they are."""
    from vtr_jax.training.run import starting_retriever

    def matrix(retriever, **changes):
        settings = dataclasses.replace(SETTINGS, **changes)
        return evaluate_split(
            retriever, store, splits["test"], settings, make_mesh()
        ).tiles.matrix()

    mean = starting_retriever(tiny_config())
    usual = matrix(mean)
    np.testing.assert_allclose(matrix(mean, frame_order=1), usual, rtol=1e-4, atol=1e-4)
    assert np.abs(matrix(mean, slice_framepos=0) - usual).max() > 1e-3
    in_time = starting_retriever(tiny_config(variant="smoke-seqTransf"))
    assert np.abs(matrix(in_time, frame_order=1) - matrix(in_time)).max() > 1e-3


class Frameless:
    """A store in which some clips have no frame."""

    def __init__(self, store, clip_ids):
        self.store, self.num_frames = store, store.num_frames.copy()
        self.num_frames[[store.index_of(clip_id) for clip_id in clip_ids]] = 0

    def __getattr__(self, name):
        return getattr(self.store, name)


def test_clips_without_frames_are_refused_by_name(retriever, store, splits):
    empty = Frameless(store, ["test_00002", "test_00005", "val_00000"])
    message = "2 of the 7 clips of table test have no frame: test_00002, test_00005; leave them"
    with pytest.raises(ValueError, match=message):
        evaluate_split(retriever, empty, splits["test"], SETTINGS, make_mesh())
    require_frames(store, splits["test"])


def test_clips_that_are_not_stored_are_refused_by_name(retriever, store, splits):
    split = splits["test"]
    clips = (VideoClip("elsewhere", "elsewhere.mp4"), *split.clips[1:])
    with pytest.raises(ValueError, match="1 of the 7 clips of table test .*: elsewhere"):
        evaluate_split(
            retriever, store, dataclasses.replace(split, clips=clips), SETTINGS, make_mesh()
        )


def test_frames_of_another_size_are_refused(store):
    require_resolution(store, 32)
    with pytest.raises(ValueError, match="frames of 32 pixels, .* 224; .* --resolution=224"):
        require_resolution(store, 224)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_frames": 0}, "max_frames: expected 1 or more, got 0"),
        ({"batch_size": 0}, "batch_size: expected 1 or more"),
        ({"tile": -3}, "tile: expected 1 or more, got -3"),
        ({"slice_framepos": 3}, "slice_framepos: expected one of 0, 1, 2; got 3"),
        ({"frame_order": "reversed"}, "frame_order: expected one of 0, 1, 2; got 'reversed'"),
        ({"ties": "twice"}, "ties: expected one of once, pessimistic, .*; got 'twice'"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EvaluationSettings(**changes)


def test_what_cannot_be_evaluated_is_refused_before_encoding(retriever, store, splits, monkeypatch):
    def encode(*_):
        raise AssertionError("encoded in spite of it")

    monkeypatch.setattr("vtr_jax.evaluation.evaluate.encode_captions", encode)
    settings = dataclasses.replace(SETTINGS, ties="original-emcl")
    with pytest.raises(ValueError, match="ties='original-emcl' .*; use ties='original'"):
        evaluate_split(retriever, store, splits["train"], settings, make_mesh())


@pytest.mark.parametrize("ties", ["pessimistic", "original", "original-many"])
def test_without_ties_all_rules_agree(retriever, store, splits, ties):
    usual = evaluate_split(retriever, store, splits["test"], SETTINGS, make_mesh())
    settings = dataclasses.replace(SETTINGS, ties=ties)
    other = evaluate_split(retriever, store, splits["test"], settings, make_mesh())
    assert other.results == usual.results


def test_more_words_than_the_tower_reads_are_refused(retriever, store, splits):
    settings = dataclasses.replace(SETTINGS, max_words=78)
    with pytest.raises(ValueError, match="78 tokens a caption, but this text tower has 77"):
        evaluate_split(retriever, store, splits["test"], settings, make_mesh())


def test_the_card_tells_the_protocol(retriever, store, splits):
    settings = dataclasses.replace(SETTINGS, max_words=8, frame_order=1, ties="pessimistic")
    split = splits["train"]
    card = protocol_card(
        retriever,
        store,
        split,
        settings,
        checkpoint_sha256=retriever_sha256(retriever),
        clips_skipped=2,
        selection="test split",
    )
    assert (card.dataset, card.split, card.split_sha256) == ("table", "train", split.sha256())
    assert (card.captions, card.clips, card.captions_per_clip) == (32, 16, (2, 2.0, 2))
    assert (card.frames, card.frame_rate, card.resolution) == (4, 4, 32)
    assert card.frame_choice == "uniform, reversed"
    assert (card.max_words, card.ties, card.clips_skipped) == (8, "pessimistic", 2)
    _, uncut_mask = tokenize(split.captions, 70)
    assert card.captions_cut == (uncut_mask.sum(axis=1) > 8).sum() > 0
    assert card.checkpoint_sha256 == retriever_sha256(retriever)
    assert (card.recipe, card.selection) == ("clip4clip", "test split")
    assert (card.compute_dtype, card.score_normalisation) == ("float32", "none")
    assert card.software == software_versions()


def test_the_hash_is_of_the_numbers_not_of_where_they_are(retriever):
    on_host = dataclasses.replace(retriever, params=jax.device_get(retriever.params))
    assert retriever_sha256(on_host) == retriever_sha256(retriever)
    scale = retriever.params["logit_scale"]
    changed = dataclasses.replace(
        retriever, params={**retriever.params, "logit_scale": jnp.nextafter(scale, jnp.inf)}
    )
    assert retriever_sha256(changed) != retriever_sha256(retriever)
