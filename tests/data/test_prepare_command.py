"""`vtr prepare` as it is typed: default splits, dry run, settings, repairs."""

from __future__ import annotations

import numpy as np
import pytest

from vtr_jax.cli import main
from vtr_jax.data.frame_store import FrameStore, TooManyBadVideos
from vtr_jax.data.frame_store.estimate import estimate


@pytest.fixture
def table(tmp_path):
    """A table of two training clips and a test clip, one of which is in both."""
    path = tmp_path / "captions.csv"
    rows = [
        "video,caption,split",
        "clip1.mp4,one,train",
        "clip5.mp4,two,train",
        "clip5.mp4,three,test",
        "clip3.mp4,four,test",
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def run(table, video_folder, tmp_path):
    def call(*options):
        return main(
            [
                "prepare",
                f"--annotations={table}",
                f"--videos={video_folder}",
                f"--store={tmp_path / 'store'}",
                "--resolution=32",
                "--workers=1",
                *options,
            ]
        )

    return call


def test_all_splits_that_exist_are_prepared_and_overlap_is_reported(run, tmp_path, capsys):
    assert run() == 0
    assert FrameStore.open(tmp_path / "store").clip_ids == ("clip1", "clip3", "clip5")
    said = capsys.readouterr().out
    assert "3 clips asked for" in said
    assert "WARNING: 1 clips of test are also in train: clip5" in said


def test_named_splits_only(run, tmp_path):
    assert run("--splits=test") == 0
    assert FrameStore.open(tmp_path / "store").clip_ids == ("clip3", "clip5")


def test_an_unknown_split_is_refused(run, capsys):
    assert run("--splits=val") == 1
    assert "val" in capsys.readouterr().err


def test_settings_reach_the_store(run, tmp_path):
    assert (
        run(
            "--frame_rule=xpool",
            "--num_frames=3",
            "--stored_side=40",
            "--jpeg_quality=80",
            "--min_frames=2",
        )
        == 0
    )
    store = FrameStore.open(tmp_path / "store")
    expected = {
        "frame_rule": "xpool",
        "num_frames": 3,
        "stored_side": 40,
        "jpeg_quality": 80,
        "min_frames": 2,
        "resolution": 32,
    }
    assert {name: store.settings[name] for name in expected} == expected
    assert store.num_frames.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--beam_option=--x"], "--beam_option has no effect without --beam_runner"),
        (["--beam_runner=DirectRunner", "--dry_run"], "leave out --beam_runner"),
        (["--beam_runner=DirectRunner"], "--workers counts processes of this machine"),
        (["--num_frames=5"], "num_frames: frame_rule 'opencv' does not read it"),
        (["--encoding=png", "--jpeg_quality=50"], "jpeg_quality: encoding 'png' does not read it"),
    ],
)
def test_an_option_without_effect_is_refused(run, tmp_path, capsys, options, said):
    assert run(*options) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "store").exists()


def test_a_dry_run_writes_nothing_and_estimates(run, tmp_path, capsys):
    assert run("--dry_run") == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "store").exists()
    assert "3 clips asked for, 0 already stored, 0 decoded by an interrupted run, " in said
    assert "0 without a file or known to be bad, 3 to decode" in said
    assert "with 1 worker," in said


def test_a_dry_run_refuses_what_prepare_refuses_and_has_nothing_to_estimate_when_done(run, capsys):
    run()
    capsys.readouterr()
    assert run("--dry_run", "--framerate=2") == 1
    assert "was made with framerate 1, not 2" in capsys.readouterr().err
    assert run("--dry_run") == 0
    said = capsys.readouterr().out
    assert "3 already stored" in said and "0 to decode" in said and "MB" not in said


def test_an_estimate_is_near_what_comes_of_it(whole_split, video_folder, store, tmp_path):
    told = estimate(whole_split, video_folder, tmp_path / "new", resolution=32, workers=2)
    assert (told.clips, told.sampled, told.known_bad, told.bad) == (10, 10, (), ())
    assert told.frames_each == pytest.approx(store.num_frames.mean())
    # the whole data set is the sample: only the records' own bytes are not counted
    assert told.bytes == pytest.approx(store.index.lengths.sum(), rel=0.2)
    assert told.seconds > 0.1  # a worker has to start
    sampled = estimate(whole_split, video_folder, tmp_path / "new", resolution=32, sample=3)
    assert sampled.sampled == 3
    assert sampled.bytes_error > 0


def test_an_estimate_counts_what_is_stored_and_what_is_missing(
    split_of_files, video_folder, store_dir
):
    split = split_of_files(["clip0.mp4", "junk.mp4", "lost.mp4"])
    told = estimate(split, video_folder, store_dir, resolution=32)
    assert (told.stored, told.sampled) == (1, 1)
    assert [bad.clip_id for bad in told.known_bad] == ["lost"]
    assert [bad.clip_id for bad in told.bad] == ["junk"]
    assert "lost.mp4" in str(told)
    assert "1 to decode" in str(told)


def test_an_estimate_counts_what_an_interrupted_run_has_decoded(
    prepare_small, videos, tmp_path, split_of_files, render
):
    with pytest.raises(TooManyBadVideos):
        prepare_small(split_of_files(["clip0.mp4", "clip1.mp4", "junk.mp4"]))
    render(videos / "clip1.mp4", 2, 10, 77)
    before = sorted(path.name for path in (tmp_path / "store").rglob("*"))
    split = split_of_files(["clip0.mp4", "clip1.mp4", "clip2.mp4", "junk.mp4"])
    told = estimate(split, videos, tmp_path / "store", resolution=32)
    assert (told.stored, told.decoded, told.sampled) == (0, 1, 2)
    assert [bad.clip_id for bad in told.known_bad] == ["junk"]
    assert before == sorted(path.name for path in (tmp_path / "store").rglob("*"))


def test_verify_decodes_damaged_clips_again(run, tmp_path, capsys):
    run()
    (shard,) = (tmp_path / "store").glob("*.tfrecord-*")
    content = bytearray(shard.read_bytes())
    content[400] ^= 1
    shard.write_bytes(content)
    capsys.readouterr()
    assert run("--verify") == 0
    assert "2 already done, 1 prepared" in capsys.readouterr().out
    assert all(FrameStore.open(tmp_path / "store").read(row) for row in np.arange(3))
