"""Frames of files with a variable frame rate, of slow files, and of fractions of seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vtr_jax.data.frame_choice import cut_to_whole_seconds, whole_second_frames
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.sampling import plan_frames
from vtr_jax.data.video import UnreadableVideo, read_video, sample_frames

# Frames that OpenCV 4.10 and 5.0 both deliver to the originals' loop over whole seconds.
OPENCV = {
    "vfr_phone/phone.mp4": [
        *(0, 29, 59, 88, 116, 145, 174, 203, 233, 261, 290, 318, 348, 378, 407, 437, 465, 494, 523),
        *(551, 580, 609, 639, 670, 699, 727, 756, 785, 812, 842, 871),
    ],
    "vfr_desks/video_desks.3gp": [0, 14, 28, 42, 56, 69, 70],
    "vfr_uneven_gif/uneven.gif": [0, 3, 6, 9, 12, 15, 18, 21],
    "vfr_one_dropped_frame/onedrop.mp4": [
        *range(0, 638, 29),
        *range(638, 1199, 29),
    ],
    "vfr_defaultduration/recorder.webm": [
        *(0, 24, 48, 72, 96, 147, 171, 195, 219, 243, 288, 312, 336, 360, 410, 434, 458, 482, 530),
        *(554, 578, 602, 626, 677, 701, 725, 749, 795, 819, 843, 867, 874),
    ],
    "avi_gap/avi_gap.avi": [0, 23, 44],
    "xvid_avi/xvid.avi": list(range(0, 598, 25)),
}
# Seconds of files that OpenCV reads in part, or not at all.
BY_TIME = {
    "vfr_screen/screen.mp4": 29,
    "vfr_recorder/nodd_recorder.webm": 30,
    "webm_1000fps/mediarecorder.webm": 10.3,
    "hybrid_mp4/hybrid.mp4": 30,
}


def case_file(shared_dir: Path, name: str) -> Path:
    path = shared_dir / "cases" / "videos" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.mark.parametrize("name", OPENCV)
def test_frames_are_opencvs(shared_dir, name):
    assert list(plan_frames(case_file(shared_dir, name), Sampling()).indices) == OPENCV[name]


@pytest.mark.parametrize("name", BY_TIME)
def test_one_frame_per_second_up_to_the_end(shared_dir, name):
    plan = plan_frames(case_file(shared_dir, name), Sampling())
    assert abs(len(plan.indices) - BY_TIME[name]) <= 1.5
    assert max(abs(time - second) for second, time in enumerate(plan.times)) < 1.01


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("variable")


def recording(kind: str) -> np.ndarray:
    """Times of about 20 s of a recording."""
    rng = np.random.default_rng(0)
    if kind == "screen":  # many frames first, then one at a time
        return np.concatenate([np.arange(0, 2, 1 / 30), np.arange(2, 20, 1.5)])
    if kind == "phone":  # the exposure decides, frame by frame
        return np.cumsum(rng.uniform(1 / 40, 1 / 24, 600))
    if kind == "dropped":
        return np.delete(np.arange(600) / 30, rng.choice(np.arange(1, 600), 60, replace=False))
    return np.concatenate([np.arange(300) / 30, 10 + np.arange(150) / 15])  # two rates


@pytest.mark.parametrize("keys", [30, 1000])
@pytest.mark.parametrize("kind", ["screen", "phone", "dropped", "two rates"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_frames_come_from_the_whole_recording(folder, kind, name, keys, write_at, gray):
    times = recording(kind)
    path = folder / f"{kind}{keys}{name}"
    write_at(path, times, options={"x264-params": f"keyint={keys}:scenecut=0"})
    plan = plan_frames(path, Sampling())
    length = times[-1] - times[0]
    assert length - 2 <= len(plan.indices) <= length * 1.2 + 2
    assert plan.times[0] == 0 and plan.times[-1] >= length - 2
    assert max(np.diff(plan.times)) <= 3
    np.testing.assert_allclose(plan.times, (times - times[0])[list(plan.indices)], atol=0.002)
    sampled = sample_frames(path, resolution=16)
    assert sampled.frame_indices.tolist() == list(plan.indices)
    for index, frame in zip(plan.indices, sampled.frames, strict=True):
        assert frame.mean() == pytest.approx(gray(index).mean(), abs=2.5)


@pytest.mark.parametrize("rule", ["opencv", "decord", "xpool"])
def test_a_stretch_of_a_variable_rate_is_found_by_time(folder, rule, write_at):
    times = recording("screen")
    path = write_at(folder / f"{rule}.mp4", times)
    plan = plan_frames(path, Sampling(rule, num_frames=4), start=10, end=15)
    assert 8.5 <= plan.times[0] <= 10.01 and plan.times[-1] <= 16.01
    if rule != "decord":  # it counts frames
        assert plan.times[-1] >= 13.5
    same_frame = plan_frames(path, Sampling(rule, num_frames=4), start=10.1, end=10.2)
    assert set(same_frame.indices) == {plan.indices[0]}
    with pytest.raises(UnreadableVideo) as raised:
        plan_frames(path, Sampling(rule), start=30, end=31)
    assert raised.value.reason == "start beyond the end"


@pytest.mark.parametrize("framerate", [1, 2, 7])
def test_a_constant_rate_is_read_as_the_originals_do(folder, framerate, write_at):
    path = write_at(folder / f"constant{framerate}.mp4", np.arange(130) / 25, rate=25)
    for stretch in ((None, None), (0, 1), (2, 4), (4, 90)):
        plan = plan_frames(path, Sampling("opencv", framerate), *stretch)
        assert list(plan.indices) == whole_second_frames(130, 25, framerate, *stretch)


# Below one frame per second


@pytest.mark.parametrize("spacing", [1.25, 2, 10])
@pytest.mark.parametrize("rule", ["opencv", "decord"])
def test_every_frame_of_a_slide_show_is_read(folder, spacing, rule, write_at, gray):
    path = write_at(folder / f"{rule}{spacing}.mp4", np.arange(6) * spacing, rate=1)
    assert plan_frames(path, Sampling(rule)).indices == tuple(range(6))
    assert plan_frames(path, Sampling(rule), 2 * spacing, 3 * spacing).indices[0] == 2
    frames, mask = read_video(path, 8, resolution=16, frame_rule=rule)
    assert mask.tolist() == [1] * 6 + [0] * 2
    means = [frame.mean() for frame in frames[:6]]
    assert means == pytest.approx([gray(index).mean() for index in range(6)], abs=2)


# Fractions of seconds


@pytest.mark.parametrize("framerate", [0, 1, 3])
@pytest.mark.parametrize("kind", ["constant", "phone", "screen"])
def test_fractions_are_kept(folder, kind, framerate, write_at):
    times = np.arange(500) / 25 if kind == "constant" else recording(kind)
    path = folder / f"{kind}.mp4"
    if not path.exists():
        write_at(path, times)
    shown = times - times[0]
    for start, end in np.sort(np.random.default_rng(1).uniform(0, 19.5, (40, 2))):
        plan = plan_frames(path, Sampling("opencv", framerate), start, end)
        inside = np.flatnonzero((shown >= start - 1e-3) & (shown < end + 1e-3))
        assert plan.indices
        if len(inside):
            assert set(plan.indices) <= set(inside.tolist())
            assert plan.indices[0] - inside[0] <= 1  # no later than the first frame inside
        else:
            assert len(plan.indices) == 1 and shown[plan.indices[0]] <= start + 1e-3
        if not framerate:
            assert len(plan.indices) >= max(len(inside) - 2, 1)


def test_touching_moments_share_no_frame(folder, write_at):
    path = write_at(folder / "moments.mp4", np.arange(250) / 25, rate=25)
    one, other = (
        set(plan_frames(path, Sampling("opencv", 0), *times).indices)
        for times in ((4.1, 4.5), (4.5, 4.9))
    )
    assert one and other and not one & other


@pytest.mark.parametrize(
    "times, whole", [((4.1, 4.5), (4, 5)), ((1.2, 3.9), (1, 3)), ((0.0, 31.0), (0, 31))]
)
def test_the_originals_cut_times_down_to_whole_seconds(times, whole):
    assert cut_to_whole_seconds(*times) == whole
