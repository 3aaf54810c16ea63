"""Clips and captions that the public data sets are known to have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KnownCounts:
    """What a split should hold.

    clips, captions: None where it is not known. sha256: first digits of Split.sha256 where the
    public files were read here; None where they were not, so that the counts are documented ones.
    """

    clips: int | None
    captions: int | None
    sha256: str | None = None


# Data set, split, and the list (or way of reading) that decides.
_KNOWN = {
    ("msrvtt", "train", "9k"): KnownCounts(9000, 180_000),
    ("msrvtt", "train", "7k"): KnownCounts(7010, 140_200),
    ("msrvtt", "train", "full"): KnownCounts(6513, 130_260),
    ("msrvtt", "train", "1k-B"): KnownCounts(6656, 133_120),
    ("msrvtt", "val", ""): KnownCounts(497, 9940),
    ("msrvtt", "test", "1k-A"): KnownCounts(1000, 1000, "8951986e71ac8f5d"),
    ("msrvtt", "test", "full"): KnownCounts(2990, 59_800),
    ("msrvtt", "test", "1k-B"): KnownCounts(1000, 20_000),
    ("msvd", "train", ""): KnownCounts(1200, 48_774, "13f0d83fc1fa1875"),
    ("msvd", "val", ""): KnownCounts(100, 4290, "aabb8c8838fd90f3"),
    ("msvd", "test", ""): KnownCounts(670, 27_763, "369d2d8292eb0335"),
    ("lsmdc", "train", ""): KnownCounts(None, 101_079),
    ("lsmdc", "val", ""): KnownCounts(None, 7408),
    ("lsmdc", "test", ""): KnownCounts(1000, 1000),
    ("activitynet", "train", ""): KnownCounts(10_009, 10_009, "a64cd5924817d516"),
    ("activitynet", "train", "moments"): KnownCounts(None, 37_417, "e9e7fa4fdaba732a"),
    ("activitynet", "test", "val_1"): KnownCounts(4917, 4917, "b975976a59c728a3"),
    ("activitynet", "test", "val_1 moments"): KnownCounts(None, 17_505, "16a1430b011dc028"),
    ("activitynet", "test", "val_2"): KnownCounts(4885, 4885, "baed39d813816b6c"),
    ("didemo", "train", ""): KnownCounts(8392, 8392),
    ("didemo", "val", ""): KnownCounts(1065, 1065, "1ea842fccf8ba54e"),
    ("didemo", "val", "moments"): KnownCounts(3595, 4109, "acb75539be48951f"),
    ("didemo", "test", ""): KnownCounts(1004, 1004, "2e0fe79553ce418e"),
    ("didemo", "test", "moments"): KnownCounts(3425, 3932, "9256fb1f332b4375"),
    ("vatex", "train", ""): KnownCounts(25_991, 259_910),
    ("vatex", "val", ""): KnownCounts(1500, 15_000),
    ("vatex", "test", ""): KnownCounts(1500, 15_000),
}
# Paragraphs need more tokens than sentences; these are the limits of the published commands.
_MAX_WORDS = {"activitynet": 64, "didemo": 64}
# YouTube id, start, end.
_CUT_FROM_YOUTUBE = re.compile(r"(.{11})_\d+_\d+")
_READ_ALIKE = ("clip4clip", "drl", "hbi", "eercf", "cap4video")


def known_counts(dataset: str, split: str, options: Mapping[str, Any]) -> KnownCounts | None:
    """What is known of a split under these options of its reader; None where nothing is."""
    if dataset == "lsmdc" and options.get("system", "clip4clip") not in _READ_ALIKE:
        return None
    if dataset == "activitynet" and split == "val":
        split = "test"
    return _KNOWN.get((dataset, split, _variant(dataset, split, options)))


def default_max_words(dataset: str) -> int:
    """The token limit of the published commands on a data set, both special tokens included."""
    return _MAX_WORDS.get(dataset, 32)


def same_by_protocol(dataset: str, one: str, other: str) -> bool:
    """Whether two splits of a data set are the same videos on purpose."""
    return dataset == "activitynet" and {one, other} == {"val", "test"}


def source_video(dataset: str, clip_id: str) -> str | None:
    """The YouTube video that a clip was cut from, where the ids of the data set tell; else None."""
    cut = _CUT_FROM_YOUTUBE.fullmatch(clip_id) if dataset in ("msvd", "vatex") else None
    return cut[1] if cut else None


def _variant(dataset: str, split: str, options: Mapping[str, Any]) -> str:
    if dataset == "msrvtt" and split in ("train", "test"):
        default = {"train": "9k", "test": "1k-A"}[split]
        return str(options.get(f"{split}_list", default))
    moments = "moments" if options.get("moments") else ""
    if dataset == "activitynet" and split == "test":
        return f"{options.get('val_file', 'val_1')} {moments}".strip()
    return moments
