"""What a run of `prepare` did, as numbers and as text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vtr_jax.files import write_atomically

REPORT_FILE = "report.json"
TOO_LARGE = "too large"
DECODER_CRASH = "crash: decoding it ends the process"
_LISTED = 20
_NAMED = 5


class BadClip(NamedTuple):
    """A clip with something wrong, the file that was looked at, and what is wrong."""

    clip_id: str
    file: str
    reason: str


@dataclasses.dataclass(frozen=True)
class PrepareReport:
    """Counts of one run of `prepare`.

    clips: clips asked for; already_done: of them stored before this run; prepared: decoded in
    this run; bad: left out, in order of clip id; early: stored with fewer frames than chosen
    because their videos end early, and lost_much: how many of these miss more than a container's
    overstated length explains (early_ends.py). frames, bytes: of the whole finished store
    (0 where the run failed before it). seconds: wall time. overlaps: other split -> ids of its
    clips that the training split also holds, so that measuring on it would measure memory.
    respelled: clip id -> how the name of its file differs from the name in the annotations.
    """

    store_dir: Path
    clips: int
    already_done: int
    prepared: int
    bad: tuple[BadClip, ...]
    frames: int
    bytes: int
    seconds: float
    early: tuple[BadClip, ...] = ()
    lost_much: int = 0
    overlaps: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    respelled: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def bad_share(self) -> float:
        """Share of the clips asked for that could not be stored, or lost much, 0 to 1.

        Clips too large for a record do not count: their files are whole.
        """
        at_fault = [bad for bad in self.bad if not bad.reason.startswith(TOO_LARGE)]
        return (len(at_fault) + self.lost_much) / self.clips

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        values = dataclasses.asdict(self)
        values["store_dir"] = str(self.store_dir)
        values["bad"] = [bad._asdict() for bad in self.bad]
        values["early"] = [clip._asdict() for clip in self.early]
        return values

    def write(self) -> Path:
        """Writes the report to `report.json` in the store and returns the path."""
        path = self.store_dir / REPORT_FILE
        write_atomically(path, (json.dumps(self.as_dict(), indent=1) + "\n").encode())
        return path

    def __str__(self) -> str:
        lines = [
            f"frame store {self.store_dir}: {self.clips} clips asked for, "
            f"{self.already_done} already done, {self.prepared} prepared in {self.seconds:.0f} s, "
            f"{len(self.bad)} bad ({len(self.bad) / self.clips:.1%}); "
            f"{self.frames} frames, {self.bytes / 1e6:.1f} MB"
        ]
        lines += [
            f"WARNING: {len(clip_ids)} clips of {name} are also in train: "
            f"{', '.join(clip_ids[:_NAMED])}{', ...' if len(clip_ids) > _NAMED else ''}"
            for name, clip_ids in self.overlaps.items()
        ]
        lines += respelled_lines(self.respelled)
        if self.early:
            lines.append(
                f"WARNING: {len(self.early)} clips are stored with fewer frames than chosen, "
                "because their videos are damaged or cut off, or state too great a length: fetch "
                "them again"
            )
        if self.bad or self.early:
            lines.append(bad_table((*self.bad, *self.early)))
        return "\n".join(lines)


def respelled_lines(respelled: Mapping[str, str]) -> list[str]:
    """Return how many files were found under a name that is spelled otherwise, and some of them."""
    if not respelled:
        return []
    shown = [f"  {how}" for how in list(respelled.values())[:_NAMED]]
    more = [f"  ... and {len(respelled) - _NAMED} more"] if len(respelled) > _NAMED else []
    return [
        f"{len(respelled)} clips: the annotations spell the file's name in another way",
        *shown,
        *more,
    ]


def bad_table(bad: tuple[BadClip, ...], listed: int = _LISTED) -> str:
    """Bad clips as aligned text lines, at most `listed` of them and how many more there are."""
    rows = [("clip", "file", "reason"), *bad[:listed]]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows]
    if len(bad) > listed:
        lines.append(f"  ... and {len(bad) - listed} more, all in {REPORT_FILE}")
    return "\n".join(lines)
