"""Batches from the frame store: right pixels, right captions, the same however they are made."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vtr_jax.data.augmentation import RandAugment
from vtr_jax.data.batch_plan import BatchPlan
from vtr_jax.data.frame_choice import slice_positions
from vtr_jax.data.frame_store import DamagedStore, FrameStore, StoreSettings
from vtr_jax.data.frame_store import part as part_module
from vtr_jax.data.frame_store.encoding import decode_frame
from vtr_jax.data.frame_store.finish import build_store
from vtr_jax.data.frame_store.jobs import ClipJob
from vtr_jax.data.frame_store.part import make_part
from vtr_jax.data.frame_stream import FrameChoice
from vtr_jax.data.pipeline import (
    caption_batches,
    clip_batches,
    training_batches,
)
from vtr_jax.data.text import tokenize

OPTIONS = {"batch_size": 4, "max_frames": 3, "seed": 11}


@pytest.fixture(scope="module")
def tokens(whole_split):
    return tokenize(whole_split.captions, 8)


def batches_of(
    store,
    split,
    tokens,
    *,
    batch_size,
    max_frames,
    seed,
    caption_mode="random_caption",
    slice_framepos=2,
    frame_order=0,
    augmentation="none",
    **options,
):
    """Training batches from a plan and a frame choice with one seed."""
    plan = BatchPlan.of(split, batch_size, seed, caption_mode=caption_mode)
    drawn = RandAugment.parse(augmentation)
    choice = FrameChoice(max_frames, slice_framepos, frame_order, seed, drawn)
    return training_batches(store, split, tokens, plan, choice, **options)


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_equal_batches(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def expected_frames(store, clip_id, max_frames, slice_framepos=2):
    """What a batch must hold of a clip, by Pillow and NumPy: frames and mask."""
    stored = [decode_frame(frame) for frame in store.read(store.index_of(clip_id))]
    chosen = slice_positions(len(stored), max_frames, slice_framepos)
    frames = np.zeros((max_frames, 32, 32, 3), np.uint8)
    frames[: len(chosen)] = [stored[position] for position in chosen]
    return frames, (np.arange(max_frames) < len(chosen)).astype(np.int32)


@pytest.mark.parametrize("stored", ["store", "png_store"])
def test_a_training_batch_holds_the_right_pixels_and_captions(request, stored, whole_split, tokens):
    store = request.getfixturevalue(stored)
    batches = batches_of(store, whole_split, tokens, **OPTIONS)
    assert batches.plan.steps_per_epoch == 2
    for batch in take(batches, 5):
        assert {name: (array.dtype.name, array.shape) for name, array in batch.items()} == {
            "frames": ("uint8", (4, 3, 32, 32, 3)),
            "frame_mask": ("int32", (4, 3)),
            "token_ids": ("int32", (4, 8)),
            "token_mask": ("int32", (4, 8)),
            "clip_index": ("int32", (4,)),
            "caption_index": ("int32", (4,)),
        }
        assert len(set(batch["clip_index"].tolist())) == 4
        for row, clip in enumerate(batch["clip_index"]):
            frames, mask = expected_frames(store, whole_split.clips[clip].clip_id, 3)
            np.testing.assert_array_equal(batch["frames"][row], frames)
            np.testing.assert_array_equal(batch["frame_mask"][row], mask)
        texts = [whole_split.captions[caption] for caption in batch["caption_index"]]
        token_ids, token_mask = tokenize(texts, 8)
        np.testing.assert_array_equal(batch["token_ids"], token_ids)
        np.testing.assert_array_equal(batch["token_mask"], token_mask)
    assert batches.step == 5


@pytest.mark.parametrize("caption_mode", ["random_caption", "every_caption"])
def test_a_run_can_start_at_any_step(store, whole_split, tokens, caption_mode):
    options = OPTIONS | {"frame_order": 2, "caption_mode": caption_mode}
    straight = take(batches_of(store, whole_split, tokens, **options), 8)
    for start in (1, 4, 7):
        resumed = batches_of(store, whole_split, tokens, start_step=start, **options)
        assert_equal_batches(take(resumed, 8 - start), straight[start:])


def test_processes_share_a_batch(store, whole_split, tokens):
    options = OPTIONS | {"frame_order": 2}
    whole = take(batches_of(store, whole_split, tokens, **options), 3)
    shares = [
        take(
            batches_of(
                store, whole_split, tokens, rows=np.arange(2 * index, 2 * index + 2), **options
            ),
            3,
        )
        for index in range(2)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        for name, array in batch.items():
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(joined, array, err_msg=name)


def test_threads_change_nothing(store, whole_split, tokens):
    one, four = (
        take(
            batches_of(store, whole_split, tokens, num_threads=threads, frame_order=2, **OPTIONS),
            6,
        )
        for threads in (1, 4)
    )
    assert_equal_batches(one, four)


def test_another_seed_gives_other_batches(store, whole_split, tokens):
    batches = [
        take(batches_of(store, whole_split, tokens, **OPTIONS | {"seed": seed}), 3)
        for seed in (1, 2)
    ]
    differing = [
        not np.array_equal(one["caption_index"], other["caption_index"])
        for one, other in zip(*batches, strict=True)
    ]
    assert any(differing)


def test_shuffled_frames_are_the_same_frames_drawn_anew_each_visit(store, whole_split, tokens):
    options = OPTIONS | {"batch_size": 10, "max_frames": 9}
    plain = take(batches_of(store, whole_split, tokens, **options), 4)
    shuffled = take(batches_of(store, whole_split, tokens, frame_order=2, **options), 4)
    orders = set()
    for one, other in zip(plain, shuffled, strict=True):
        np.testing.assert_array_equal(one["frame_mask"], other["frame_mask"])
        row = one["clip_index"].tolist().index(5)  # the clip of nine frames
        sums = [batch["frames"][row].reshape(9, -1).sum(1).tolist() for batch in (one, other)]
        assert sorted(sums[0]) == sorted(sums[1])
        orders.add(tuple(sums[0].index(value) for value in sums[1]))
    assert len(orders) > 1


@pytest.mark.parametrize("slice_framepos", [0, 1, 2])
@pytest.mark.parametrize("max_frames", [2, 6])
def test_every_clip_once_in_order_the_last_batch_filled_up(
    store, whole_split, slice_framepos, max_frames
):
    batches = list(clip_batches(store, whole_split, 4, max_frames, slice_framepos))
    assert [batch["valid"].tolist() for batch in batches] == [
        [True] * 4,
        [True] * 4,
        [True, True, False, False],
    ]
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert joined["clip_index"].tolist() == [*range(10), -1, -1]
    assert joined["clip_index"].dtype == np.int32
    assert joined["frames"].shape == (12, max_frames, 32, 32, 3)
    assert not joined["frames"][10:].any()
    assert not joined["frame_mask"][10:].any()
    for row, clip in enumerate(whole_split.clips):
        frames, mask = expected_frames(store, clip.clip_id, max_frames, slice_framepos)
        np.testing.assert_array_equal(joined["frames"][row], frames)
        np.testing.assert_array_equal(joined["frame_mask"][row], mask)


def test_frame_order_in_evaluation(store, whole_split):
    def frames(order, **options):
        (batch,) = clip_batches(store, whole_split, 10, 9, 2, order, **options)
        return batch["frames"][5]

    plain = frames(0)
    np.testing.assert_array_equal(frames(1), plain[::-1])
    np.testing.assert_array_equal(frames(2, num_threads=1), frames(2, num_threads=3))
    assert not np.array_equal(frames(2, seed=1), frames(2, seed=2))


def test_a_split_may_order_clips_differently_from_the_store(store, split_of_files):
    split = split_of_files(["clip8.mp4", "clip2.mp4", "clip5.mp4"])
    (batch,) = clip_batches(store, split, 3, 9)
    assert batch["frame_mask"].sum(1).tolist() == [1, 2, 9]
    batches = batches_of(store, split, tokenize(split.captions), batch_size=3, max_frames=9, seed=0)
    batch = next(batches)
    counts = [[1, 2, 9][clip] for clip in batch["clip_index"]]
    assert batch["frame_mask"].sum(1).tolist() == counts


def test_every_caption_in_order_the_last_batch_filled_up(whole_split, tokens):
    batches = list(caption_batches(tokens, 8))
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert len(batches) == 3
    np.testing.assert_array_equal(joined["token_ids"][:20], tokens[0])
    np.testing.assert_array_equal(joined["token_mask"][:20], tokens[1])
    assert not joined["token_ids"][20:].any()
    assert joined["caption_index"].tolist() == [*range(20), *[-1] * 4]
    assert joined["valid"].tolist() == [True] * 20 + [False] * 4


@pytest.mark.parametrize("rows", [[[0, 1], [2, 3]], [[0, 3], [1, 2]], [[0, 1, 2, 3]] * 2])
def test_processes_share_what_is_evaluated(store, whole_split, tokens, rows):
    def batches(**options):
        clips = clip_batches(store, whole_split, 4, 2, **options)
        captions = caption_batches(tokens, 4, **options)
        return list(clips), list(captions)

    whole = batches()
    shares = [(np.array(part), batches(rows=np.array(part))) for part in rows]
    for kind in (0, 1):
        for places, share in shares:
            assert len(share[kind]) == len(whole[kind])
            # Of the last batch's two clips a process may have none.
            for batch, part in zip(whole[kind], share[kind], strict=True):
                for name, array in batch.items():
                    np.testing.assert_array_equal(part[name], array[places], name)


def test_missing_clips_are_refused_at_the_start(store, split_of_files):
    split = split_of_files(["clip0.mp4", "new.mp4"])
    with pytest.raises(ValueError, match="1 of the 2 clips of toy train .*: new"):
        batches_of(store, split, tokenize(split.captions), batch_size=1, max_frames=3, seed=0)
    with pytest.raises(ValueError, match="1 of the 2 clips of toy train .*: new"):
        clip_batches(store, split, 2, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start_step": -1}, "start_step: expected 0 or more, got -1"),
        ({"batch_size": 11}, "batch_size 11 is more than the 10 clips"),
        ({"max_frames": 0}, "max_frames is 0"),
        ({"slice_framepos": 3}, "slice_framepos is 3"),
        ({"frame_order": 3}, "frame_order is 3"),
        ({"num_threads": 0}, "num_threads: expected 1 or more, got 0"),
    ],
)
def test_options_out_of_range_are_refused(store, whole_split, tokens, options, said):
    with pytest.raises(ValueError, match=said):
        batches_of(store, whole_split, tokens, **(OPTIONS | options))


def test_a_batch_of_nothing_is_refused(store, whole_split, tokens):
    with pytest.raises(ValueError, match="batch_size: expected 1 or more, got 0"):
        clip_batches(store, whole_split, 0, 3)
    with pytest.raises(ValueError, match="batch_size: expected 1 or more, got 0"):
        caption_batches(tokens, 0)


def test_tokens_of_another_split_are_refused(store, whole_split, tokens):
    with pytest.raises(ValueError, match=r"the 20 captions of toy train, got .*\(19, 8\)"):
        other = (tokens[0][1:], tokens[1][1:])
        batches_of(store, whole_split, other, **OPTIONS)


def test_a_plan_of_another_split_is_refused(store, whole_split, tokens, split_of_files):
    plan = BatchPlan.of(split_of_files(["clip0.mp4", "clip1.mp4"]), 2, seed=0)
    with pytest.raises(ValueError, match="the batches of toy train with its 20 captions"):
        training_batches(store, whole_split, tokens, plan, FrameChoice(3))


@pytest.fixture
def store_with_a_bad_image(tmp_path, video_folder, monkeypatch):
    """A store of clip0 .. clip3 whose clip2 holds bytes that are no image in its second frame."""
    settings = StoreSettings(resolution=32)
    folder = tmp_path / "store"
    parts = {f"clip{n}": folder / ".work" / f"{n}.npz" for n in range(4)}
    encode_frame = part_module.encode_frame
    made = []

    def encode(picture, settings):
        made.append(picture)
        # clip0 and clip1 have one and three frames
        return b"no image" if len(made) == 6 else encode_frame(picture, settings)

    monkeypatch.setattr(part_module, "encode_frame", encode)
    for clip_id, path in parts.items():
        job = ClipJob(clip_id, f"{clip_id}.mp4", video_folder / f"{clip_id}.mp4")
        make_part(path, job, settings)
    build_store(folder, parts, None, [], {}, settings, 10**6)
    return FrameStore.open(folder)


def test_a_frame_that_cannot_be_decoded_is_named(store_with_a_bad_image, split_of_files, capfd):
    split = split_of_files([f"clip{n}.mp4" for n in range(4)])
    batches = clip_batches(store_with_a_bad_image, split, 2, 3)
    assert next(batches)["valid"].all()
    with pytest.raises(
        DamagedStore, match=r"tfrecord-00000-of-00001: .*'clip2': stored frame 1 is no jpeg image"
    ):
        next(batches)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("augmentation", ["none", "rand-m9-n2-mstd0-inc1"])
def test_a_record_that_is_damaged_is_named(
    store_with_a_bad_image, split_of_files, capfd, augmentation
):
    store = store_with_a_bad_image
    (shard,) = store.directory.glob("*.tfrecord-*")
    content = bytearray(shard.read_bytes())
    content[int(store.index.offsets[3]) + 300] ^= 1
    shard.write_bytes(content)
    split = split_of_files(["clip3.mp4"])
    batches = batches_of(
        store,
        split,
        tokenize(split.captions),
        batch_size=1,
        max_frames=3,
        seed=0,
        augmentation=augmentation,
    )
    with pytest.raises(DamagedStore, match=r"tfrecord-00000-of-00001: record of clip 'clip3'"):
        next(batches)
    batches.close()
    # TensorFlow prints the traceback of an error inside tf.data.
    assert "Traceback" not in capfd.readouterr().err


def test_batches_before_a_damaged_record_are_whole(store_with_a_bad_image, split_of_files):
    store = store_with_a_bad_image
    (shard,) = store.directory.glob("*.tfrecord-*")
    content = bytearray(shard.read_bytes())
    content[int(store.index.offsets[3]) + 300] ^= 1
    shard.write_bytes(content)
    batches = clip_batches(store, split_of_files(["clip0.mp4", "clip1.mp4", "clip3.mp4"]), 1, 3)
    assert [next(batches)["frame_mask"].sum() for _ in range(2)] == [1, 3]
    with pytest.raises(DamagedStore, match="record of clip 'clip3'"):
        next(batches)
