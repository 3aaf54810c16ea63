"""RandAugment: what each operation does, what is drawn, and that a clip's frames share it."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from vtr_jax.data.augmentation import OPERATIONS, RAND_AUGMENT, Operation, RandAugment, augment
from vtr_jax.data.batch_plan import BatchPlan
from vtr_jax.data.frame_store import FrameStore, prepare
from vtr_jax.data.frame_store.encoding import decode_frame
from vtr_jax.data.frame_stream import FrameChoice
from vtr_jax.data.pipeline import clip_batches, training_batches
from vtr_jax.data.text import tokenize
from vtr_jax.data.video import resize_and_crop, sample_frames


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture(scope="module")
def draws():
    rng = np.random.default_rng(0)
    return [RandAugment().draw(rng) for _ in range(3000)]


def only(name, argument, picture):
    return augment(picture, [Operation(name, argument)]).astype(int)


def test_the_originals_name_is_read():
    assert RandAugment.parse(RAND_AUGMENT) == RandAugment(7.0, 4, 0.5)
    assert RandAugment.parse("rand-m9-n2-mstd0-inc1") == RandAugment(9.0, 2, 0.0)
    assert RandAugment.parse("none") is None


@pytest.mark.parametrize("text", ["rand", "rand-m7-n4-mstd0.5", "rand-m11-n2-mstd0-inc1", ""])
def test_another_name_is_refused(text):
    with pytest.raises(ValueError, match="augmentation: expected 'none' or rand-mM-nN-mstdS-inc1"):
        RandAugment.parse(text)


def test_operations_are_drawn_evenly_and_happen_half_of_the_time(draws):
    counts = Counter(operation.name for operations in draws for operation in operations)
    assert counts.keys() == OPERATIONS.keys()
    # 400 of each on average, and 4 standard deviations
    assert all(abs(count - 400) < 80 for count in counts.values())
    assert abs(np.mean([len(operations) for operations in draws]) - 2) < 0.08


@pytest.mark.parametrize(
    ("name", "scale", "centre"),
    [
        ("Rotate", 3.0, 0.0),
        ("ShearX", 0.03, 0.0),
        ("TranslateYRel", 0.045, 0.0),
        ("ColorIncreasing", 0.09, 1.0),
    ],
)
def test_signed_arguments_follow_m(draws, name, scale, centre):
    drawn = [each.argument for operations in draws for each in operations if each.name == name]
    m = np.abs(np.array(drawn) - centre) / scale
    assert abs(m.mean() - 7) < 0.1
    assert abs(m.std() - 0.5) < 0.1
    assert 0.4 < np.mean(np.array(drawn) < centre) < 0.6


def test_unsigned_arguments_follow_m(draws):
    found = {
        name: {each.argument for operations in draws for each in operations if each.name == name}
        for name in ("PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd", "Invert")
    }
    assert found["PosterizeIncreasing"] == {1, 2}  # 4 - floor(0.4 m), m from 5 to 9
    assert all(256 - 256 * 0.9 < each < 256 - 256 * 0.5 for each in found["SolarizeIncreasing"])
    assert all(55 <= each <= 99 for each in found["SolarizeAdd"])
    assert found["Invert"] == {0}


def test_what_operations_do_to_values(picture):
    values = picture.astype(int)
    np.testing.assert_array_equal(only("Invert", 0, picture), 255 - values)
    np.testing.assert_array_equal(only("PosterizeIncreasing", 2, picture), values & 0b11000000)
    np.testing.assert_array_equal(
        only("SolarizeIncreasing", 100, picture), np.where(values < 100, values, 255 - values)
    )
    np.testing.assert_array_equal(
        only("SolarizeAdd", 77, picture), np.where(values < 128, values + 77, values)
    )
    darker = only("BrightnessIncreasing", 0.37, picture)
    assert np.abs(darker - values * 0.37).max() <= 1


def test_what_operations_do_to_places(picture):
    moved = only("TranslateXRel", 0.1, picture)  # 3 of 30 pixels to the left
    np.testing.assert_array_equal(moved[:, :26], picture[:, 3:29])
    assert (moved[:, 28:] == 128).all()
    moved = only("TranslateYRel", -0.1, picture)
    np.testing.assert_array_equal(moved[3:19], picture[1:17])
    turned = only("Rotate", 90.0, picture[:, :20])
    assert np.abs(turned[1:-1, 1:-1] - np.rot90(picture[:, :20])[1:-1, 1:-1]).max() <= 1


def test_no_operation_leaves_a_picture_alone(picture):
    assert augment(picture, []) is picture


@pytest.fixture(scope="module")
def whole_pictures(tmp_path_factory, video_folder, whole_split):
    """The clips of `store` as whole lossless pictures of the videos' own 64 x 48 pixels."""
    folder = tmp_path_factory.mktemp("stores") / "whole"
    prepare(whole_split, video_folder, folder, resolution=32, encoding="png", stored_side=0)
    return FrameStore.open(folder)


def test_whole_pictures_are_stored_whole_and_read_as_the_squares(
    whole_pictures, png_store, whole_split, video_folder
):
    assert decode_frame(whole_pictures.read(3)[1]).shape == (48, 64, 3)
    kept, squares = (
        list(clip_batches(store, whole_split, 4, 3)) for store in (whole_pictures, png_store)
    )
    for one, other in zip(kept, squares, strict=True):
        np.testing.assert_array_equal(one["frames"], other["frames"])
        np.testing.assert_array_equal(one["frame_mask"], other["frame_mask"])
    sampled = sample_frames(video_folder / "clip3.mp4", resolution=32)
    np.testing.assert_array_equal(
        np.stack([resize_and_crop(decode_frame(e), 32) for e in whole_pictures.read(3)]),
        sampled.frames,
    )


def test_larger_pictures_are_cut_down_to_the_stored_side(tmp_path, video_folder, split_of_files):
    folder = tmp_path / "store"
    split = split_of_files(["clip0.mp4"])
    prepare(split, video_folder, folder, resolution=32, stored_side=36, workers=1)
    assert decode_frame(FrameStore.open(folder).read(0)[0]).shape == (36, 48, 3)
    large = tmp_path / "large"
    prepare(split, video_folder, large, resolution=32, stored_side=64, workers=1)
    assert decode_frame(FrameStore.open(large).read(0)[0]).shape == (48, 64, 3)


def test_a_stored_side_below_the_resolution_is_refused(tmp_path, video_folder, whole_split):
    with pytest.raises(ValueError, match="stored_side: expected a whole number, 32 or more"):
        prepare(whole_split, video_folder, tmp_path / "s", resolution=32, stored_side=16)


def augmented(store, split, seed=5, augmentation="none", **options):
    tokens = tokenize(split.captions, 8)
    plan = BatchPlan.of(split, batch_size=5, seed=seed)
    choice = FrameChoice(4, seed=seed, augmentation=RandAugment.parse(augmentation))
    batches = training_batches(store, split, tokens, plan, choice, **options)
    return list(itertools.islice(batches, 4))


def test_augmented_batches_are_a_function_of_seed_and_step(whole_pictures, whole_split):
    straight = augmented(whole_pictures, whole_split, augmentation=RAND_AUGMENT, num_threads=1)
    threads = augmented(whole_pictures, whole_split, augmentation=RAND_AUGMENT, num_threads=3)
    resumed = augmented(whole_pictures, whole_split, augmentation=RAND_AUGMENT, start_step=2)
    for one, other in [
        *zip(straight, threads, strict=True),
        *zip(straight[2:], resumed[:2], strict=True),
    ]:
        np.testing.assert_array_equal(one["frames"], other["frames"])


def test_augmentation_changes_pictures_and_nothing_else(whole_pictures, whole_split):
    plain = augmented(whole_pictures, whole_split)
    changed = augmented(whole_pictures, whole_split, augmentation=RAND_AUGMENT)
    for one, other in zip(plain, changed, strict=True):
        for name in one.keys() - {"frames"}:
            np.testing.assert_array_equal(one[name], other[name])
        assert not other["frames"][other["frame_mask"] == 0].any()
    assert not all(
        np.array_equal(one["frames"], other["frames"])
        for one, other in zip(plain, changed, strict=True)
    )


def test_the_frames_of_a_clip_share_their_operations(whole_pictures, whole_split):
    """Each row is what one draw makes of its clip's pictures, resized and cropped after it."""
    (batch, *_) = augmented(whole_pictures, whole_split, augmentation=RAND_AUGMENT)
    for place, clip in enumerate(batch["clip_index"]):
        clip_id = whole_split.clips[clip].clip_id
        encoded = whole_pictures.read(whole_pictures.index_of(clip_id))
        count = int(batch["frame_mask"][place].sum())
        operations = RandAugment().draw(np.random.default_rng([5, 0, place, 1]))
        kept = np.linspace(0, len(encoded) - 1, count).astype(int)
        for row, number in enumerate(kept):
            expected = resize_and_crop(augment(decode_frame(encoded[number]), operations), 32)
            np.testing.assert_array_equal(batch["frames"][place, row], expected)
