"""Which frames are taken, and their pixels, against what the original loader gave."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.data.decode import frames_at, stated_length
from vtr_jax.data.frame_choice import slice_positions, whole_second_frames
from vtr_jax.data.video import (
    UnreadableVideo,
    read_video,
    resize_and_crop,
    sample_frames,
)
from vtr_jax.models.retriever import normalised_frames
from vtr_jax.parity.cases import system_cases

FOLDER = Path(os.environ.get("VTR_GOLDEN_DIR", Path(__file__).parent / "golden"))
REAL_CLIP = "video7500"  # comes from a public data set, so no copy lies in this repository


def as_the_tower_reads(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 [N,R,R,3] normalised by the program's own function, float32."""
    mask = np.ones((1, len(frames)), np.int32)
    return np.asarray(normalised_frames(jnp.asarray(frames[None]), mask)[0])


CASES = system_cases(FOLDER, "frames")


def is_of_a_video(path: Path) -> bool:
    record = json.loads(path.read_text())
    return "cases" in record and "video" in record


VIDEOS = [path for path in CASES if is_of_a_video(path)]
MISSING = [] if any(path.stem == REAL_CLIP for path in VIDEOS) else [FOLDER / f"{REAL_CLIP}.json"]


@pytest.fixture(params=[*VIDEOS, *MISSING], ids=lambda path: path.stem)
def recorded(request, golden_dir) -> tuple[dict, Path]:
    """What was recorded of one video, and the video file."""
    path = request.param
    if not path.is_file():
        pytest.skip(f"no {path.name} below {golden_dir} (set VTR_GOLDEN_DIR)")
    record = json.loads(path.read_text())
    video = golden_dir.parent / "videos" / record["video"]
    if not video.is_file():
        pytest.skip(f"no {video} for {path}")
    return record, video


@pytest.fixture
def arrays(recorded, request) -> dict[str, np.ndarray]:
    path = request.node.callspec.params["recorded"].with_suffix(".npz")
    if not path.is_file():
        pytest.skip(f"no {path}: indices only were recorded")
    with np.load(path) as stored:
        return dict(stored)


def cases_of(record: dict) -> list[dict]:
    assert record["cases"]
    return record["cases"]


def stretch_of(case: dict) -> dict:
    return {name: case[name] for name in ("framerate", "start", "end")}


def picked_by_rule(record: dict, case: dict) -> list[int]:
    return whole_second_frames(record["cv_frame_count"], record["cv_fps"], **stretch_of(case))


def test_stated_length_is_opencvs(recorded):
    record, video = recorded
    length = stated_length(video)
    assert length.frame_count == record["cv_frame_count"]
    assert length.fps == pytest.approx(record["cv_fps"], rel=1e-12)


def test_indices(recorded):
    record, _ = recorded
    for case in cases_of(record):
        if "error" in case:
            with pytest.raises(ValueError):
                picked_by_rule(record, case)
            continue
        requested = [index for index in case["requested"] if index < record["cv_frame_count"]]
        assert picked_by_rule(record, case) == requested, case
        decodable = [index for index in requested if index < record["seq_decoded"]]
        assert decodable == case["picked"], case


def test_choice_among_the_picked(recorded):
    record, _ = recorded
    compared = 0
    for case in cases_of(record):
        for max_frames, slice_framepos, expected in selections_of(case):
            positions = slice_positions(len(case["picked"]), max_frames, slice_framepos)
            assert positions.tolist() == expected["positions"], case
            assert [case["picked"][i] for i in positions] == expected["source_frames"]
            assert len(positions) == expected["mask_len"]
            compared += 1
    assert compared


def test_sampled_frames(recorded):
    record, video = recorded
    for case in cases_of(record):
        if "error" in case or not case["picked"]:
            with pytest.raises(UnreadableVideo):
                sample_frames(video, **stretch_of(case))
            continue
        sampled = sample_frames(video, **stretch_of(case))
        assert sampled.frame_indices.tolist() == case["picked"], case
        assert (sampled.width, sampled.height) == (record["width"], record["height"])
        count, channels, height, width = case["tensor_shape"]
        assert sampled.frames.shape == (count, height, width, channels)
        if "frame_mean" in case:
            pixels = as_the_tower_reads(sampled.frames).astype(np.float64)
            over = (1, 2, 3)
            np.testing.assert_allclose(pixels.mean(over), case["frame_mean"], atol=2e-6)
            np.testing.assert_allclose(pixels.std(over), case["frame_std"], atol=2e-6)


def test_pixels(recorded, arrays):
    _, video = recorded
    index = int(arrays["source_frame_index"])
    [(_, image)] = frames_at(video, [index])
    np.testing.assert_array_equal(image, arrays["source_rgb_u8"])
    cropped = resize_and_crop(image, 224)
    np.testing.assert_array_equal(cropped, arrays["source_resized_cropped_u8"])
    sampled = sample_frames(video, framerate=int(arrays["framerate"]))
    chosen = sampled.frames[arrays["positions"]]
    np.testing.assert_array_equal(
        sampled.frame_indices[arrays["positions"]], arrays["source_frames"]
    )
    ours = as_the_tower_reads(chosen).transpose(0, 3, 1, 2).astype(np.float16)
    # Pixels are equal above; a device may divide by 255 otherwise, in the last bit of float32.
    np.testing.assert_array_max_ulp(ours, arrays["frames"], maxulp=1)


def selections_of(case: dict) -> list[tuple[int, int, dict]]:
    """(max_frames, slice_framepos, what was chosen) of every recorded selection."""
    return [
        (*(int(part[3:]) for part in name.split("_")), chosen)
        for name, chosen in case.get("selection", {}).items()
    ]


def test_read_video_takes_the_recorded_selection(recorded):
    record, video = recorded
    case = next(case for case in cases_of(record) if case.get("picked") and selections_of(case))
    sampled = sample_frames(video, **stretch_of(case))
    for max_frames, slice_framepos, expected in selections_of(case):
        frames, mask = read_video(
            video, max_frames, slice_framepos=slice_framepos, **stretch_of(case)
        )
        count = expected["mask_len"]
        assert mask.tolist() == [1] * count + [0] * (max_frames - count)
        np.testing.assert_array_equal(frames[:count], sampled.frames[expected["positions"]])
        assert not frames[count:].any()


def test_slice_table(golden_dir):
    paths = [path for path in CASES if path.stem == "slice_table"]
    if not paths:
        pytest.skip(f"no slice_table below {golden_dir} (set VTR_GOLDEN_DIR)")
    table = [row for path in paths for row in json.loads(path.read_text())]
    assert table
    for row in table:
        recorded = {int(name[3:]): row[name] for name in row if name.startswith("pos")}
        assert recorded
        for slice_framepos, expected in recorded.items():
            ours = slice_positions(row["L"], row["max_frames"], slice_framepos)
            assert ours.tolist() == expected, row
