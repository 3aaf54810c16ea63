"""A page a person wants to look at: scores, curves, ranks and what was found for some captions.

    write_visual_report(
        directory,
        title="Moving shapes",
        runs={"meanP": {"history": …, "recalls": …, "results": …, "ranks": …}},
        queries=[{"caption": "a small red circle moves right", "top": [Hit(…), …]}],
    )

writes index.html and the PNG files that it shows; the folder can be moved or sent as it is.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from vtr_jax.evaluation.charts import (
    INK,
    LINES,
    QUIET,
    Hit,
    draw_curves,
    draw_query,
    draw_ranks,
    is_narrow,
    placed,
)
from vtr_jax.evaluation.report import DIRECTIONS, Results, format_score


class Run(TypedDict):
    """What one training run gave.

    history: [{"step", "loss"}, …]; recalls: [{"step", "R@1", "R@5"}, …] while training; results:
    rows of final scores as in report.json; ranks: 0-based text-to-video ranks int [Q].
    """

    history: Sequence[Mapping[str, float]]
    recalls: Sequence[Mapping[str, float]]
    results: Results
    ranks: np.ndarray


class Query(TypedDict):
    """A caption and the clips retrieved for it, best first; note: a line of explanation.

    The matching clip may follow as the last hit, with its place, where it is not among the best.
    """

    caption: str
    top: Sequence[Hit | tuple[str, float, bool, np.ndarray]]
    note: NotRequired[str]


def write_visual_report(
    directory: Path | str,
    *,
    title: str,
    runs: Mapping[str, Run],
    queries: Sequence[Query],
    introduction: str = "",
    protocol: str = "",
    chance: Mapping[str, float] | None = None,
) -> Path:
    """Writes index.html, curves.png, ranks.png and query_01.png … into a directory.

    introduction: paragraphs below the title, an empty line between two; protocol: text shown as
    it is at the end (the protocol card); chance: recall -> percent that guessing would give while
    training. Pictures of an earlier report there are replaced. Returns the path of the page.
    Raises ValueError without a run, and for frames that are not uint8 [N,H,W,3].
    """
    if not runs:
        raise ValueError("runs: expected at least one run to report, found none")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for earlier in directory.glob("query_*.png"):
        earlier.unlink()
    draw_curves(
        directory / "curves.png",
        {name: run["history"] for name, run in runs.items()},
        {name: run["recalls"] for name, run in runs.items()},
        chance,
    )
    draw_ranks(directory / "ranks.png", {name: run["ranks"] for name, run in runs.items()})
    figures = [
        _write_query(directory / f"query_{number:02d}.png", query)
        for number, query in enumerate(queries, start=1)
    ]
    page = directory / "index.html"
    page.write_text(_page(title, introduction, runs, figures, protocol), encoding="utf-8")
    return page


def _write_query(path: Path, query: Query) -> str:
    """Draws a query and returns the HTML that shows it."""
    top = placed([Hit(*hit) for hit in query["top"]])
    places = [hit.place for hit in top if hit.is_right]
    note = query.get("note") or (
        f"matching clip found at place {places[0]}"
        if places
        else f"matching clip not among the first {len(top)}"
    )
    draw_query(path, query["caption"], top, note)
    text = html.escape(f"{query['caption']}: {note}", quote=True)
    width = "narrow" if is_narrow(top) else "wide"
    return f'<figure class="{width}"><img src="{path.name}" alt="{text}" loading="lazy"></figure>'


def _page(
    title: str, introduction: str, runs: Mapping[str, Run], queries: list[str], protocol: str
) -> str:
    parts = [
        f"<header><h1>{html.escape(title)}</h1>",
        '<div class="introduction">',
        *(f"<p>{html.escape(text)}</p>" for text in introduction.split("\n\n") if text),
        "</div></header>",
        f"<section><h2>Scores</h2>{_score_table(runs)}</section>",
        '<section><h2>Training</h2><figure><img src="curves.png" '
        'alt="training loss and recall over steps"></figure></section>',
        '<section><h2>Ranks</h2><figure><img src="ranks.png" '
        'alt="how often the matching clip stood at which rank"></figure></section>',
    ]
    if queries:
        parts.append(
            "<section><h2>What was found</h2><p>For each caption the clips with the highest "
            "scores, best first, as strips of their frames from left to right in time; the "
            "matching one is framed in green and, where it was missed, shown last with the place "
            f'at which it came.</p><div class="queries">{"".join(queries)}</div></section>'
        )
    if protocol:
        parts.append(f"<section><h2>Protocol</h2><pre>{html.escape(protocol)}</pre></section>")
    body = "\n".join(part for part in parts if part)
    return _TEMPLATE.format(title=html.escape(title), style=_STYLE_SHEET, body=body)


def _score_table(runs: Mapping[str, Run]) -> str:
    names = dict.fromkeys(row for run in runs.values() for row in run["results"])
    rows = [
        (run, row, runs[run]["results"][row])
        for row in names
        for run in runs
        if row in runs[run]["results"]
    ]
    columns = list(dict.fromkeys(name for _, _, scores in rows for name in scores))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    lines = []
    before = None
    for run, row, scores in rows:
        rivals = [other for _, other_row, other in rows if other_row == row]
        cells = "".join(_score_cell(name, scores, rivals) for name in columns)
        label = html.escape(DIRECTIONS.get(row, row)) if row != before else ""
        first = ' class="first"' if row != before else ""
        before = row
        lines.append(f"<tr{first}><th>{label}</th><th>{html.escape(run)}</th>{cells}</tr>")
    return f"<table><thead><tr><th></th><th></th>{head}</tr></thead>{''.join(lines)}</table>"


def _score_cell(
    name: str, scores: Mapping[str, float], rivals: Sequence[Mapping[str, float]]
) -> str:
    values = [other[name] for other in rivals if name in other]
    best = (min if name in ("MdR", "MnR") else max)(values, default=None)
    distinct = len(set(values)) > 1
    mark = ' class="best"' if distinct and scores.get(name) == best else ""
    return f"<td{mark}>{format_score(scores.get(name))}</td>"


_STYLE_SHEET = f"""
body {{ margin: 0; background: #f6f7f9; color: {INK};
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }}
main {{ max-width: 1040px; margin: 0 auto; padding: 40px 20px 80px; }}
h1 {{ font-size: 30px; margin: 0 0 8px; letter-spacing: -0.01em; }}
h2 {{ font-size: 19px; margin: 44px 0 12px; }}
p {{ color: {QUIET}; margin: 0 0 14px; }}
.introduction {{ columns: 2 420px; column-gap: 40px; }}
.introduction p {{ break-inside: avoid; }}
figure, table, pre {{ background: #fff; border: 1px solid {LINES}; border-radius: 10px; }}
figure {{ margin: 0 0 16px; padding: 12px; }}
.queries {{ display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }}
.queries figure {{ margin: 0; }}
.queries .wide {{ grid-column: 1 / -1; }}
@media (max-width: 720px) {{ .queries {{ grid-template-columns: 1fr; }} }}
img {{ display: block; width: 100%; height: auto; }}
table {{ border-collapse: separate; border-spacing: 0; width: 100%; padding: 8px 14px;
  font-variant-numeric: tabular-nums; }}
th, td {{ padding: 6px 10px; text-align: right; }}
tr.first > * {{ border-top: 1px solid {LINES}; }}
thead th {{ color: {QUIET}; font-weight: 500; font-size: 14px; }}
tr > th:nth-child(-n+2) {{ text-align: left; }}
tr > th:nth-child(2) {{ font-weight: 400; }}
td.best {{ font-weight: 700; }}
pre {{ padding: 16px 18px; overflow-x: auto; font-size: 13px; line-height: 1.5; }}
"""
_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
