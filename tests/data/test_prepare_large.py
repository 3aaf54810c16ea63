"""Clips that are large: records without copies, and clips too large for a record."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest

from vtr_jax.data.check_data import probe as probe_module
from vtr_jax.data.check_data.probe import FileToProbe, probe
from vtr_jax.data.frame_store import FrameStore, TooManyBadVideos
from vtr_jax.data.frame_store.jobs import ClipJob, ClipSource
from vtr_jax.data.frame_store.part import Part, make_part, open_part
from vtr_jax.data.frame_store.record import record_of
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.frame_store.shards import store_features

SETTINGS = StoreSettings(resolution=32)


def part_with(sizes: list[int], **changes) -> Part:
    part = Part(
        clip_id="é#1-2",
        source=ClipSource("x/é.mp4", 12345678901, "ab" * 32, 1.1, None),
        sizes=sizes,
        frame_indices=np.arange(len(sizes)) * 1000,
        fps=29.97,
        video_frame_count=10**10,
        source_width=0,
        source_height=240,
        chosen_frames=len(sizes),
    )
    return dataclasses.replace(part, **changes)


@pytest.mark.parametrize("sizes", [[1], [127, 128], [0, 16383, 16384, 3], [200_000] * 3, [5] * 300])
def test_a_record_is_what_tensorflow_datasets_writes(sizes):
    from tensorflow import train

    part = part_with(sizes)
    frames = [bytes([n % 256]) * size for n, size in enumerate(sizes)]
    values = {
        "clip_id": part.clip_id,
        "frames": frames,
        "frame_indices": part.frame_indices,
        "fps": part.fps,
        "video_frame_count": part.video_frame_count,
        "source_width": part.source_width,
        "source_height": part.source_height,
        "file": part.source.file,
        "file_size": part.source.file_size,
        "file_sha256": part.source.file_sha256,
        "start": 1.1,
        "end": float("nan"),
    }
    theirs = train.Example.FromString(store_features(SETTINGS).serialize_example(values))
    assert bytes(record_of(part, frames)) == theirs.SerializeToString(deterministic=True)


def test_a_record_needs_its_own_size_of_memory():
    sizes = [2**20] * 24
    part = part_with(sizes)
    record_of(part_with([1]), [b"x"])  # imports
    tracemalloc.start()
    record = record_of(part, (bytes(size) for size in sizes))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(record) > sum(sizes)
    assert peak < len(record) + 3 * 2**20


def test_a_part_is_written_and_read_frame_by_frame(video_folder, tmp_path):
    path = tmp_path / "part.npz"
    job = ClipJob("c", "clip5.mp4", video_folder / "clip5.mp4")
    part = make_part(path, job, SETTINGS)
    assert isinstance(part, Part) and len(part.sizes) == 9
    with open_part(path) as (found, frames):
        assert found.sizes == part.sizes == [len(frame) for frame in frames]


def test_a_clip_too_large_for_a_record_costs_itself_alone(
    prepare_small, tmp_path, whole_split, store
):
    lengths = dict(zip(store.clip_ids, store.index.lengths.tolist(), strict=True))
    limit = sorted(lengths.values())[-2]
    largest = max(lengths, key=lambda name: lengths[name])
    report = prepare_small(whole_split, max_record_bytes=limit, max_bad_share=0)
    assert report.bad_share == 0  # its file is whole
    (bad,) = report.bad
    assert (bad.clip_id, bad.reason.split(":")[0]) == (largest, "too large")
    assert "--framerate" in bad.reason and "--encoding" not in bad.reason
    assert len(FrameStore.open(tmp_path / "store")) == 9


def test_a_part_that_is_too_large_is_given_up_at_once_and_leaves_nothing(video_folder, tmp_path):
    settings = StoreSettings(encoding="png", stored_side=0, framerate=0)
    job = ClipJob("c", "clip5.mp4", video_folder / "clip5.mp4")
    bad = make_part(tmp_path / "part.npz", job, settings, max_bytes=20_000)
    assert bad.reason.startswith("too large: its first ")
    assert all(option in bad.reason for option in ("--encoding=jpeg", "--stored_side"))
    assert list(tmp_path.iterdir()) == []


def test_check_data_foresees_a_record_that_is_too_large(video_folder, monkeypatch):
    monkeypatch.setattr(probe_module, "MAX_RECORD_BYTES", 10_000)
    file = FileToProbe(video_folder / "clip5.mp4", ((None, None), (0.0, 1.0)))
    found = probe(file, StoreSettings(encoding="png", stored_side=0, framerate=0))
    assert found.rejected[None, None].startswith("too large")


def test_parts_beyond_the_limit_are_decoded_again(prepare_small, tmp_path, split_of_files):
    """A former version wrote them, and failed when it made the records."""
    split = split_of_files(["clip0.mp4", "clip1.mp4", "junk.mp4"])
    with pytest.raises(TooManyBadVideos):
        prepare_small(split)
    sizes = [path.stat().st_size for path in (tmp_path / "store").glob(".work/parts/*/*.npz")]
    report = prepare_small(split, max_record_bytes=max(sizes) - 1, max_bad_share=0.99)
    assert (report.already_done, len(sizes)) == (1, 2)
