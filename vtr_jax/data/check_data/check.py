"""The whole check: splits, what they share, and videos."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vtr_jax.data.annotations import (
    MissingCaptions,
    MissingSplit,
    check_options,
    each_file_parsed_once,
    read_split,
    split_names,
)
from vtr_jax.data.annotations.choices import check_choice
from vtr_jax.data.check_data.known import default_max_words, same_by_protocol, source_video
from vtr_jax.data.check_data.report import DataReport, Overlap
from vtr_jax.data.check_data.split_check import check_list, check_split
from vtr_jax.data.check_data.video_check import check_videos, find_all
from vtr_jax.data.frame_store.settings import RULES, StoreSettings
from vtr_jax.data.overlap import PlannedFrames
from vtr_jax.data.split import Split, check_overlap
from vtr_jax.data.text import MIN_MAX_WORDS

_SETTINGS = {field.name for field in dataclasses.fields(StoreSettings)}


def check_data(
    dataset: str,
    annotations: str | os.PathLike[str],
    *,
    videos_dir: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
    max_words: int | None = None,
    workers: int | None = None,
    **options: Any,
) -> DataReport:
    """Check the annotations of a data set, and its videos if a folder is given.

    Args:
        dataset, annotations: as read_split.
        videos_dir: folder with the video files; None = annotations alone.
        splits: names; None = all that there are, and those that are missing are no problem.
        max_words: token limit; None = that of the published commands.
        workers: processes that open videos; None = one a core.
        **options: those of read_split; and the settings of the frame store that is to be made
            (frame_rule, framerate, min_frames, ...), by which videos are judged as `vtr prepare`
            judges them.

    Raises:
        ValueError: unknown data set or option.
        FileNotFoundError: annotations or videos_dir are not there.
    """
    if splits is not None and not all(splits):
        raise ValueError("splits names nothing, expected names with commas between them")
    of_store = {name: options.pop(name) for name in _SETTINGS & options.keys()}
    check_options(dataset, options)
    check_choice("frame_rule", of_store.get("frame_rule", "opencv"), RULES)
    settings = StoreSettings(**of_store)
    max_words = default_max_words(dataset) if max_words is None else max_words
    if max_words < MIN_MAX_WORDS:
        raise ValueError(f"max_words is {max_words}, expected at least {MIN_MAX_WORDS}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1")
    with each_file_parsed_once():
        read, listed, missing, problems = _read(dataset, annotations, splits, options)
    checks = [check_split(split, options, max_words) for split in read]
    lists = [check_list(split, options) for split in listed]
    everything = [*read, *listed]
    videos, frames = None, None
    if videos_dir is not None:
        files = find_all(everything, Path(videos_dir), settings)
        frames = PlannedFrames(files.found, settings.sampling)
        videos = check_videos(everything, files, Path(videos_dir), workers, settings)
    pairs = itertools.combinations(everything, 2)
    overlaps = [_overlap(dataset, one, other, frames) for one, other in pairs]
    return DataReport(
        dataset=dataset,
        annotations=str(annotations),
        options=dict(options),
        splits=tuple(checks),
        lists=tuple(lists),
        missing=missing,
        overlaps=tuple(overlaps),
        videos=videos,
        problems=(
            *problems,
            *itertools.chain.from_iterable(check.problems for check in checks),
            *itertools.chain.from_iterable(check.problems for check in lists),
            *_overlap_problems(overlaps),
            *(videos.problems if videos else ()),
        ),
    )


def _read(
    dataset: str,
    annotations: str | os.PathLike[str],
    names: Sequence[str] | None,
    options: Mapping[str, Any],
) -> tuple[list[Split], list[Split], dict[str, str], list[str]]:
    """Splits, lists without captions, why those are not there, and what is wrong with others."""
    read: list[Split] = []
    listed: list[Split] = []
    missing: dict[str, str] = {}
    wrong: dict[str, list[str]] = {}
    for name in names or split_names(dataset, annotations):
        try:
            read.append(read_split(dataset, annotations, name, **options))
        except MissingCaptions as reason:
            missing[name] = str(reason)
            listed.append(Split(dataset, name, reason.clips, (), np.zeros(0, np.int32)))
        except MissingSplit as reason:
            missing[name] = str(reason)
        except ValueError as problem:
            wrong.setdefault(str(problem), []).append(name)
    problems = [f"{', '.join(those)}: {problem}" for problem, those in wrong.items()]
    if names is not None:
        problems += [f"{name}: {reason}" for name, reason in missing.items()]
    elif not read and not problems:
        captions = ": its lists are, its captions are not" if listed else ""
        problems.append(f"no split of {dataset} is there{captions}")
    return read, listed, missing, problems


def _overlap(dataset: str, one: Split, other: Split, frames: PlannedFrames | None) -> Overlap:
    clips = check_overlap(one, other, frames)
    expected = same_by_protocol(dataset, one.name, other.name)
    return Overlap(one.name, other.name, tuple(clips), expected, _same_source(one, other, clips))


def _same_source(one: Split, other: Split, shared: Sequence[str]) -> int | None:
    """Clips of `other`, but for the shared ones, whose source video `one` has clips of."""
    sources = {source_video(one.dataset, clip.clip_id) for clip in one.clips}
    if None in sources:
        return None
    rest = {clip.clip_id for clip in other.clips} - set(shared)
    return sum(source_video(other.dataset, clip_id) in sources for clip_id in rest)


def _overlap_problems(overlaps: Iterable[Overlap]) -> list[str]:
    return [
        f"{each.one} and {each.other} share {len(each.clips)} clips: {', '.join(each.clips[:5])}"
        for each in overlaps
        if each.clips and not each.expected
    ]
