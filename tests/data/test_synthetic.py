"""The rendered data set: what is held out, that only time tells pairs apart, equal bytes."""

from __future__ import annotations

import csv
import hashlib
import json

import numpy as np
import pytest

from vtr_jax.data.annotations import read_split
from vtr_jax.data.frame_choice import whole_second_frames
from vtr_jax.data.synthetic import (
    FRAMES_PER_SECOND,
    NUM_FRAMES,
    render_dataset,
    render_frames,
)
from vtr_jax.data.synthetic_scenes import MOTIONS, Scene, all_scenes, plan_clips

SIZES = {"num_val": 4, "num_test": 10, "direction_pairs": 3, "video_size": 48}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return render_dataset(tmp_path_factory.mktemp("synthetic") / "data", 12, seed=5, **SIZES)


def decoded(path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert float(container.streams.video[0].average_rate) == FRAMES_PER_SECOND
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


def test_files_and_captions_agree(dataset):
    splits = {name: read_split("table", dataset.captions_file, name) for name in dataset.clips}
    assert {name: len(split.clips) for name, split in splits.items()} == dataset.clips
    files = {clip.file for split in splits.values() for clip in split.clips}
    assert files == {path.name for path in dataset.videos_dir.iterdir()}
    assert len(splits["train"].captions) == 2 * len(splits["train"].clips)
    assert len(set(splits["test"].captions)) == len(splits["test"].clips) == 10


def test_videos_are_what_was_drawn(dataset):
    clips, _ = plan_clips(12, 5, num_val=4, num_test=10, direction_pairs=3)
    for clip in clips[::9]:
        frames = decoded(dataset.videos_dir / clip.file)
        drawn = render_frames(clip.scene, clip.look_seed, 48)
        assert frames.shape == drawn.shape == (NUM_FRAMES, 48, 48, 3)
        # What is left is compression and the halved colour resolution at the edges.
        assert np.abs(frames.astype(float) - drawn).mean() < 6


def test_paired_clips_are_each_other_backwards(dataset):
    pairs = json.loads(dataset.pairs_file.read_text())
    assert len(pairs) == 3
    for pair in pairs:
        first, second = (decoded(dataset.videos_dir / f"{clip}.mp4") for clip in pair["clips"])
        forwards = np.abs(first.astype(float) - second).mean()
        backwards = np.abs(first.astype(float) - second[::-1]).mean()
        assert backwards < 2 < forwards
        np.testing.assert_allclose(first.mean(axis=0), second.mean(axis=0), atol=12)


@pytest.mark.parametrize("framerate", [1, 2, 4, 8])
def test_a_video_and_its_reverse_are_sampled_at_the_same_frames(framerate):
    chosen = whole_second_frames(NUM_FRAMES, FRAMES_PER_SECOND, framerate)
    assert chosen == sorted(NUM_FRAMES - 1 - index for index in chosen)
    assert len(chosen) == 2 * framerate + 1


@pytest.mark.parametrize("motion", MOTIONS)
def test_reversed_scenes_draw_the_very_same_frames(motion):
    scene = Scene("green", "star", "large", motion)
    frames = render_frames(scene, (1, 2), 32)
    np.testing.assert_array_equal(frames[::-1], render_frames(scene.reversed(), (1, 2), 32))
    assert scene.reversed().reversed() == scene
    assert len(np.unique(frames, axis=0)) == NUM_FRAMES


def test_motion_follows_the_caption():
    frames = render_frames(Scene("white", "circle", "small", ("right", "down")), (0,), 64)
    bright = frames.astype(float).sum(-1) - frames[-1, 0, 0].sum() > 300
    rows, columns = np.mgrid[:64, :64]
    places = np.array([[columns[frame].mean(), rows[frame].mean()] for frame in bright])
    steps = np.diff(places[[0, 8, 16]], axis=0)
    assert steps[0, 0] > 20 and abs(steps[0, 1]) < 1
    assert steps[1, 1] > 20 and abs(steps[1, 0]) < 1


def test_every_scene_has_its_own_words():
    scenes = all_scenes()
    wordings = [caption for scene in scenes for caption in scene.captions()]
    assert len(scenes) == len(set(scenes))
    assert len(wordings) == len(set(wordings))


def test_held_out_scenes_never_occur_in_training():
    clips, pairs = plan_clips(1500, 0, num_val=40, num_test=100, direction_pairs=30)
    scenes = {
        name: [c.scene for c in clips if c.split == name] for name in ("train", "val", "test")
    }
    train, val, test = (set(scenes[name]) for name in ("train", "val", "test"))
    assert not (train & test or train & val or val & test)
    assert [len(scenes[name]) for name in ("train", "val", "test")] == [1500, 40, 100]
    assert (len(val), len(test)) == (40, 100)
    trained = {caption for clip in clips if clip.split == "train" for caption in clip.captions}
    assert not trained & {clip.captions[0] for clip in clips if clip.split != "train"}
    for attribute in ("colour", "shape", "size", "motion"):
        assert {getattr(s, attribute) for s in test} <= {getattr(s, attribute) for s in train}
    assert len({clip.look_seed for clip in clips}) == len(clips) - len(pairs)


def test_pairs_are_all_the_test_clips_that_differ_only_in_direction():
    clips, pairs = plan_clips(1, 3, num_val=1, num_test=100, direction_pairs=30)
    scene_of = {clip.file: clip.scene for clip in clips if clip.split == "test"}
    assert all(scene_of[a].reversed() == scene_of[b] for a, b in pairs)
    reversible = [file for file, scene in scene_of.items() if scene.reversed() in scene_of.values()]
    assert sorted(reversible) == sorted(file for pair in pairs for file in pair)


def digest(directory) -> str:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_same_seed_same_bytes(dataset, tmp_path):
    again = render_dataset(tmp_path / "again", 12, seed=5, workers=3, **SIZES)
    assert digest(again.directory) == digest(dataset.directory)
    other = render_dataset(tmp_path / "other", 12, seed=6, **SIZES)
    assert digest(other.directory) != digest(dataset.directory)


def test_a_rendered_directory_is_taken_as_it_is(dataset):
    marker = dataset.videos_dir / "train_00000.mp4"
    before = marker.stat().st_mtime_ns
    assert render_dataset(dataset.directory, 12, seed=5, **SIZES) == dataset
    assert marker.stat().st_mtime_ns == before


def test_an_interrupted_run_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    def stop(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("vtr_jax.data.synthetic._write_lists", stop)
        render_dataset(tmp_path / "data", 2, **SIZES)
    assert not (tmp_path / "data").exists()
    dataset = render_dataset(tmp_path / "data", 2, **SIZES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    with dataset.captions_file.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 + 4 + 10


def test_other_peoples_directories_are_left_alone(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"'num_clips': 12.*choose another directory"):
        render_dataset(dataset.directory, 13, seed=5, **SIZES)
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="expected a new or empty directory"):
        render_dataset(tmp_path, 2, **SIZES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_clips": 0}, "at least one clip a split"),
        ({"direction_pairs": 6}, "6 pairs need 12 test clips, num_test is 10"),
        ({"num_test": 900}, "at most half of the 288 combinations"),
        ({"video_size": 33}, "even number, 32 or more; got 33"),
    ],
)
def test_counts_that_cannot_be_met_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        render_dataset(tmp_path / "data", **({"num_clips": 2} | SIZES | changes))
    assert not (tmp_path / "data").exists()
