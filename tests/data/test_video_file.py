"""Files that cannot be read, and the true reason; streams with damage inside."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtr_jax.data import decode
from vtr_jax.data.decode import frames_at
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.sampling import plan_frames
from vtr_jax.data.video import UnreadableVideo, read_video

PAGES = {
    "html": b"<!DOCTYPE html>\n<html><body>404</body></html>",
    "upper": b"\n  <HTML><HEAD><TITLE>Sign in</TITLE></HEAD></HTML>",
    "comment": b"<!-- gateway -->\n<html lang='en'></html>",
    "xml": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
}


def reason_of(path: Path) -> str:
    with pytest.raises(UnreadableVideo) as raised:
        plan_frames(path, Sampling())
    assert str(path) in str(raised.value)
    with pytest.raises(UnreadableVideo) as again:
        read_video(path)
    assert again.value.reason == raised.value.reason
    return raised.value.reason


@pytest.mark.parametrize("kind", PAGES)
def test_web_pages(tmp_path, kind):
    (tmp_path / "x.mp4").write_bytes(PAGES[kind])
    assert reason_of(tmp_path / "x.mp4") == "web page"


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_an_mp4_without_its_index_was_cut_off(tmp_path, write_at, share):
    whole = write_at(tmp_path / "whole.mp4", [index / 10 for index in range(40)], rate=10)
    content = whole.read_bytes()
    end = content.rindex(b"moov") - 4  # at the end, as writers leave it
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: int(share * end)])
    assert reason_of(path) == "cut off"


@pytest.mark.parametrize(
    "content", [b'{"error": "not found"}\n', "caf\u00e9\n".encode() * 300, b"a,b\r\n1,2\r\n"]
)
def test_text_is_named(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(UnreadableVideo, match="text"):
        read_video(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "AVIF"])
def test_still_images(tmp_path, kind):
    path = tmp_path / "x.mp4"
    try:
        Image.new("RGB", (64, 48), "red").save(path, format=kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {kind}")
    assert reason_of(path) == "still image"


def test_an_animated_image_is_a_video(tmp_path):
    images = [Image.new("RGB", (64, 48), (shade, 0, 0)) for shade in range(0, 250, 10)]
    images[0].save(tmp_path / "x.gif", save_all=True, append_images=images[1:], duration=200)
    assert len(plan_frames(tmp_path / "x.gif", Sampling()).indices) == 5


def test_special_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert reason_of(tmp_path / "pipe.mp4") == "named pipe"
    (tmp_path / "link.mp4").symlink_to("gone.mp4")
    assert reason_of(tmp_path / "link.mp4") == "broken link"
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    assert reason_of(tmp_path / "loop.mp4") == "broken link"
    (tmp_path / "folder.mp4").mkdir()
    assert reason_of(tmp_path / "folder.mp4") == "not a file"
    (tmp_path / "pointer.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    assert reason_of(tmp_path / "pointer.mp4") == "Git LFS pointer"
    assert reason_of(tmp_path / "absent.mp4") == "missing"
    assert reason_of(tmp_path / "absent" / "x.mp4") == "missing"


def test_a_link_to_a_video_is_read(tmp_path, write_at):
    write_at(tmp_path / "x.mp4", np.arange(30) / 10)
    (tmp_path / "link.mp4").symlink_to("x.mp4")
    assert len(plan_frames(tmp_path / "link.mp4", Sampling()).indices) == 3


def test_encrypted_files(tmp_path, write_at):
    encryption = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    path = write_at(tmp_path / "x.mp4", np.arange(30) / 10, container_options=encryption)
    assert reason_of(path) == "encrypted"


# Damage inside, and places from which decoding must not start


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, write_at) -> Path:
    path = tmp_path_factory.mktemp("damaged") / "x.mp4"
    options = {"x264-params": "keyint=60:bframes=2:scenecut=0:slices=2"}
    content = bytearray(write_at(path, np.arange(200) / 25, rate=25, options=options).read_bytes())
    start, end = content.find(b"mdat") + 4, content.find(b"moov") - 4
    middle = start + (end - start) * 6 // 10
    content[middle : middle + 40] = np.random.default_rng(0).bytes(40)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("step", [1, 9, 25])
def test_frames_of_a_damaged_stream_do_not_depend_on_threads(damaged, step):
    wanted = range(0, 200, step)
    alone = list(frames_at(damaged, wanted, "NONE"))
    for thread_type in ("AUTO", "FRAME", "SLICE"):
        found = list(frames_at(damaged, wanted, thread_type))
        assert [index for index, _ in found] == [index for index, _ in alone]
        for (_, image), (_, expected) in zip(found, alone, strict=True):
            np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.ts"])
def test_decoding_does_not_start_within_an_intra_refresh(tmp_path, write_at, monkeypatch, name):
    options = {"x264-params": "keyint=40:intra-refresh=1:bframes=2:scenecut=0"}
    path = write_at(tmp_path / name, np.arange(400) / 25, rate=25, options=options)
    wanted = [301, 340, 399]
    found = list(frames_at(path, wanted))
    monkeypatch.setattr(decode, "SEEK_FROM", 10_000)
    monkeypatch.setattr(decode, "SPARSE", 10_000)
    reference = list(frames_at(path, wanted))
    assert [index for index, _ in found] == wanted
    for (_, image), (_, expected) in zip(found, reference, strict=True):
        np.testing.assert_array_equal(image, expected)
