"""Reading a frame store, and every way in which one can be damaged."""

from __future__ import annotations

import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from vtr_jax.data.frame_store import DamagedStore, FrameStore
from vtr_jax.data.frame_store.encoding import decode_frame
from vtr_jax.data.frame_store.index import StoreIndex
from vtr_jax.data.video import sample_frames

EXPECTED_FRAMES = [1, 3, 2, 5, 3, 9, 2, 4, 1, 6]


@pytest.fixture
def copied_store(tmp_path, store_dir):
    """A copy of the store's directory that a test may damage."""
    return shutil.copytree(store_dir, tmp_path / "copy")


def shards_of(directory):
    return sorted(directory.glob("*.tfrecord-*"))


def test_clips_lie_in_order_of_their_ids_with_the_frames_of_the_rule(store):
    assert store.clip_ids == tuple(f"clip{number}" for number in range(10))
    assert store.num_frames.tolist() == EXPECTED_FRAMES
    assert [len(store.read(row)) for row in range(10)] == EXPECTED_FRAMES
    assert [store.index_of(clip_id) for clip_id in store.clip_ids] == list(range(10))
    assert len(store) == 10
    assert "clip3" in store
    assert "clip99" not in store
    assert store.settings == {
        "framerate": 1,
        "resolution": 32,
        "encoding": "jpeg",
        "jpeg_quality": 95,
        "min_frames": 1,
        "frame_rule": "opencv",
        "num_frames": None,
        "stored_side": None,
        "resize_mode": "shortest",
        "interpolation": "bicubic",
        "resized_side": None,
        "fill_color": [0, 0, 0],
        "crop_offset": "round",
        "version": "1.1.0",
    }


def test_png_keeps_every_pixel(png_store, video_folder):
    for row, clip_id in enumerate(png_store.clip_ids):
        sampled = sample_frames(video_folder / f"{clip_id}.mp4", resolution=32)
        stored = np.stack([decode_frame(frame) for frame in png_store.read(row)])
        np.testing.assert_array_equal(stored, sampled.frames)


def test_jpeg_is_close_and_keeps_colour_at_full_resolution(store, png_store):
    for row in range(len(store)):
        for lossy, exact in zip(store.read(row), png_store.read(row), strict=True):
            assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(lossy))) == 0  # 4:4:4
            error = decode_frame(lossy).astype(int) - decode_frame(exact)
            assert 0 < np.abs(error).mean() < 3


def test_tensorflow_datasets_opens_the_store(png_store, video_folder):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(png_store.directory)
    assert str(builder.version) == "1.1.0"
    assert builder.info.metadata["encoding"] == "png"
    examples = list(tfds.as_numpy(builder.as_dataset(split="clips", shuffle_files=False)))
    assert len(examples) == 10
    for row, example in enumerate(examples):
        clip_id = example["clip_id"].decode()
        sampled = sample_frames(video_folder / f"{clip_id}.mp4", resolution=32)
        assert clip_id == png_store.clip_ids[row]
        assert example["file"].decode() == f"{clip_id}.mp4"
        assert example["frame_indices"].tolist() == sampled.frame_indices.tolist()
        assert example["fps"] == np.float32(sampled.fps)
        assert example["video_frame_count"] == sampled.frame_count
        assert (example["source_width"], example["source_height"]) == (64, 48)
        assert np.isnan(example["start"])
        assert np.isnan(example["end"])
        np.testing.assert_array_equal(example["frames"], sampled.frames)


def same_index(one: StoreIndex, other: StoreIndex) -> bool:
    return all(
        np.array_equal(value, getattr(other, name), equal_nan=value.dtype.kind == "f")
        for name, value in vars(one).items()
    )


def test_an_absent_index_is_made_again(copied_store, store):
    (copied_store / "index.npz").unlink()
    assert same_index(FrameStore.open(copied_store).index, store.index)
    assert (copied_store / "index.npz").exists()


def test_an_index_of_other_record_files_is_made_again(copied_store, store, png_store):
    shutil.copy(png_store.directory / "index.npz", copied_store / "index.npz")
    assert same_index(FrameStore.open(copied_store).index, store.index)


def test_an_index_that_cannot_be_kept_is_made_for_this_run(copied_store, store, monkeypatch):
    def refuse(self, directory):
        raise PermissionError(13, "read-only")

    (copied_store / "index.npz").unlink()
    monkeypatch.setattr(StoreIndex, "write", refuse)
    assert same_index(FrameStore.open(copied_store).index, store.index)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_damaged_index_is_named(copied_store, content):
    (copied_store / "index.npz").write_bytes(content)
    with pytest.raises(OSError, match=r"index\.npz: damaged index.*delete it"):
        FrameStore.open(copied_store)


def test_a_missing_record_file_is_named(copied_store):
    shards_of(copied_store)[1].unlink()
    with pytest.raises(DamagedStore, match=r"1 of 3 .*tfrecord-00001-of-00003.*vtr prepare"):
        FrameStore.open(copied_store)


@pytest.mark.parametrize("with_index", [True, False])
def test_a_record_file_that_is_cut_off_loses_only_its_last_clips(
    copied_store, store, split_of_files, caplog, with_index
):
    shard = shards_of(copied_store)[1]
    shard.write_bytes(shard.read_bytes()[:-30])
    if not with_index:
        (copied_store / "index.npz").unlink()
    opened = FrameStore.open(copied_store)
    lost = set(store.clip_ids) - set(opened.clip_ids)
    assert lost == {store.clip_ids[np.flatnonzero(store.index.shards == 1)[-1]]}
    assert all(opened.read(row) for row in range(len(opened)))
    (message,) = opened.damage
    assert message in caplog.text
    assert "tfrecord-00001-of-00003" in message
    assert "1 of its" in message
    with pytest.raises(ValueError, match=r"1 of the 1 clips.*skip_missing.*tfrecord-00001"):
        opened.require_covers(split_of_files([f"{lost.pop()}.mp4"]))
    with pytest.raises(DamagedStore, match=r"tfrecord-00001-of-00003: "):
        FrameStore.open(copied_store, damaged="fatal")


def test_an_unknown_way_with_damage_is_refused(store_dir):
    with pytest.raises(ValueError, match="expected 'skip' or 'fatal', got 'ignore'"):
        FrameStore.open(store_dir, damaged="ignore")


def test_a_damaged_record_file_does_not_become_the_index(copied_store, store):
    shard = shards_of(copied_store)[2]
    content = shard.read_bytes()
    (copied_store / "index.npz").unlink()
    shard.write_bytes(content[:-30])
    assert FrameStore.open(copied_store).damage
    shard.write_bytes(content)
    assert FrameStore.open(copied_store).clip_ids == store.clip_ids


def test_a_store_of_the_version_before_is_read(copied_store, store):
    path = copied_store / "dataset_info.json"
    path.write_text(path.read_text().replace('"1.1.0"', '"1.0.0"'))
    about = json.loads((copied_store / "metadata.json").read_text())
    for name in ("frame_rule", "num_frames", "stored_side"):
        del about[name]
    (copied_store / "metadata.json").write_text(json.dumps(about))
    assert FrameStore.open(copied_store).settings == store.settings | {"version": "1.0.0"}


def test_record_files_with_too_few_clips_are_refused(copied_store):
    info = json.loads((copied_store / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"][0] = "7"
    (copied_store / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DamagedStore, match=r"counts \[7, .*they hold \["):
        FrameStore.open(copied_store)


def test_a_damaged_record_is_named_when_it_is_read(copied_store):
    opened = FrameStore.open(copied_store)
    shard = shards_of(copied_store)[0]
    content = bytearray(shard.read_bytes())
    content[int(opened.index.offsets[1]) + 200] ^= 1
    shard.write_bytes(content)
    assert len(opened.read(0)) == EXPECTED_FRAMES[0]
    with pytest.raises(DamagedStore, match=r"tfrecord-00000-of-00003: record of clip 'clip1'"):
        opened.read(1)


def test_an_open_store_outlives_its_files(copied_store):
    opened = FrameStore.open(copied_store)
    shutil.rmtree(copied_store)
    assert len(opened.read(5)) == EXPECTED_FRAMES[5]


def test_a_read_error_names_record_file_and_clip(copied_store, monkeypatch):
    def fail(descriptor, length, offset):
        raise OSError(5, "Input/output error")

    opened = FrameStore.open(copied_store)
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(DamagedStore, match=r"tfrecord-00000-of-00003: .*'clip0' cannot be read"):
        opened.read(0)


def test_a_store_of_a_newer_version_is_refused(copied_store):
    path = copied_store / "dataset_info.json"
    path.write_text(path.read_text().replace('"1.1.0"', '"1.10.0"'))
    with pytest.raises(ValueError, match=r"version 1\.10\.0, this program reads up to 1\.1\.0"):
        FrameStore.open(copied_store)


def test_a_directory_without_a_store_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no finished frame store.*vtr prepare"):
        FrameStore.open(tmp_path / "nowhere")


def test_another_dataset_is_refused(copied_store):
    path = copied_store / "dataset_info.json"
    path.write_text(path.read_text().replace('"frame_store"', '"mnist"'))
    with pytest.raises(ValueError, match=r"expected a dataset named 'frame_store', found 'mnist'"):
        FrameStore.open(copied_store)


@pytest.mark.parametrize("name", ["dataset_info.json", "metadata.json"])
def test_damaged_metadata_is_named(copied_store, name):
    (copied_store / name).write_text("{")
    with pytest.raises(DamagedStore, match=rf"{name}: missing or damaged"):
        FrameStore.open(copied_store)


def test_a_store_without_its_split_is_refused(copied_store):
    path = copied_store / "dataset_info.json"
    path.write_text(path.read_text().replace('"clips"', '"train"'))
    with pytest.raises(DamagedStore, match=r"dataset_info\.json: no split 'clips'"):
        FrameStore.open(copied_store)


def test_clips_that_are_not_stored_are_named(store, split_of_files):
    wanted = split_of_files(["clip3.mp4", "new.mp4", "clip1.mp4", "also.mp4"])
    assert store.check_covers(wanted) == ["new", "also"]
    with pytest.raises(ValueError, match=r"2 of the 4 clips of toy train .*new, also.*vtr prepare"):
        store.require_covers(wanted)
    with pytest.raises(KeyError, match=r"'new' is not in the frame store .*vtr prepare"):
        store.index_of("new")


def test_only_some_missing_clips_are_spelt_out(store, split_of_files):
    wanted = split_of_files([f"new{number}.mp4" for number in range(9)])
    with pytest.raises(ValueError, match=r"new0, new1, new2, new3, new4 and 4 more"):
        store.require_covers(wanted)


def test_a_split_can_be_cut_down_to_what_is_stored(store, split_of_files):
    wanted = split_of_files(["clip3.mp4", "new.mp4", "clip1.mp4", "also.mp4"])
    kept, left_out = store.covered_part(wanted)
    assert [clip.clip_id for clip in kept.clips] == ["clip3", "clip1"]
    assert left_out == ["also", "new"]
    assert len(kept.captions) == 4
    store.require_covers(kept)


def test_a_split_of_which_nothing_is_stored_is_refused(store, split_of_files):
    with pytest.raises(ValueError, match=r"none of the 1 clips of toy train"):
        store.covered_part(split_of_files(["new.mp4"]))
