"""Preparing a frame store: interrupted, repeated, enlarged, and with every kind of bad video."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vtr_jax.data.frame_store import FrameStore, StoreSettings, TooManyBadVideos, prepare
from vtr_jax.data.frame_store import finish as finish_module
from vtr_jax.data.frame_store.workers import run_jobs
from vtr_jax.data.split import Split, VideoClip
from vtr_jax.files import write_atomically

PREPARE_KILLED = """
import sys
from pathlib import Path
from vtr_jax.data.frame_store import prepare
from vtr_jax.data.split import Split, VideoClip
clips = tuple(VideoClip(f"c{n:02d}", f"clip{n % 10}.mp4") for n in range(60))
if __name__ == "__main__":
    split = Split("toy", "train", clips, (), [])
    prepare(split, sys.argv[1], sys.argv[2], resolution=64, workers=1, shard_bytes=100_000)
"""


def contents(store_dir: Path) -> dict[str, bytes]:
    """Every file that makes a store, by name."""
    about_the_run = (".lock", "report.json", "bad_clips.jsonl")
    return {
        path.relative_to(store_dir).as_posix(): path.read_bytes()
        for path in store_dir.rglob("*")
        if path.is_file() and path.name not in about_the_run
    }


@pytest.fixture
def videos(tmp_path, video_folder):
    """A copy of the video files that a test may change."""
    return shutil.copytree(video_folder, tmp_path / "videos")


@pytest.fixture
def prepare_small(tmp_path, videos):
    """prepare() into tmp_path/store with the settings of the store fixture and one worker."""

    def run(splits, store_dir=tmp_path / "store", **options):
        options = {"resolution": 32, "shard_bytes": 20_000, "workers": 1} | options
        return prepare(splits, videos, store_dir, **options)

    return run


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.002)


def is_alive(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def kill_with_parts_done(video_folder, store_dir, number):
    """Runs prepare in a process of its own until `number` parts are there, and kills it."""
    program = store_dir.parent / "prepare_killed.py"
    program.write_text(PREPARE_KILLED)
    command = [sys.executable, str(program), str(video_folder), str(store_dir)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(store_dir.glob(".work/parts/*/*.npz"))) >= number)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert children
    wait_until(lambda: not any(is_alive(child) for child in children))


def test_a_killed_run_goes_on_and_gives_the_store_of_an_undisturbed_one(tmp_path, video_folder):
    store_dir = tmp_path / "killed"
    for number in (3, 12):
        kill_with_parts_done(video_folder, store_dir, number)
        assert not (store_dir / "dataset_info.json").exists()
        with pytest.raises(FileNotFoundError, match="finish it after an interruption"):
            FrameStore.open(store_dir)
    parts = sorted(store_dir.glob(".work/parts/*/*.npz"))
    parts[0].write_bytes(parts[0].read_bytes()[:100])  # as after a power cut
    parts[1].with_suffix(".npz.1.tmp").write_bytes(b"left by a killed worker")

    clips = tuple(VideoClip(f"c{n:02d}", f"clip{n % 10}.mp4") for n in range(60))
    split = Split("toy", "train", clips, (), [])
    options = {"resolution": 64, "shard_bytes": 100_000}
    report = prepare(split, video_folder, store_dir, workers=2, **options)
    assert report.already_done == len(parts) - 1 >= 11
    assert report.prepared == 60 - report.already_done
    prepare(split, video_folder, tmp_path / "undisturbed", workers=1, **options)
    assert contents(store_dir) == contents(tmp_path / "undisturbed")
    assert len(FrameStore.open(store_dir)) == 60


class Killed(BaseException):
    """Stands for the end of the process."""


def test_an_interruption_while_the_store_is_put_in_place_is_mended(
    prepare_small, tmp_path, store_dir, whole_split, monkeypatch
):
    prepare_small(whole_split.restrict(["clip1", "clip2"]))
    with monkeypatch.context() as patch:
        patch.setattr(finish_module, "install_ready_store", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare_small(whole_split)

    for moves in range(20):
        folder = shutil.copytree(tmp_path / "store", tmp_path / f"after{moves}")
        done = []

        def move(source, target, done=done, moves=moves):
            if len(done) == moves:
                raise Killed
            done.append(target)
            os.rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(finish_module, "os", SimpleNamespace(replace=move))
            with contextlib.suppress(Killed):
                finish_module.install_ready_store(folder)
        if moves < 7:  # dataset_info.json comes last
            with pytest.raises(FileNotFoundError):
                FrameStore.open(folder)
        finish_module.install_ready_store(folder)
        assert contents(folder) == contents(store_dir)
        if len(done) < moves:
            break
    assert len(done) == 8  # three shards, four other files, then the folder of work


def test_the_same_command_again_has_nothing_to_do(prepare_small, tmp_path, whole_split):
    first = prepare_small(whole_split)
    before = contents(tmp_path / "store")
    times = {name: (tmp_path / "store" / name).stat().st_mtime_ns for name in before}
    second = prepare_small(whole_split)
    assert (first.already_done, first.prepared, first.frames) == (0, 10, 36)
    assert (second.already_done, second.prepared, second.frames) == (10, 0, 36)
    assert (
        second.bytes == first.bytes == sum(len(before[name]) for name in before if "-of-" in name)
    )
    assert contents(tmp_path / "store") == before
    assert times == {name: (tmp_path / "store" / name).stat().st_mtime_ns for name in before}


def test_progress_says_how_many_clips_are_done(prepare_small, whole_split, capsys):
    prepare_small(whole_split.restrict(["clip0", "clip4", "clip8"]))
    capsys.readouterr()
    prepare_small(whole_split)
    assert "prepare (3 already done)" in capsys.readouterr().err


def test_a_store_grows_to_what_it_would_be_if_made_at_once(
    prepare_small, tmp_path, whole_split, store_dir
):
    prepare_small(whole_split.restrict(["clip7", "clip2", "clip5"]))
    report = prepare_small(whole_split.restrict(["clip5", "clip0", "clip9"]))
    assert (report.clips, report.already_done, report.prepared) == (3, 1, 2)
    prepare_small(whole_split)
    assert contents(tmp_path / "store") == contents(store_dir)


def test_splits_are_united_and_a_clip_in_both_is_decoded_once(
    prepare_small, tmp_path, whole_split, store_dir, split_of_files
):
    test = split_of_files(["clip3.mp4", "clip4.mp4"], name="test")
    report = prepare_small([whole_split, test])
    assert (report.clips, report.prepared) == (10, 10)
    assert contents(tmp_path / "store") == contents(store_dir)


def test_a_changed_video_is_decoded_again_and_a_touched_one_is_not(
    prepare_small, tmp_path, videos, whole_split, render
):
    prepare_small(whole_split)
    before = FrameStore.open(tmp_path / "store")
    render(videos / "clip3.mp4", 2, 10, 77)
    os.utime(videos / "clip4.mp4", (time.time() + 9, time.time() + 9))
    report = prepare_small(whole_split)
    assert (report.already_done, report.prepared) == (9, 1)
    after = FrameStore.open(tmp_path / "store")
    assert after.num_frames[after.index_of("clip3")] == 2
    assert after.read(4) == before.read(4)


def test_videos_may_be_deleted_once_they_are_stored(prepare_small, videos, whole_split):
    prepare_small(whole_split)
    (videos / "clip6.mp4").unlink()
    report = prepare_small(whole_split)
    assert (report.already_done, report.bad) == (10, ())


def test_a_stored_clip_whose_video_became_bad_leaves_the_store(
    prepare_small, tmp_path, videos, whole_split
):
    prepare_small(whole_split)
    (videos / "clip6.mp4").write_bytes(b"")
    report = prepare_small(whole_split, max_bad_share=0.1)
    assert [bad.clip_id for bad in report.bad] == ["clip6"]
    assert "clip6" not in FrameStore.open(tmp_path / "store")


def test_start_and_end_choose_the_stretch(prepare_small, tmp_path, videos):
    clips = (
        VideoClip("whole", "clip5.mp4"),
        VideoClip("middle", "clip5.mp4", 2.0, 5.0),
        VideoClip("rest", "clip5.mp4", 6.5),
    )
    prepare_small(Split("toy", "train", clips, (), []))
    opened = FrameStore.open(tmp_path / "store")
    frames = {clip_id: opened.read(opened.index_of(clip_id)) for clip_id in opened.clip_ids}
    assert frames["middle"] == frames["whole"][2:6]
    assert frames["rest"] == frames["whole"][6:]
    moved = (*clips[:2], VideoClip("rest", "clip5.mp4", 7.0))
    report = prepare_small(Split("toy", "train", moved, (), []))
    assert (report.already_done, report.prepared) == (2, 1)


def test_bad_videos_are_left_out_counted_and_listed(prepare_small, tmp_path, split_of_files):
    files = ["clip0.mp4", "clip1.mp4", "empty.mp4", "junk.mp4", "cut.mp4", "lost.mp4"]
    report = prepare_small(split_of_files(files), max_bad_share=0.7)
    reasons = {clip_id: reason.split(":")[0] for clip_id, _, reason in report.bad}
    assert reasons == {
        "cut": "not a video",
        "empty": "empty file",
        "junk": "not a video",
        "lost": "missing",
    }
    assert (report.clips, report.prepared, report.bad_share) == (6, 2, 4 / 6)
    assert FrameStore.open(tmp_path / "store").clip_ids == ("clip0", "clip1")
    written = json.loads((tmp_path / "store" / "report.json").read_text())
    assert written["bad"] == [bad._asdict() for bad in report.bad]
    assert written["clips"] == 6
    text = str(report)
    assert "6 clips asked for, 0 already done, 2 prepared" in text
    assert all(line in text for line in ("lost.mp4", "empty file: 0 bytes", "4 bad (66.7%)"))


def test_too_many_bad_videos_fail_and_mending_them_costs_nothing_twice(
    prepare_small, tmp_path, videos, split_of_files
):
    split = split_of_files(["clip0.mp4", "clip1.mp4", "clip2.mp4", "junk.mp4", "empty.mp4"])
    with pytest.raises(TooManyBadVideos, match=r"(?s)2 of 5 .*40.0%.*report\.json.*junk\.mp4"):
        prepare_small(split)
    report = json.loads((tmp_path / "store" / "report.json").read_text())
    assert [bad["clip_id"] for bad in report["bad"]] == ["empty", "junk"]
    assert not (tmp_path / "store" / "dataset_info.json").exists()

    with pytest.raises(TooManyBadVideos) as again:
        prepare_small(split)
    assert (again.value.report.already_done, again.value.report.prepared) == (3, 0)
    for name in ("junk", "empty"):
        shutil.copy(videos / "clip3.mp4", videos / f"{name}.mp4")
    mended = prepare_small(split)
    assert (mended.already_done, mended.prepared, mended.bad) == (3, 2, ())


def test_known_bad_videos_are_not_decoded_again(prepare_small, tmp_path, split_of_files):
    split = split_of_files(["clip0.mp4", "junk.mp4"])
    prepare_small(split, max_bad_share=0.5)
    noted = tmp_path / "store" / "bad_clips.jsonl"
    with noted.open("a") as file:
        file.write('[["cut", "cut.mp4", "half a li')
    marked = noted.read_text().replace("not a video", "as noted before")
    noted.write_text(marked)
    again = prepare_small(split, max_bad_share=0.5)
    assert again.bad[0].reason.startswith("as noted before")
    finer = prepare_small(split, tmp_path / "other", max_bad_share=0.5)
    assert finer.bad[0].reason.startswith("not a video")


def test_missing_videos_fail_before_anything_is_decoded(prepare_small, tmp_path, split_of_files):
    split = split_of_files(["clip0.mp4", "lost.mp4", "gone.mp4"])
    with pytest.raises(TooManyBadVideos, match="2 of 3 clips") as failure:
        prepare_small(split)
    assert failure.value.report.prepared == 0
    assert not list((tmp_path / "store").glob(".work/parts/*/*.npz"))


def test_not_even_one_good_clip_is_a_failure(prepare_small, split_of_files):
    with pytest.raises(TooManyBadVideos, match=r"1 of 1 clips \(100.0%\)"):
        prepare_small(split_of_files(["junk.mp4"]), max_bad_share=1.0)


def test_a_clip_with_too_few_frames_is_too_short(prepare_small, split_of_files):
    split = split_of_files(["clip0.mp4", "clip1.mp4", "clip2.mp4"])
    report = prepare_small(split, min_frames=3, max_bad_share=0.9)
    assert [(bad.clip_id, bad.reason) for bad in report.bad] == [
        ("clip0", "too short: 1 frames, at least 3 wanted"),
        ("clip2", "too short: 2 frames, at least 3 wanted"),
    ]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"framerate": 2}, "framerate 1, not 2"),
        ({"resolution": 48}, "resolution 32, not 48"),
        ({"encoding": "png"}, "encoding 'jpeg', not 'png'; jpeg_quality 95, not None"),
        ({"jpeg_quality": 80}, "jpeg_quality 95, not 80"),
        ({"min_frames": 2}, "min_frames 1, not 2"),
    ],
)
def test_a_store_with_other_settings_is_refused(
    video_folder, store_dir, whole_split, tmp_path, other, said
):
    store = shutil.copytree(store_dir, tmp_path / "store")
    with pytest.raises(ValueError, match=f"was made with {said}: use the same settings"):
        prepare(whole_split, video_folder, store, **({"resolution": 32} | other))


def test_unfinished_work_with_other_settings_is_refused(prepare_small, split_of_files):
    split = split_of_files(["clip0.mp4", "junk.mp4"])
    with pytest.raises(TooManyBadVideos):
        prepare_small(split)
    with pytest.raises(ValueError, match=r"\.work was made with framerate 1, not 2"):
        prepare_small(split, framerate=2)


def test_a_second_run_at_once_is_refused(prepare_small, tmp_path, whole_split):
    (tmp_path / "store").mkdir()
    with (tmp_path / "store" / ".lock").open("w") as lock:
        lock.write("process 12345 on here")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="process 12345 on here is preparing this frame store"):
            prepare_small(whole_split)
    # the same file, its process gone
    assert prepare_small(whole_split.restrict(["clip0"])).prepared == 1


def test_a_full_disk_is_noticed_before_the_record_files(
    prepare_small, tmp_path, whole_split, monkeypatch
):
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as patch:
        patch.setattr(finish_module.shutil, "disk_usage", lambda path: usage(1000))
        with pytest.raises(OSError, match=r"make room and run the same command again"):
            prepare_small(whole_split)
    assert prepare_small(whole_split).already_done == 10


def test_a_part_that_is_damaged_later_is_named(
    prepare_small, tmp_path, split_of_files, monkeypatch
):
    split = split_of_files(["clip0.mp4", "junk.mp4"])
    with pytest.raises(TooManyBadVideos):
        prepare_small(split)
    (part,) = (tmp_path / "store").glob(".work/parts/*/*.npz")
    content = bytearray(part.read_bytes())
    content[-600] ^= 1  # in the frames: the description at the front stays whole
    part.write_bytes(content)
    with pytest.raises(OSError, match=rf"{part.name}: damaged part file .*delete it"):
        prepare_small(split, max_bad_share=0.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"framerate": -1}, "framerate: expected a whole number, 0 or more, got -1"),
        ({"framerate": 1.5}, "framerate: expected a whole number"),
        ({"resolution": 0}, "resolution: expected a whole number, 1 or more"),
        ({"encoding": "gif"}, r"encoding: expected one of \('jpeg', 'png'\), got 'gif'"),
        ({"jpeg_quality": 101}, "jpeg_quality: expected a whole number, 1 to 95, got 101"),
        ({"min_frames": 0}, "min_frames: expected a whole number, 1 or more"),
        ({"workers": 0}, "workers of 1 or more"),
        ({"max_bad_share": 1.1}, "max_bad_share from 0 to 1"),
        ({"shard_bytes": 0}, "shard_bytes of 1 or more"),
    ],
)
def test_options_out_of_range_are_refused(prepare_small, tmp_path, whole_split, options, said):
    with pytest.raises(ValueError, match=said):
        prepare_small(whole_split, **options)
    assert not (tmp_path / "store").exists()


def test_clips_that_contradict_each_other_are_refused(prepare_small, whole_split):
    other = Split("toy", "test", (VideoClip("clip3", "clip4.mp4"),), (), [])
    with pytest.raises(ValueError, match=r"'clip3' means two things.*clip3\.mp4.*clip4\.mp4"):
        prepare_small([whole_split, other])


def test_times_that_make_no_sense_are_refused_by_clip(prepare_small):
    split = Split("toy", "train", (VideoClip("back", "clip0.mp4", 5.0, 2.0),), (), [])
    with pytest.raises(ValueError, match=r"clip 'back', file clip0\.mp4: .*start before end"):
        prepare_small(split)


def test_no_clip_at_all_is_refused(prepare_small):
    with pytest.raises(ValueError, match="no video clip to prepare: 1 splits"):
        prepare_small(Split("toy", "train", (), (), []))


def test_a_missing_folder_of_videos_is_named(tmp_path, whole_split):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prepare(whole_split, tmp_path / "nowhere", tmp_path / "store")


# The jobs below are programs and the work is exec: worker processes can import nothing from here.
CRASH = "import os; os._exit(3)"


def test_a_job_that_kills_its_process_is_found_and_the_others_are_done():
    jobs = ["pass"] * 4 + [CRASH] + ["import time; time.sleep(0.01)"] * 6
    results = list(run_jobs(jobs, exec, lambda job: "crashed", workers=2))
    assert sorted(job for job, _ in results) == sorted(jobs)
    assert all((result == "crashed") == (job == CRASH) for job, result in results)


def test_an_exception_in_a_worker_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(run_jobs(["pass", "1 / 0"], exec, lambda job: None, workers=1))


def test_workers_import_neither_tensorflow_nor_jax():
    program = (
        "import sys, vtr_jax.data.frame_store.prepare; "
        "print({'tensorflow', 'jax', 'tensorflow_datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_settings_survive_json():
    settings = StoreSettings(2, 48, "jpeg", 90, 3)
    assert StoreSettings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings
    assert settings.differences(settings) == []


def test_an_atomic_write_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomically(path, np.arange(3, dtype=np.uint8).tobytes())
    assert path.read_bytes() == b"\0\1\2"
