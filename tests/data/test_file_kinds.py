"""What is called video.mp4 and is no file: the true reason, and the other clips are stored."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from vtr_jax.data.check_data import check_data
from vtr_jax.data.frame_store import FrameStore, TooManyBadVideos
from vtr_jax.data.frame_store import jobs as jobs_module
from vtr_jax.data.frame_store import part as part_module
from vtr_jax.data.frame_store.jobs import ClipJob
from vtr_jax.data.frame_store.part import make_part
from vtr_jax.data.frame_store.report import BadClip
from vtr_jax.data.frame_store.settings import StoreSettings

REASONS = {
    "broken": "broken link",
    "device": "not a file",
    "empty": "empty file",
    "folder": "missing",
    "loop": "broken link",
    "pipe": "named pipe",
    "socket": "not a file",
}


@pytest.fixture
def odd_videos(videos, monkeypatch):
    """Adds a file of each kind to the videos; a test that opens the pipe is ended."""
    os.mkfifo(videos / "pipe.mp4")
    (videos / "folder.mp4").mkdir()
    (videos / "broken.mp4").symlink_to("nowhere.mp4")
    (videos / "loop.mp4").symlink_to("loop.mp4")
    (videos / "device.mp4").symlink_to("/dev/zero")
    monkeypatch.chdir(videos)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.mp4")
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits for a named pipe"))
    signal.alarm(60)
    yield videos
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_every_kind_is_named_and_the_others_are_stored(
    odd_videos, prepare_small, tmp_path, split_of_files
):
    split = split_of_files(["clip0.mp4", *(f"{name}.mp4" for name in REASONS)])
    for _ in range(2):  # the second run knows what the first one found
        report = prepare_small(split, max_bad_share=0.99)
        assert {bad.clip_id: bad.reason.split(":")[0] for bad in report.bad} == REASONS
    assert FrameStore.open(tmp_path / "store").clip_ids == ("clip0",)


def test_check_data_gives_the_same_reasons(odd_videos, tmp_path):
    table = tmp_path / "own.csv"
    table.write_text("video,caption\nclip0.mp4,x\n" + "".join(f"{n}.mp4,x\n" for n in REASONS))
    videos = check_data("table", table, videos_dir=odd_videos, workers=1).videos
    assert set(videos.missing) == {"folder"}
    assert videos.unreadable == {
        f"{name}.mp4": reason for name, reason in REASONS.items() if name != "folder"
    }


def test_a_pipe_among_the_images_of_a_folder_is_not_opened(prepare_small, videos, split_of_files):
    (videos / "frames").mkdir()
    os.mkfifo(videos / "frames" / "img_00001.jpg")
    with pytest.raises(TooManyBadVideos, match="named pipe"):
        prepare_small(split_of_files(["frames"]), frame_rule="eercf_folder")


def test_a_regular_file_is_preferred_to_a_pipe(prepare_small, videos, split_of_files):
    (videos / "deep").mkdir()
    (videos / "clip0.mp4").rename(videos / "deep" / "clip0.mp4")
    os.mkfifo(videos / "clip0.mp4")
    assert prepare_small(split_of_files(["clip0.mp4"])).bad == ()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory"), "missing"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
    ],
)
def test_a_video_that_fails_while_it_is_read(monkeypatch, videos, tmp_path, error, reason):
    path = videos / "clip0.mp4"

    def fails(*arguments):
        if reason == "missing":
            path.unlink(missing_ok=True)
        raise error

    monkeypatch.setattr(jobs_module, "file_sha256", fails)
    found = make_part(tmp_path / "part.npz", ClipJob("c", "clip0.mp4", path), StoreSettings())
    assert isinstance(found, BadClip) and found.reason.startswith(reason)
    assert not list(tmp_path.glob("part*"))


def test_a_full_disk_is_no_fault_of_the_video(monkeypatch, videos, tmp_path):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(part_module, "_write_array", full)
    job = ClipJob("c", "clip0.mp4", videos / "clip0.mp4")
    with pytest.raises(OSError, match="No space left"):
        make_part(tmp_path / "part.npz", job, StoreSettings())
    assert not list(tmp_path.glob("part*"))
