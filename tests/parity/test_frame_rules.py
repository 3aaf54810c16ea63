"""The frame rules of decord's loaders, of X-Pool and of frame folders, against the originals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vtr_jax.data.decode import StatedLength, counted_length, stated_length
from vtr_jax.data.frame_choice import UNIFORM, slice_positions
from vtr_jax.data.frame_rules import (
    Sampling,
    cap4video_seconds,
    cap4video_segments,
    choose_frames,
    eercf_folder_frames,
    emcl_folder_frames,
    segment_middles,
    stride_frames,
)
from vtr_jax.data.sampling import sample_pictures
from vtr_jax.parity.cases import system_cases


@pytest.fixture(scope="module")
def records(golden_dir):
    """What was recorded of every video, by name."""
    paths = system_cases(golden_dir, "frames")
    read = {path: json.loads(path.read_text()) for path in paths}
    found = {str(path): record for path, record in read.items() if "decord" in record}
    if not found:
        pytest.skip(f"no frames case of decord below {golden_dir} (set VTR_GOLDEN_DIR)")
    return found


@pytest.fixture(scope="module")
def folder_cases(golden_dir):
    paths = [p for p in system_cases(golden_dir, "frames") if p.stem == "frame_folder_rules"]
    if not paths:
        pytest.skip(f"no frame_folder_rules below {golden_dir} (set VTR_GOLDEN_DIR)")
    read = [json.loads(path.read_text()) for path in paths]
    rules = ("emcl_inference", "cap4video", "eercf_folder")
    return {rule: [case for record in read for case in record[rule]] for rule in rules}


def video_of(record, golden_dir):
    video = golden_dir.parent / "videos" / record["video"]
    if not video.is_file():
        pytest.skip(f"no {video}")
    return video


def test_decord_counts_and_rates(records, golden_dir):
    for record in records.values():
        length = counted_length(video_of(record, golden_dir))
        assert length.frame_count == record["decord"]["len"]
        assert length.fps == pytest.approx(record["decord"]["avg_fps"], rel=1e-12)


def test_decord_frames(records):
    for name, record in records.items():
        decord = record["decord"]
        for case in decord["cases"]:
            times = (case["start"], case["end"])
            length = (decord["len"], decord["avg_fps"])
            if "error" in case:
                with pytest.raises(ValueError, match="at most twice"):
                    stride_frames(*length, case["framerate"], *times)
                continue
            ours = np.array(stride_frames(*length, case["framerate"], *times), int)
            assert ours.tolist() == case["positions"], (name, case)
            for selection in (key for key in case if key.startswith("sel_max")):
                max_frames = int(selection.removeprefix("sel_max"))
                kept = ours[slice_positions(len(ours), max_frames, UNIFORM)]
                assert kept.tolist() == case[selection], (name, case)


def test_xpool_frames(records):
    for record in records.values():
        for num_frames, case in record["xpool_uniform"].items():
            expected = case["picked"] + case["picked"][-1:] * case["repeat_last"]
            ours = segment_middles(record["cv_frame_count"], record["cv_fps"], int(num_frames))
            assert ours == expected


@pytest.mark.parametrize("rule", ["decord", "xpool"])
def test_the_pictures_of_a_rule_are_those_of_its_indices(records, golden_dir, rule):
    for record in records.values():
        video = video_of(record, golden_dir)
        sampled = sample_pictures(video, Sampling(rule, num_frames=20))
        every = dict(sample_pictures(video, Sampling("opencv", framerate=0)).pictures)
        length = counted_length(video) if rule == "decord" else stated_length(video)
        pictures = list(sampled.pictures)
        wanted = choose_frames(Sampling(rule, num_frames=20), length)
        assert [index for index, _ in pictures] == wanted
        for index, picture in pictures:
            np.testing.assert_array_equal(picture, every[index])


def test_emcl_folders(folder_cases):
    for case in folder_cases["emcl_inference"]:
        stored = np.array(emcl_folder_frames(case["n_files"], case["framerate"]), int)
        kept = stored[slice_positions(len(stored), case["max_frames"], UNIFORM)]
        assert (kept + 1).tolist() == case["files"], case


def test_cap4video_folders(folder_cases):
    for case in folder_cases["cap4video"]:
        times = (case["start"], case["end"])
        if case["strategy"] == 1:
            ours = cap4video_seconds(case["n_files"], *times)
        else:
            ours = cap4video_segments(case["n_files"], case["num_segments"], *times)
        assert [index + 1 for index in ours] == case["files"], case


def test_eercf_folders(folder_cases):
    for case in folder_cases["eercf_folder"]:
        ours = eercf_folder_frames(case["n_files"])
        assert [index + 1 for index in ours] == case["files"], case


def test_a_folder_without_times_refuses_them():
    length = StatedLength(30, 100)
    for rule in ("emcl_folder", "eercf_folder"):
        with pytest.raises(ValueError, match="knows no frame rate"):
            choose_frames(Sampling(rule), length, 1, 2)
