"""Names in annotations and on disk that mean the same file although they differ.

Lists made on macOS, on Windows or in a spreadsheet spell names in other ways: decomposed accents
(é as two characters), another case, backslashes between folders, spaces around the name.
"""

from __future__ import annotations

import difflib
import itertools
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

VIDEO_EXTENSIONS = (
    *(".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ts", ".ogv", ".gif"),
)
_NEAREST = 3
# Comparing a name with all others takes a second in a folder of 100,000 files.
_SEARCHES_FOR_NEAREST = 20


def clip_name(file: str) -> str:
    """Return the path of a video file without its extension.

    Dots that do not begin a video extension stay.
    """
    path = PurePosixPath(file)
    return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_EXTENSIONS else str(path)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _caseless(name: str) -> str:
    return name.casefold()


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _stripped(name: str) -> str:
    return "/".join(part.strip() for part in name.split("/"))


# What may differ, in the order in which it is tried; the words complete "matched apart from ...".
_DIFFERENCES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("Unicode normalization", _composed),
    ("case", _caseless),
    ("backslashes", _slashed),
    ("surrounding spaces", _stripped),
    ("its extension", clip_name),
)
# Every combination, those with fewer differences first.
_COMBINATIONS = [
    combination
    for size in range(len(_DIFFERENCES) + 1)
    for combination in itertools.combinations(_DIFFERENCES, size)
]


class NameMatch(NamedTuple):
    """Files that a name fits.

    paths: one, several where the name is ambiguous, none. apart_from: in what they differ from the
    name: ("case", "backslashes"), () for the same name.
    """

    paths: tuple[Path, ...]
    apart_from: tuple[str, ...]


class _Listed(NamedTuple):
    """A path below the folder, and its parts without everything in which names may differ."""

    name: str
    loose: tuple[str, ...]


class FolderNames:
    """The files (or the folders) below a folder, found by names that may be spelled otherwise."""

    def __init__(self, folder: Path, *, folders: bool = False) -> None:
        """List nothing yet: the folder is read when it is first needed.

        Args:
            folder: where to look.
            folders: find folders directly at the named place; else files, also deeper.
        """
        self._folder = folder
        self._folders = folders
        self._searches = 0
        self.unreadable: list[str] = []

    @cached_property
    def _by_stem(self) -> dict[str, list[_Listed]]:
        by_stem: dict[str, list[_Listed]] = defaultdict(list)
        for name in _walk(self._folder, self._folders, self.unreadable):
            listed = _Listed(name, _relaxed(name, _DIFFERENCES))
            by_stem[listed.loose[-1]].append(listed)
        return by_stem

    def match(self, names: Sequence[str]) -> NameMatch:
        """Find what fits one of `names` with the fewest differences, the first name first.

        A file fits a name if its path ends in it; a folder must be at that very place. Regular
        files are preferred to pipes, broken links and the like.
        """
        candidates = {name: self._candidates(name) for name in names}
        if not any(candidates.values()):
            return NameMatch((), ())
        for differences in _COMBINATIONS:
            for name in names:
                wanted = _relaxed(name, differences)
                fits = [c for c in candidates[name] if self._fits(_relaxed(c, differences), wanted)]
                if fits:
                    paths = [self._folder / each for each in fits]
                    files = [path for path in paths if self._folders or os.path.isfile(path)]
                    return NameMatch(tuple(files or paths), tuple(what for what, _ in differences))
        return NameMatch((), ())

    def _candidates(self, name: str) -> list[str]:
        wanted = _relaxed(name, _DIFFERENCES)
        listed = self._by_stem.get(wanted[-1], ()) if wanted else ()
        return [each.name for each in listed if self._fits(each.loose, wanted)]

    def _fits(self, parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
        return parts == wanted if self._folders else parts[-len(wanted) :] == wanted

    def nearest(self, name: str) -> list[str]:
        """Return up to three names that look like `name`; none after the first 20 searches."""
        self._searches += 1
        if self._searches > _SEARCHES_FOR_NEAREST:
            return []
        stem = _relaxed(name, _DIFFERENCES)[-1:]
        close = difflib.get_close_matches("".join(stem), self._by_stem, n=_NEAREST, cutoff=0.7)
        return [listed.name for each in close for listed in self._by_stem[each]][:_NEAREST]


def _relaxed(name: str, differences: Iterable[tuple[str, Callable[[str], str]]]) -> tuple[str, ...]:
    for _, without in differences:
        name = without(name)
    return PurePosixPath(name).parts


def _walk(folder: Path, folders: bool, unreadable: list[str]) -> Iterable[str]:
    """Yield the paths of files (or folders) below a folder, relative to it, in sorted order."""
    entered: set[str] = set()
    for parent, subfolders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: unreadable.append(_named(error))
    ):
        real = os.path.realpath(parent)
        if real in entered:  # a link back to a folder above would never end
            subfolders.clear()
            continue
        entered.add(real)
        subfolders.sort()
        for name in subfolders if folders else sorted(names):
            yield os.path.relpath(os.path.join(parent, name), folder)


def _named(error: OSError) -> str:
    return f"{error.filename} cannot be read ({error.strerror})"
