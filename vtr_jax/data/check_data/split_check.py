"""What one split holds: counts, captions a clip, tokens a caption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vtr_jax.data.annotations.choices import SPLIT_NAMES, nearest
from vtr_jax.data.annotations.table_rows import EVERY_ROW
from vtr_jax.data.check_data.known import KnownCounts, known_counts
from vtr_jax.data.split import Split
from vtr_jax.data.text import count_tokens

_SHOWN = 5


@dataclass(frozen=True)
class SplitCheck:
    """One split.

    Attributes:
        name, clips, captions, sha256: the split (Split.sha256).
        known: what it should hold, where that is known.
        as_known: that it does; None where nothing is known.
        captions_per_clip: number of captions -> clips that have so many.
        tokens: number of tokens, both special ones included -> captions that need so many.
        max_words: the token limit. captions_cut: captions that need more.
        notes: what is worth knowing and no problem. problems: what is wrong.
    """

    name: str
    clips: int
    captions: int
    sha256: str
    known: KnownCounts | None
    as_known: bool | None
    captions_per_clip: dict[int, int]
    tokens: dict[int, int]
    max_words: int
    captions_cut: int
    notes: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class ListCheck:
    """A list whose captions are not there.

    name: of the split. clips: that it lists. known: what it should list; None = not known.
    """

    name: str
    clips: int
    known: int | None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the list alone."""
        if self.known in (None, self.clips):
            return ()
        return (f"{self.name}: {self.clips} clips in its list, expected {self.known}",)


def check_list(split: Split, options: Mapping[str, Any]) -> ListCheck:
    """Count the clips of a split without captions and compare them with what is known."""
    known = known_counts(split.dataset, split.name, options)
    return ListCheck(split.name, len(split.clips), known.clips if known else None)


def check_split(split: Split, options: Mapping[str, Any], max_words: int) -> SplitCheck:
    """Count what a split holds and compare it with what is known of it."""
    known = known_counts(split.dataset, split.name, options)
    sha256 = split.sha256()
    per_clip = np.bincount(split.caption_clip, minlength=len(split.clips))
    tokens = count_tokens(split.captions)
    differences = _differences(split, known)
    notes = [*_unusual_name(split.name), *split.notes, *_repeated(split)]
    if known and known.sha256 and not differences and not sha256.startswith(known.sha256):
        notes.append("counts are as known, but texts or order differ from the public files")
    return SplitCheck(
        name=split.name,
        clips=len(split.clips),
        captions=len(split.captions),
        sha256=sha256,
        known=known,
        as_known=None if known is None else not differences,
        captions_per_clip=_histogram(per_clip),
        tokens=_histogram(tokens),
        max_words=max_words,
        captions_cut=int((tokens > max_words).sum()),
        notes=tuple(f"{split.name}: {note}" for note in notes),
        problems=tuple(f"{split.name}: {each}" for each in [*differences, *_bare(split, per_clip)]),
    )


def _unusual_name(name: str) -> list[str]:
    if name in (*SPLIT_NAMES, EVERY_ROW):
        return []
    expected = f"{', '.join(SPLIT_NAMES)}, which training and evaluation read"
    return [f"this split is none of {expected}{nearest(name, SPLIT_NAMES)}"]


def _histogram(values: np.ndarray) -> dict[int, int]:
    return {int(value): count for value, count in sorted(Counter(values.tolist()).items())}


def _differences(split: Split, known: KnownCounts | None) -> list[str]:
    if known is None:
        return []
    pairs = [
        ("clips", len(split.clips), known.clips),
        ("captions", len(split.captions), known.captions),
    ]
    return [
        f"{found} {what}, expected {expected}"
        for what, found, expected in pairs
        if expected is not None and found != expected
    ]


def _bare(split: Split, per_clip: np.ndarray) -> list[str]:
    problems = []
    blank = [n for n, caption in enumerate(split.captions) if not caption.strip()]
    if blank:
        ids = ", ".join(split.clips[split.caption_clip[n]].clip_id for n in blank[:_SHOWN])
        problems.append(f"{len(blank)} captions are blank, e.g. of {ids}")
    silent = [split.clips[n].clip_id for n in np.flatnonzero(per_clip == 0)]
    if silent:
        problems.append(f"{len(silent)} clips have no caption, e.g. {', '.join(silent[:_SHOWN])}")
    return problems


def _repeated(split: Split) -> list[str]:
    clips_of: dict[str, Counter[int]] = {}
    for caption, clip in zip(split.captions, split.caption_clip.tolist(), strict=True):
        clips_of.setdefault(caption, Counter())[clip] += 1
    within = sum(sum(count - 1 for count in clips.values()) for clips in clips_of.values())
    across = sum(len(clips) > 1 for clips in clips_of.values())
    notes = []
    if within:
        notes.append(f"{within} captions repeat another one of the same clip")
    if across:
        notes.append(
            f"{across} texts describe more than one clip; each caption is judged by its own clip"
        )
    return notes
