"""What the demo's report counts and shows, on matrices made by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vtr_jax.data.frame_store.encoding import encode_frame
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.split import Split, VideoClip

SOURCE = Path(__file__).resolve().parents[1] / "scripts" / "demo_report.py"


@pytest.fixture(scope="module")
def demo_report():
    spec = importlib.util.spec_from_file_location("demo_report", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def make_split(count: int) -> Split:
    clips = tuple(VideoClip(f"clip{i}", f"clip{i}.mp4") for i in range(count))
    return Split("table", "test", clips, tuple(f"text {i}" for i in range(count)), np.arange(count))


def evaluated(logits_tv):
    return SimpleNamespace(tiles=SimpleNamespace(matrix=lambda: np.array(logits_tv, float)))


def test_direction_counts_captions_that_prefer_their_own_clip(demo_report):
    logits_tv = [[3, 1, 9, 9], [2, 1, 9, 9], [9, 9, 5, 5], [9, 9, 0, 4]]
    pairs = [("clip0", "clip1"), ("clip2", "clip3")]
    score = demo_report.direction_score(evaluated(logits_tv), make_split(4), pairs)
    # Captions 0 and 3 prefer their own clip, 1 the other one, 2 neither.
    assert score == {"R@1": 50.0, "queries": 4}


class OneGreyFrame:
    """A frame store in which every clip has one grey frame."""

    def index_of(self, clip_id: str) -> int:
        return int(clip_id.removeprefix("clip"))

    def read(self, index: int) -> list[bytes]:
        settings = StoreSettings(resolution=16, encoding="png")
        return [encode_frame(np.full((16, 16, 3), 99, np.uint8), settings)]


@pytest.mark.parametrize(
    ("own_score", "places"), [(9.5, [1, 2, 3, 4]), (6.5, [1, 2, 3, 4]), (0.5, [1, 2, 3, 10])]
)
def test_a_missed_clip_takes_the_last_row_with_its_place(demo_report, own_score, places):
    scores = np.arange(10.0)
    scores[0] = own_score
    query = demo_report.found_clips(evaluated([scores] * 10), make_split(10), OneGreyFrame(), 0)
    assert query["caption"] == "text 0"
    assert [hit.place for hit in query["top"]] == places
    (own,) = (hit for hit in query["top"] if hit.is_right)
    assert own.clip_id == "clip0" and own.score == own_score
    assert own.frames.shape == (1, 16, 16, 3)
