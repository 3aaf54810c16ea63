"""The report page: every picture it names exists, the match is marked, bad input is refused."""

from __future__ import annotations

import html
import re
import subprocess
import sys

import numpy as np
import pytest

from vtr_jax.evaluation import charts
from vtr_jax.evaluation.charts import RIGHT, Hit, draw_curves, draw_query, draw_ranks
from vtr_jax.evaluation.visual_report import write_visual_report

GREEN = np.array([int(RIGHT[i : i + 2], 16) for i in (1, 3, 5)])


def make_hits(right: int | None, count: int = 3) -> list[Hit]:
    frames = np.full((4, 32, 32, 3), 90, np.uint8)
    return [Hit(f"clip_{i}", 0.9 - 0.1 * i, i == right, frames) for i in range(count)]


def make_run(r1: float) -> dict:
    return {
        "history": [{"step": step, "loss": 4.0 / step} for step in range(1, 40)],
        "recalls": [{"step": 0, "R@1": 1.0, "R@5": 5.0}, {"step": 39, "R@1": r1, "R@5": 90.0}],
        "results": {"t2v": {"R@1": r1, "MdR": 100 - r1, "queries": 100}},
        "ranks": np.array([0, 0, 1, 7, 60]),
    }


def pixels(path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


def green_share(path) -> float:
    return float((np.abs(pixels(path).astype(int) - GREEN).max(-1) < 8).mean())


def test_page_shows_scores_pictures_and_queries(tmp_path):
    queries = [
        {"caption": "a <small> red circle moves right", "top": make_hits(1)},
        {"caption": "nothing found", "top": [tuple(hit) for hit in make_hits(None)]},
    ]
    page = write_visual_report(
        tmp_path / "report",
        title="Moving shapes & more",
        runs={"meanP": make_run(40.0), "seqTransf": make_run(60.0)},
        queries=queries,
        introduction="Two heads.\n\nSecond.",
        protocol="frames  9",
    )
    text = page.read_text(encoding="utf-8")
    named = re.findall(r'src="([^"]+)"', text)
    assert named == ["curves.png", "ranks.png", "query_01.png", "query_02.png"]
    assert all((page.parent / name).stat().st_size > 1000 for name in named)
    assert (
        "Moving shapes &amp; more" in text
        and "<p>Two heads.</p>\n<p>Second.</p>" in text
        and "frames  9" in text
    )
    shown = html.unescape(text)
    assert "a <small> red circle moves right: matching clip found at place 2" in shown
    assert "nothing found: matching clip not among the first 3" in shown
    assert '<td class="best">60.0</td><td class="best">40.0</td><td>100</td>' in text
    assert "http" not in text


def test_only_the_match_is_framed_in_green(tmp_path):
    draw_query(tmp_path / "found.png", "a caption", make_hits(1))
    draw_query(tmp_path / "missed.png", "a caption", make_hits(None))
    assert green_share(tmp_path / "found.png") > 0.005
    assert green_share(tmp_path / "missed.png") == 0


def test_a_missed_clip_is_shown_last_with_its_place(tmp_path):
    hits = make_hits(None, 2)
    missed = hits[1]._replace(is_right=True, place=23)
    page = write_visual_report(
        tmp_path,
        title="t",
        runs={"one": make_run(50.0)},
        queries=[{"caption": "a", "top": [hits[0], missed]}],
    )
    assert "a: matching clip found at place 23" in page.read_text()
    assert green_share(tmp_path / "query_01.png") > 0.005


def test_strips_of_few_frames_stand_side_by_side(tmp_path):
    frames = np.full((9, 32, 32, 3), 90, np.uint8)
    few, many = make_hits(0), [hit._replace(frames=frames) for hit in make_hits(0)]
    page = write_visual_report(
        tmp_path,
        title="t",
        runs={"one": make_run(50.0)},
        queries=[{"caption": "few", "top": few}, {"caption": "many", "top": many}],
    )
    assert re.findall(r'class="(narrow|wide)"><img src="query', page.read_text()) == [
        "narrow",
        "wide",
    ]
    for name in ("query_01.png", "query_02.png"):
        picture = pixels(tmp_path / name)
        inked = np.flatnonzero((picture < 250).any(axis=(0, 2)))
        assert inked[-1] > 0.9 * picture.shape[1], f"{name} is blank on its right"


def test_rows_of_the_table_stand_by_measure(tmp_path):
    runs = {name: make_run(50.0) for name in ("one", "two")}
    for number, run in enumerate(runs.values()):
        run["results"] = run["results"] | {"pairs": {"R@1": 50.0 + number}}
    page = write_visual_report(tmp_path, title="t", runs=runs, queries=[])
    rows = re.findall(r"<th>([^<]*)</th><th>(one|two)</th>", page.read_text())
    assert rows == [("text to video", "one"), ("", "two"), ("pairs", "one"), ("", "two")]


def test_chance_is_drawn_and_steps_are_whole(tmp_path):
    history = [{"step": step, "loss": 1.0} for step in (1, 2, 3)]
    recalls = [{"step": 1, "R@1": 2.0, "R@5": 4.0}, {"step": 3, "R@1": 9.0, "R@5": 20.0}]
    figures = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "_save", lambda figure, path: figures.append(figure))
        draw_curves(tmp_path / "c.png", {"a": history}, {"a": recalls}, {"R@1": 2.5, "R@5": 12.5})
    loss_axes, recall_axes = figures[0].axes
    drawn = [line.get_ydata() for line in recall_axes.lines]
    assert any(np.array_equal(y, [2.5, 2.5]) for y in drawn)
    labels = [text.get_text() for text in recall_axes.get_legend().get_texts()]
    assert labels[-2:] == ["chance R@1", "chance R@5"]
    for axes in (loss_axes, recall_axes):
        assert all(tick == int(tick) for tick in axes.get_xticks())


def test_pictures_of_an_earlier_report_go(tmp_path):
    queries = [{"caption": "a", "top": make_hits(0, 1)}, {"caption": "b", "top": make_hits(0, 1)}]
    runs = {"one": make_run(50.0)}
    write_visual_report(tmp_path, title="first", runs=runs, queries=queries)
    write_visual_report(tmp_path, title="second", runs=runs, queries=queries[:1])
    assert sorted(path.name for path in tmp_path.glob("query*")) == ["query_01.png"]
    assert "What was found" in (tmp_path / "index.html").read_text()
    write_visual_report(tmp_path, title="third", runs=runs, queries=[])
    assert "What was found" not in (tmp_path / "index.html").read_text()


def test_equal_scores_are_not_marked_as_better(tmp_path):
    runs = {"one": make_run(50.0), "two": make_run(50.0)}
    page = write_visual_report(tmp_path, title="t", runs=runs, queries=[])
    assert 'class="best"' not in page.read_text()


def test_awkward_captions_ids_and_frames_are_drawn(tmp_path):
    hits = [
        Hit(
            "1012_Unbreakable_00.05.16.065-00.05.21.941",
            -0.1,
            True,
            np.zeros((1, 20, 40, 3), np.uint8),
        ),
        Hit("b", float("nan"), False, np.zeros((40, 40, 20, 3), np.uint8)),
    ]
    draw_query(tmp_path / "query.png", "pays $5 and $x^{2 " * 40, hits, "a note")
    picture = pixels(tmp_path / "query.png")
    assert picture.shape[1] == 1600
    assert (picture[:20] == 255).all() and (picture[:, -20:] == 255).all()


def test_runs_without_records_and_a_single_rank_are_drawn(tmp_path):
    draw_curves(tmp_path / "curves.png", {"a": []}, {"a": []})
    draw_ranks(tmp_path / "ranks.png", {"a": np.zeros(3, int), "b": np.array([5000, 2])})
    assert pixels(tmp_path / "curves.png").shape[1] == pixels(tmp_path / "ranks.png").shape[1]


def test_same_input_same_picture(tmp_path):
    for name in ("one.png", "two.png"):
        draw_ranks(tmp_path / name, {"run": np.array([0, 3, 3, 40])})
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one run"):
        write_visual_report(tmp_path, title="t", runs={}, queries=[])
    with pytest.raises(ValueError, match="no clip was retrieved for 'a caption'"):
        draw_query(tmp_path / "q.png", "a caption", [])
    floats = Hit("clip_7", 0.1, False, np.zeros((2, 8, 8, 3), np.float32))
    with pytest.raises(
        ValueError, match=r"frames of clip_7: expected uint8.*float32 \[2, 8, 8, 3\]"
    ):
        draw_query(tmp_path / "q.png", "a caption", [floats])
    with pytest.raises(ValueError, match=r"uint8 \[0, 8, 8, 3\]"):
        draw_query(
            tmp_path / "q.png", "a", [floats._replace(frames=np.zeros((0, 8, 8, 3), np.uint8))]
        )
    assert not list(tmp_path.glob("*.png"))


def test_reading_the_modules_does_not_import_matplotlib():
    code = "import sys, vtr_jax.evaluation.visual_report; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
