"""The report of `vtr check-data`, as a table to read and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vtr_jax.data.check_data.split_check import ListCheck, SplitCheck
from vtr_jax.data.check_data.video_check import VideoCheck

_BAR = 30
_TOKEN_EDGES = (8, 12, 16, 24, 32, 48, 64, 77, 128, 256)


@dataclass(frozen=True)
class Overlap:
    """What two splits share.

    clips: those of `other` that `one` holds too. expected: they are the same set on purpose.
    same_source: further clips of `other` that are cut from a YouTube video that `one` has
    stretches of; None where clip ids do not tell.
    """

    one: str
    other: str
    clips: tuple[str, ...]
    expected: bool
    same_source: int | None


@dataclass(frozen=True)
class DataReport:
    """What `check_data` found.

    Attributes:
        dataset, annotations, options: what was read.
        splits: those that could be read. lists: those without captions, all of which are
            missing too. missing: why others are not there, by name.
        overlaps: of every two splits. videos: None where no folder was given.
        problems: everything that is wrong, one line each; empty where nothing is.
    """

    dataset: str
    annotations: str
    options: dict[str, Any]
    splits: tuple[SplitCheck, ...]
    lists: tuple[ListCheck, ...]
    missing: dict[str, str]
    overlaps: tuple[Overlap, ...]
    videos: VideoCheck | None
    problems: tuple[str, ...]

    def to_json(self) -> str:
        """The report as JSON, keys as the attributes' names."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def report_text(report: DataReport) -> str:
    """The report for people, as lines of text."""
    options = ", ".join(f"{name}={value}" for name, value in report.options.items())
    videos = list(report.videos.notes) if report.videos else []
    parts = [
        [f"{report.dataset}: {report.annotations}" + (f" ({options})" if options else "")],
        _table(report.splits),
        _missing_lines(report),
        _list_lines(report.lists),
        _token_table(report.splits),
        _overlap_lines(report.overlaps),
        _video_lines(report.videos),
        _titled("notes", [note for each in report.splits for note in each.notes] + videos),
        _titled("problems", report.problems) or ["no problems"],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _missing_lines(report: DataReport) -> list[str]:
    # A split that was asked for by name is a problem, and told there.
    return [
        f"no split {name}: {reason}"
        for name, reason in report.missing.items()
        if f"{name}: {reason}" not in report.problems
    ]


def _table(splits: Sequence[SplitCheck]) -> list[str]:
    if not splits:
        return []
    rows = [
        [
            *("split", "clips", "captions", "captions a clip", "longest"),
            *(f"over {splits[0].max_words} tokens", "known counts", "sha256"),
        ]
    ]
    for each in splits:
        rows.append(
            [
                *(each.name, str(each.clips), str(each.captions), _spread(each.captions_per_clip)),
                *(
                    f"{max(each.tokens, default=0)} tokens",
                    _share(each.captions_cut, each.captions),
                ),
                *(_known(each), each.sha256[:16]),
            ]
        )
    return _aligned(rows, left=(0, 6, 7))


def _list_lines(lists: Sequence[ListCheck]) -> list[str]:
    said = {None: "", True: ", as known", False: ", DIFFERENT from the known number"}
    return _titled(
        "lists without captions, whose clips alone are checked",
        [
            f"{each.name}: {each.clips} clips"
            + said[None if each.known is None else not each.problems]
            for each in lists
        ],
    )


def _known(each: SplitCheck) -> str:
    if each.known is None:
        return "none"
    if not each.as_known:
        known = {"clips": each.known.clips, "captions": each.known.captions}
        expected = [f"{count} {what}" for what, count in known.items() if count is not None]
        return f"DIFFERENT: expected {', '.join(expected)}"
    same_text = each.known.sha256 and each.sha256.startswith(each.known.sha256)
    return "same, every text too" if same_text else "same"


def _spread(histogram: Mapping[int, int]) -> str:
    if not histogram:
        return "-"
    total = sum(histogram.values())
    mean = sum(value * count for value, count in histogram.items()) / total
    fewest, most = min(histogram), max(histogram)
    return str(fewest) if fewest == most else f"{fewest} to {most}, mean {mean:.1f}"


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if part else "0"


def _token_table(splits: Sequence[SplitCheck]) -> list[str]:
    """Captions by their number of tokens: a row a range, a column and a bar a split."""
    longest = max((max(each.tokens, default=0) for each in splits), default=0)
    if not longest:
        return []
    edges = [edge for edge in _TOKEN_EDGES if edge < longest] + [longest]
    columns = [_binned(each.tokens, edges) for each in splits]
    rows = [["tokens a caption", *(each.name for each in splits), ""]]
    for place, (low, high) in enumerate(zip([0, *edges], edges, strict=False)):
        counts = [column[place] for column in columns]
        share = columns[0][place] / max(sum(columns[0]), 1)
        rows.append([f"{low + 1} to {high}", *map(str, counts), "#" * round(share * _BAR)])
    return [line.rstrip() for line in _aligned(rows, left=(0, len(rows[0]) - 1))]


def _binned(histogram: Mapping[int, int], edges: Sequence[int]) -> list[int]:
    counts = np.zeros(len(edges), int)
    for tokens, count in histogram.items():
        counts[np.searchsorted(edges, tokens)] += count
    return counts.tolist()


def _overlap_lines(overlaps: Iterable[Overlap]) -> list[str]:
    lines = []
    for each in overlaps:
        count = f"{len(each.clips)} clips" if each.clips else "none"
        why = ", the same set on purpose" if each.clips and each.expected else ""
        cut = f"; {each.same_source} more from the same source videos" if each.same_source else ""
        lines.append(f"  {each.one} and {each.other}: {count}{why}{cut}")
    return ["clips that two splits share", *lines] if lines else []


def _video_lines(videos: VideoCheck | None) -> list[str]:
    if videos is None:
        return ["videos: not checked (give --videos=FOLDER)"]
    kind = "folders of images" if videos.folders else "files"
    return [
        f"videos: {videos.files} {kind} for {videos.clips} clips; {len(videos.missing)} clips "
        f"without one, {len(videos.beyond)} beyond its end, {len(videos.rejected)} left out for "
        f"another reason; {len(videos.unreadable)} {kind} "
        f"unreadable, {len(videos.early)} that end early, {len(videos.duplicates)} groups of equal "
        "files"
    ]


def _titled(title: str, lines: Sequence[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines)] if lines else []


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
