"""Time tables: frames that are shown, their rate, and durations that files do not keep."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vtr_jax.data.decode import frames_at
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.sampling import plan_frames
from vtr_jax.data.time_table import read_time_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tables")


def constant(count: int, fps: float) -> list[float]:
    return [index / fps for index in range(count)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts", "a.flv"])
@pytest.mark.parametrize("fps", [3, 25, 60])
def test_a_constant_rate_is_kept(folder, name, fps, write_at):
    path = write_at(folder / f"{fps}{name}", constant(4 * fps, fps), rate=fps)
    table = read_time_table(path)
    assert table.frame_count == 4 * fps
    assert table.constant_fps == pytest.approx(fps, rel=1e-3)
    assert not table.ends_early


def test_jitter_below_half_a_frame_leaves_the_rate_constant(folder, write_at):
    rng = np.random.default_rng(0)
    times = np.array(constant(150, 30)) + rng.uniform(0, 0.3 / 30, 150)
    table = read_time_table(write_at(folder / "jitter.mp4", times))
    assert table.constant_fps == pytest.approx(30, rel=1e-2)


@pytest.mark.parametrize("name, codec", [("v.webm", "libvpx"), ("v.mkv", "libx264")])
def test_the_tick_of_a_clock_is_not_a_frame_rate(folder, name, codec, write_at):
    """Browsers record without a frame rate; FFmpeg then states the clock's tick: 1000."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.02, 0.05, 200))
    path = write_at(folder / name, times, codec, tick=Fraction(1, 1000), rate=1000)
    plan = plan_frames(path, Sampling("opencv"))
    assert plan.fps == pytest.approx(199 / (times[-1] - times[0]), rel=0.01)
    assert abs(len(plan.indices) - (times[-1] - times[0])) <= 1.5


def hide_first_frames(path: Path, hidden: float) -> Path:
    """Move the start of a file's edit list; MP4's own way of trimming without encoding again."""
    content = bytearray(path.read_bytes())
    at = content.find(b"elst") + 12
    # The length counts in the movie's time scale (1000 before FFmpeg 9), the start in the stream's.
    movie_scale, timescale = (
        int.from_bytes(content[place : place + 4], "big")
        for place in (content.find(b"mvhd") + 16, content.find(b"mdhd") + 16)
    )
    length, media_time = (
        int.from_bytes(content[place : place + 4], "big") for place in (at, at + 4)
    )
    content[at : at + 4] = (length - round(hidden * movie_scale)).to_bytes(4, "big")
    content[at + 4 : at + 8] = (media_time + round(hidden * timescale)).to_bytes(4, "big")
    trimmed = path.with_stem(f"{path.stem}-trimmed")
    trimmed.write_bytes(content)
    return trimmed


def test_frames_that_an_edit_list_hides_are_not_counted(folder, write_at, gray):
    options = {"x264-params": "keyint=250:bframes=2:scenecut=0"}
    whole = write_at(folder / "whole.mp4", constant(100, 25), rate=25, options=options)
    path = hide_first_frames(whole, hidden=1.2)
    table = read_time_table(path)
    assert table.frame_count == 70
    assert (table.ends_early, table.lacking_frames) == (False, 0)
    every = dict(frames_at(path, range(200)))
    assert sorted(every) == list(range(70))
    assert every[0].mean() == pytest.approx(gray(30).mean(), abs=2)
    [(_, alone)] = frames_at(path, [60], table=table)
    np.testing.assert_array_equal(alone, every[60])


def write_with_sound(path: Path, image_seconds: float, sound_seconds: float, gray) -> Path:
    with av.open(str(path), "w") as file:
        image = file.add_stream("mpeg4", rate=10)
        image.width, image.height, image.pix_fmt = 64, 48, "yuv420p"
        sound = file.add_stream("aac", rate=16_000)
        for index in range(round(image_seconds * 10)):
            file.mux(image.encode(av.VideoFrame.from_ndarray(gray(index), "rgb24")))
        for place in range(round(sound_seconds * 16_000) // 1024):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 16_000, place * 1024
            silence.time_base = Fraction(1, 16_000)
            file.mux(sound.encode(silence))
        file.mux(image.encode(None))
        file.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("name", ["song.mp4", "song.mkv", "song.ts", "song.avi"])
def test_sound_that_lasts_longer_is_no_lack_of_frames(folder, name, gray):
    plan = plan_frames(write_with_sound(folder / name, 3, 9, gray), Sampling("opencv"))
    assert len(plan.indices) == plan.chosen
    assert 3 <= plan.chosen <= 4  # AVI: an empty packet comes first
    assert not plan.ends_early and not plan.warnings


@pytest.mark.parametrize("of_file", [False, True])
def test_a_duration_that_nothing_in_the_file_reaches_is_reported(
    folder, monkeypatch, gray, of_file
):
    from vtr_jax.data import time_table

    whole = write_with_sound(folder / "both.mkv", 9, 9, gray).read_bytes()
    path = folder / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    if of_file:
        monkeypatch.setattr(time_table, "_stated_end", lambda container, stream: (9.0, True))
    plan = plan_frames(path, Sampling("opencv"))
    assert plan.ends_early
    assert plan.stated_seconds == pytest.approx(9, abs=0.2)
    assert plan.seconds < 6
    assert plan.chosen == pytest.approx(9, abs=1)
    assert len(plan.indices) < 7
    assert f"{plan.seconds:.1f} of the" in plan.warnings[0]


def test_a_cut_off_mp4_is_reported(faststart):
    plan = plan_frames(faststart / "half.mp4", Sampling("opencv"))
    assert plan.ends_early and plan.chosen == 10
    assert not plan_frames(faststart / "whole.mp4", Sampling("opencv")).warnings


def test_packets_of_nothing_count_as_time(folder, write_at):
    """AVI stores a dropped frame as an empty packet; the frame before stays on screen."""
    times = np.delete(np.arange(100) / 20, range(30, 50))
    options = {"bf": "0", "g": "10"}
    path = write_at(folder / "dropped.avi", times, "mpeg4", Fraction(1, 20), 20, options)
    table = read_time_table(path)
    assert table.frame_count == 80
    assert table.end == pytest.approx(5, abs=0.06)
    assert not table.ends_early
    assert table.shown_at(2.2) == 29 and table.shown_at(2.51) == 30
    plan = plan_frames(path, Sampling())
    assert plan.times == pytest.approx([0, 1, 2, 3, 4], abs=0.8)


def test_recordings_in_one_file_are_read_in_file_order(folder, write_at, gray):
    """Two streams joined byte by byte: their clocks start twice."""
    options = {"x264-params": "keyint=10:bframes=0"}
    one = write_at(folder / "one.ts", constant(50, 10), rate=10, options=options)
    path = folder / "joined.ts"
    path.write_bytes(one.read_bytes() * 2)
    plan = plan_frames(path, Sampling())
    assert len(plan.indices) == 10
    images = dict(frames_at(path, plan.indices, table=plan.table))
    for index in plan.indices:
        assert images[index].mean() == pytest.approx(gray(index % 50).mean(), abs=2)


def test_the_table_of_a_changed_file_is_read_again(folder, write_at):
    path = write_at(folder / "changed.mp4", constant(20, 10), rate=10)
    assert read_time_table(path) is read_time_table(path)
    write_at(path, constant(30, 10), rate=10)
    assert read_time_table(path).frame_count == 30


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    shorter = path.with_stem(f"{path.stem}-cut")
    shorter.write_bytes(content[: int(share * len(content))])
    return shorter


@pytest.mark.parametrize("delay", [0, 4])
def test_a_file_that_is_cut_off_is_reported_also_if_its_image_is_delayed(folder, write_at, delay):
    times = [delay + time for time in constant(200, 10)]
    whole = write_at(
        folder / f"delayed{delay}.mp4",
        times,
        rate=10,
        container_options={"movflags": "faststart", "use_editlist": "1"},
    )
    assert not read_time_table(whole).ends_early
    table = read_time_table(cut(whole, 0.85))
    assert table.frame_count < 200 and table.ends_early
    assert table.stated_end == pytest.approx(20, abs=0.2)


@pytest.mark.parametrize("offset", [0, 100])
def test_the_start_of_a_transport_stream_does_not_shorten_it(folder, write_at, offset):
    times = [offset + time for time in constant(100, 10)]
    table = read_time_table(write_at(folder / f"offset{offset}.ts", times, rate=10))
    assert table.stated_end == pytest.approx(10, abs=0.2) and not table.ends_early


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_threads_lose_no_frame_of_a_file_that_is_cut_off(folder, write_at, share):
    whole = write_at(folder / f"threads{share}.avi", constant(120, 30), "mpeg4", Fraction(1, 30))
    path = cut(whole, share)
    wanted = list(range(read_time_table(path).frame_count))
    read = {
        threads: [(index, image.mean()) for index, image in frames_at(path, wanted, threads)]
        for threads in ("NONE", "AUTO", "FRAME", "SLICE")
    }
    assert read["NONE"] and all(frames == read["NONE"] for frames in read.values())
