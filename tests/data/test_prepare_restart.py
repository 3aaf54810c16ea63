"""Preparing a frame store interrupted: by kills, a full disk, a second run, damaged files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
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
from vtr_jax.data.frame_store.part import PartFolder
from vtr_jax.data.split import Split, VideoClip

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


def test_a_killed_run_goes_on_and_gives_the_store_of_an_undisturbed_one(
    contents, tmp_path, video_folder
):
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
    contents, prepare_small, tmp_path, store_dir, whole_split, monkeypatch
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
        if moves < 8:  # dataset_info.json comes last
            with pytest.raises(FileNotFoundError):
                FrameStore.open(folder)
        finish_module.install_ready_store(folder)
        assert contents(folder) == contents(store_dir)
        if len(done) < moves:
            break
    assert len(done) == 9  # three shards, five other files, then the folder of work


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


def test_a_damaged_part_costs_its_clip_alone_and_is_decoded_again(
    prepare_small, tmp_path, split_of_files
):
    split = split_of_files(["clip0.mp4", "clip1.mp4", "junk.mp4"])
    with pytest.raises(TooManyBadVideos):
        prepare_small(split)
    part = PartFolder(tmp_path / "store" / ".work" / "parts", StoreSettings()).path_of("clip0")
    content = bytearray(part.read_bytes())
    content[400] ^= 1  # in the first frame; the description comes last
    part.write_bytes(content)
    report = prepare_small(split, max_bad_share=0.7)
    reasons = {bad.clip_id: bad.reason.split(":")[0] for bad in report.bad}
    assert reasons == {"clip0": "lost", "junk": "not a video"}
    assert FrameStore.open(tmp_path / "store").clip_ids == ("clip1",)
    again = prepare_small(split, max_bad_share=0.7)
    assert (again.prepared, [bad.clip_id for bad in again.bad]) == (1, ["junk"])


def test_parts_of_the_former_version_are_taken_over(
    prepare_small, tmp_path, split_of_files, contents
):
    """They had all frames in one array."""
    split = split_of_files(["clip0.mp4", "clip1.mp4", "junk.mp4"])
    with pytest.raises(TooManyBadVideos):
        prepare_small(split)
    for path in (tmp_path / "store").glob(".work/parts/*/*.npz"):
        with np.load(path) as part:
            frames = np.concatenate([part[f"frame_{n}"] for n in range(len(part["sizes"]))])
            kept = {name: part[name] for name in ("about", "sizes", "frame_indices")}
        np.savez(path, frames=frames, **kept)
    assert prepare_small(split, max_bad_share=0.5).already_done == 2
    prepare_small(split, tmp_path / "other", max_bad_share=0.5)
    assert contents(tmp_path / "store") == contents(tmp_path / "other")


def no_room(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fails", ["write_shards", "write_atomically"])
def test_a_disk_that_fills_up_leaves_the_store_readable(
    prepare_small, tmp_path, whole_split, store_dir, contents, monkeypatch, fails
):
    few = whole_split.restrict(["clip1", "clip2"])
    prepare_small(few)
    before = FrameStore.open(tmp_path / "store").clip_ids
    with monkeypatch.context() as patch:
        patch.setattr(finish_module, fails, no_room)
        with pytest.raises(OSError, match=r"the disk is full .*make room and run the same"):
            prepare_small(whole_split)
    opened = FrameStore.open(tmp_path / "store")
    assert opened.clip_ids == before
    assert len(opened.read(1)) == 2
    prepare_small(whole_split)
    assert contents(tmp_path / "store") == contents(store_dir)


@pytest.mark.parametrize("verify", [False, True])
def test_what_a_damaged_record_file_lost_is_decoded_again(
    prepare_small, tmp_path, whole_split, store_dir, contents, verify
):
    prepare_small(whole_split)
    shard = sorted((tmp_path / "store").glob("*.tfrecord-*"))[1]
    content = bytearray(shard.read_bytes())
    if verify:  # of the same size: only reading finds it
        content[300] ^= 1
        shard.write_bytes(content)
        assert prepare_small(whole_split).prepared == 0
    else:
        shard.write_bytes(content[:-30])
    assert prepare_small(whole_split, verify=verify).prepared == 1
    assert contents(tmp_path / "store") == contents(store_dir)


def test_verify_drops_damaged_clips_that_are_not_asked_for(
    prepare_small, tmp_path, whole_split, caplog
):
    prepare_small(whole_split)
    shard = sorted((tmp_path / "store").glob("*.tfrecord-*"))[0]
    content = bytearray(shard.read_bytes())
    content[300] ^= 1
    shard.write_bytes(content)
    prepare_small(whole_split.restrict(["clip9"]), verify=True)
    assert "dropped damaged clips of other splits: ['clip0']" in caplog.text
    assert len(FrameStore.open(tmp_path / "store")) == 9
