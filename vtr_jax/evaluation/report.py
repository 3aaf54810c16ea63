"""Scores as files: report.json for programs, report.txt for people, always with their protocol.

write_report(directory, card, retrieval_metrics(logits_tv, caption_clip))
card, results = read_report(directory)
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtr_jax.evaluation.protocol import ProtocolCard

JSON_FILE = "report.json"
TEXT_FILE = "report.txt"
FORMAT_VERSION = 1
DIRECTIONS = {"t2v": "text to video", "v2t": "video to text"}

_SHOWN = 5

Results = Mapping[str, Mapping[str, float]]
# What Nonfinite.to_json returns.
NonfiniteNames = Mapping[str, Sequence[Any]]


def write_report(
    directory: Path | str,
    card: ProtocolCard,
    results: Results,
    skipped: Sequence[str] = (),
    nonfinite: NonfiniteNames | None = None,
) -> Path:
    """Writes report.json and report.txt into a directory (made if absent), each file at once.

    results: {"t2v": {"R@1": …, …}, "v2t": …}; more rows may follow. skipped: ids of the clips that
    were left out, all of which the JSON lists. nonfinite: captions and clips without finite
    features or scores; None = not looked for. Returns the path of the JSON.
    Raises ValueError, before anything is written, if there is no row or a value is not finite.
    """
    if not results:
        raise ValueError("results: expected at least one row of scores, found none")
    content = {
        "format_version": FORMAT_VERSION,
        "results": {name: dict(row) for name, row in results.items()},
        "protocol": card.to_dict(),
        "skipped_clips": list(skipped),
        "nonfinite": None if nonfinite is None else dict(nonfinite),
    }
    try:
        encoded = json.dumps(content, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise ValueError(f"results hold NaN or an infinite value: {dict(results)}") from error
    return _write(directory, encoded, format_report(card, results, skipped, nonfinite))


def write_failed_report(
    directory: Path | str, card: ProtocolCard, nonfinite: NonfiniteNames, error: str
) -> Path:
    """Write report.json and report.txt of an evaluation that has no scores.

    Args:
        directory: created if absent.
        card: the protocol that the scores would have had.
        nonfinite: captions and clips without finite features or scores.
        error: why there are no scores.

    Returns:
        The path of the JSON file, which read_report rejects with this error.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "results": {},
        "protocol": card.to_dict(),
        "nonfinite": dict(nonfinite),
        "error": error,
    }
    text = f"No scores: {error}\n\nProtocol\n{card.text()}\n"
    return _write(directory, json.dumps(content, indent=2) + "\n", text)


def require_folder(directory: Path | str) -> None:
    """Raise ValueError where a report cannot be written: the path, or one above it, is a file."""
    for path in (Path(directory), *Path(directory).parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"--output={directory}: {path} is a file, expected a folder")


def read_report(directory: Path | str) -> tuple[ProtocolCard, dict[str, dict[str, float]]]:
    """Returns the protocol card and the results that `write_report` wrote.

    Raises FileNotFoundError if there is no report, ValueError if it is not one of this format.
    """
    path = Path(directory) / JSON_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such report; `vtr evaluate` writes one")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); evaluate again") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: expected a report of format {FORMAT_VERSION}, found {version!r}; "
            "evaluate again"
        )
    if "error" in content:
        raise ValueError(f"{path}: no scores: {content['error']}")
    return ProtocolCard.from_dict(content["protocol"]), content["results"]


def format_report(
    card: ProtocolCard,
    results: Results,
    skipped: Sequence[str] = (),
    nonfinite: NonfiniteNames | None = None,
) -> str:
    """Returns the table of scores and, below it, the protocol they hold for.

    skipped: ids of the clips that were left out, of which the first five are named. nonfinite: as
    in write_report.
    """
    text = f"{format_table(results)}\n\nProtocol\n{card.text()}\n"
    if nonfinite is not None:
        text += f"\n{_nonfinite_line(nonfinite)}\n"
    if not skipped:
        return text
    more = f", and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
    return f"{text}\nClips that were skipped: {', '.join(skipped[:_SHOWN])}{more}\n"


def _nonfinite_line(nonfinite: NonfiniteNames) -> str:
    captions, clips = nonfinite["captions"], nonfinite["clips"]
    text = f"Not finite: {len(captions)} captions and {len(clips)} clips"
    named = [*(repr(each["caption"]) for each in captions[:_SHOWN]), *clips[:_SHOWN]]
    if named:
        text = f"WARNING: ranked anyway. {text}, e.g. {', '.join(named)}"
    after = [len(nonfinite[f"normalized_{kind}"]) for kind in ("captions", "clips")]
    return f"{text}; normalized: {after[0]} and {after[1]}" if any(after) else text


def format_table(results: Results) -> str:
    """Returns scores as an aligned text table: one line a row, one column a score name.

    Percentages and ranks have one decimal, whole counts none; a score that a row lacks is "-".
    """
    columns = list(dict.fromkeys(name for row in results.values() for name in row))
    lines = [["", *columns]]
    for name, row in results.items():
        lines.append([DIRECTIONS.get(name, name), *(format_score(row.get(c)) for c in columns)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


def format_score(value: float | None) -> str:
    """Returns a score as text: whole numbers as they are, others with one decimal, None as -."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.1f}"


def _write(directory: Path | str, encoded: str, text: str) -> Path:
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _replace(directory / TEXT_FILE, text)
    _replace(directory / JSON_FILE, encoded)
    return directory / JSON_FILE


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
