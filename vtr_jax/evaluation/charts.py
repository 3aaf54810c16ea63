"""Pictures of a run as PNG files: loss and recall curves, rank histogram, retrieved frame strips.

matplotlib is imported when the first picture is drawn, without a display and without pyplot.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1d2530"
QUIET = "#6a7381"
LINES = "#e3e7ed"
RIGHT = "#1f9254"
SERIES = ("#2c6be0", "#e67e22", "#159a8c", "#8a55cf", "#c63d5c", "#7a7f2b")
RECALL_STYLES = {"R@1": "-", "R@5": ":"}
MOST_FRAMES_SHOWN = 12
_DPI = 160
# Inches.
_WIDTH, _MARGIN, _STRIPS_LEFT, _BETWEEN, _LABEL_HEIGHT = 10.0, 0.2, 1.5, 0.05, 0.62
# Strips of so few frames would leave half of a wide picture blank: they get a narrow one.
_NARROW_WIDTH, _NARROW_FRAMES = 5.4, 6
_RANK_BINS = (1, 2, 3, 4, 5, 10, 20, 50, 100, 500, 1000)
# Where it hides neither the curves at the top nor chance at the bottom.
_LEGEND_BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 3}
_STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": LINES,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINES,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.edgecolor": "white",
    "legend.framealpha": 0.9,
    # A dollar sign in a caption is a dollar sign.
    "text.parse_math": False,
    "lines.solid_capstyle": "round",
}


class Hit(NamedTuple):
    """A retrieved clip: its id, score, whether it is the right one, frames uint8 [N,H,W,3].

    place: its place in the ranking, 1 = first; None: that in the list it stands in.
    """

    clip_id: str
    score: float
    is_right: bool
    frames: np.ndarray
    place: int | None = None


def placed(top: Sequence[Hit]) -> list[Hit]:
    """The same hits, each with its place."""
    return [hit._replace(place=hit.place or number) for number, hit in enumerate(top, start=1)]


def draw_curves(
    path: Path,
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    recalls: Mapping[str, Sequence[Mapping[str, float]]],
    chance: Mapping[str, float] | None = None,
) -> None:
    """Draws training loss and recall over steps, one colour a run.

    histories: run -> [{"step", "loss"}, …]; recalls: run -> [{"step", "R@1", "R@5"}, …], either of
    which may be empty. chance: recall -> percent that guessing would give, drawn as a grey line.
    """
    with _styled():
        figure = _figure(_WIDTH, 4.0)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
        loss_axes, recall_axes = figure.subplots(1, 2)
        for (run, steps), colour in zip(histories.items(), itertools.cycle(SERIES), strict=False):
            _draw_loss(loss_axes, run, steps, colour)
        for (run, points), colour in zip(recalls.items(), itertools.cycle(SERIES), strict=False):
            _draw_recalls(recall_axes, run, points, colour)
        for name, percent in (chance or {}).items():
            style = RECALL_STYLES.get(name, "-")
            recall_axes.axhline(percent, color=QUIET, linestyle=style, linewidth=1.2)
            recall_axes.plot([], [], style, color=QUIET, label=f"chance {name}")
        _finish(loss_axes, "Training loss", "step", **_LEGEND_BELOW)
        loss_axes.set_ylim(bottom=0)
        title = "Recall on validation clips while training, %"
        _finish(recall_axes, title, "step", **_LEGEND_BELOW)
        recall_axes.set_ylim(0, 102)
        for axes in (loss_axes, recall_axes):
            axes.xaxis.get_major_locator().set_params(integer=True)
        _save(figure, path)


def draw_ranks(path: Path, ranks: Mapping[str, np.ndarray]) -> None:
    """Draws how often the matching clip stood at which rank; ranks: run -> 0-based int [Q]."""
    last = max(10, *(int(np.max(values)) + 1 for values in ranks.values()))
    edges = [edge for edge in _RANK_BINS if edge < last]
    edges.append(last)
    labels = [
        str(high) if high == low else f"{low}–{high}"
        for low, high in zip([1, *(edge + 1 for edge in edges[:-1])], edges, strict=True)
    ]
    with _styled():
        figure = _figure(_WIDTH, 3.2)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
        axes = figure.subplots()
        width = 0.8 / len(ranks)
        for number, (run, values) in enumerate(ranks.items()):
            upper = np.searchsorted(edges, np.asarray(values) + 1)
            shares = 100 * np.bincount(upper, minlength=len(edges)) / len(values)
            places = np.arange(len(edges)) + (number - (len(ranks) - 1) / 2) * width
            colour = SERIES[number % len(SERIES)]
            bars = axes.bar(places, shares, 0.9 * width, color=colour, label=run)
            texts = [f"{round(share, 1):g}" if share >= 0.05 else "" for share in shares]
            axes.bar_label(bars, texts, padding=2, fontsize=8, color=QUIET)
        axes.set_xticks(range(len(edges)), labels)
        axes.grid(False, axis="x")
        axes.margins(y=0.12)
        _finish(axes, "Rank of the matching clip, % of captions", "rank (1 = found first)")
        _save(figure, path)


def draw_query(path: Path, caption: str, top: Sequence[Hit], note: str = "") -> None:
    """Draws a caption and the clips retrieved for it, best first, as strips of frames.

    The matching clip is marked; where places are left out between two hits, dots say so. note: a
    short line below the caption. Raises ValueError without a hit, and for frames that are not
    uint8 [N,H,W,3] with N > 0.
    """
    if not top:
        raise ValueError(f"no clip was retrieved for {caption!r}: expected at least one to draw")
    for hit in top:
        _check_frames(hit)
    width = picture_width(top)
    words = textwrap.wrap(f"“{caption}”", int(8.8 * width), max_lines=3, placeholder=" …”")
    shown = max(min(len(hit.frames), MOST_FRAMES_SHOWN) for hit in top)
    frame_width = (width - _STRIPS_LEFT - _MARGIN) / max(shown, 4) - _BETWEEN
    rows = [frame_width * hit.frames.shape[1] / hit.frames.shape[2] for hit in top]
    header = 0.55 + 0.25 * len(words)
    height = header + sum(max(row, _LABEL_HEIGHT) + 0.18 for row in rows)
    with _styled():
        figure = _figure(width, height)
        _text(figure, _MARGIN, height - 0.2, "\n".join(words), fontsize=13, va="top")
        _text(figure, _MARGIN, height - header + 0.22, note, fontsize=9, color=QUIET)
        below = height - header
        expected = 1
        for hit, row in zip(placed(top), rows, strict=True):
            room = max(row, _LABEL_HEIGHT)
            if hit.place != expected:
                _text(figure, _MARGIN, below + 0.09, "⋮", fontsize=13, color=QUIET)
            expected = (hit.place or 0) + 1
            below -= room
            _draw_hit_label(figure, hit, below + room / 2)
            _draw_strip(figure, hit, below + (room - row) / 2, frame_width, row)
            below -= 0.18
        _save(figure, path)


def picture_width(top: Sequence[Hit]) -> float:
    """How wide, in inches, the picture of these hits is: half a page for strips of few frames."""
    few = max(len(hit.frames) for hit in top) <= _NARROW_FRAMES
    return _NARROW_WIDTH if few else _WIDTH


def is_narrow(top: Sequence[Hit]) -> bool:
    """Whether two such pictures stand side by side on a page."""
    return picture_width(top) == _NARROW_WIDTH


def _draw_hit_label(figure: Figure, hit: Hit, middle: float) -> None:
    colour, weight = (RIGHT, "bold") if hit.is_right else (INK, "normal")
    above = 0.17 if hit.is_right else 0.09
    name = hit.clip_id if len(hit.clip_id) <= 14 else f"…{hit.clip_id[-13:]}"
    left = _MARGIN + 0.48
    size = 17 if (hit.place or 0) < 100 else 12
    _text(figure, _MARGIN, middle, str(hit.place), fontsize=size, color=colour, weight=weight)
    score = f"{hit.score:.3f}"
    _text(figure, left, middle + above, score, fontsize=10.5, color=colour, weight=weight)
    _text(figure, left, middle + above - 0.19, name, fontsize=7.5, color=QUIET)
    if hit.is_right:
        _text(figure, left, middle - 0.2, "✓ match", fontsize=8, color=RIGHT, weight="bold")


def _draw_strip(figure: Figure, hit: Hit, below: float, frame_width: float, row: float) -> None:
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    count = min(len(hit.frames), MOST_FRAMES_SHOWN)
    for number, index in enumerate(np.linspace(0, len(hit.frames) - 1, count).astype(int)):
        left = _STRIPS_LEFT + number * (frame_width + _BETWEEN)
        box = (left / width, below / height, frame_width / width, row / height)
        axes = figure.add_axes(box)
        axes.imshow(hit.frames[index], interpolation="bicubic", aspect="auto")
        axes.set_axis_off()
    if hit.is_right:
        corner = ((_STRIPS_LEFT - _BETWEEN) / width, (below - _BETWEEN) / height)
        size = (count * (frame_width + _BETWEEN) + _BETWEEN) / width, (row + 2 * _BETWEEN) / height
        frame = Rectangle(corner, *size, fill=False, edgecolor=RIGHT, linewidth=2.2)
        frame.set_transform(figure.transFigure)
        figure.add_artist(frame)


def _text(figure: Figure, left: float, middle: float, text: str, **style: Any) -> None:
    """Writes text at a place in inches from the lower left corner."""
    width, height = figure.get_size_inches()
    figure.text(left / width, middle / height, text, **({"va": "center"} | style))


def _draw_loss(axes: Axes, run: str, steps: Sequence[Mapping[str, float]], colour: str) -> None:
    if not steps:
        return
    x = np.array([entry["step"] for entry in steps])
    loss = np.array([entry["loss"] for entry in steps])
    window = max(1, len(loss) // 30)
    smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
    axes.plot(x, loss, color=colour, alpha=0.25, linewidth=1)
    axes.plot(x[window - 1 :], smooth, color=colour, linewidth=2, label=run)


def _draw_recalls(axes: Axes, run: str, points: Sequence[Mapping[str, float]], colour: str) -> None:
    if not points:
        return
    for name, style in RECALL_STYLES.items():
        known = [point for point in points if name in point]
        x, y = [point["step"] for point in known], [point[name] for point in known]
        axes.plot(x, y, style, color=colour, marker="o", markersize=3.5, label=f"{run} {name}")


def _finish(axes: Axes, title: str, below: str, **legend: Any) -> None:
    axes.set_title(title)
    axes.set_xlabel(below)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**legend)
    else:
        axes.text(0.5, 0.5, "not recorded", color=QUIET, ha="center", transform=axes.transAxes)


def _check_frames(hit: Hit) -> None:
    frames = hit.frames
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(
            f"frames of {hit.clip_id}: expected uint8 [N,H,W,3], N > 0, "
            f"got {frames.dtype} {list(frames.shape)}"
        )


def _styled() -> AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Software": None})
