"""What a reader can be asked for: splits, lists, systems; and what it says to anything else."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from vtr_jax.data.split import VideoClip

# Whose way of reading a data set; readers say what differs, and treat the others alike.
SYSTEMS = (
    *("clip4clip", "drl", "emcl", "hbi", "backbone_tvr"),
    *("eercf", "xpool", "cap4video", "internvideo"),
)
SPLIT_NAMES = ("train", "val", "test")


class MissingSplit(ValueError):
    """These annotations do not have the split that was asked for; the message says why."""


class MissingCaptions(MissingSplit):
    """The list of the split is there, its captions are not; clips: those that it lists."""

    def __init__(self, message: str, clips: Iterable[VideoClip]) -> None:
        super().__init__(message)
        self.clips = tuple(clips)


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Raise a ValueError that lists what is known, and the nearest of it, unless `value` is."""
    names = [str(each) for each in known]
    if value not in names:
        expected = ", ".join(names)
        raise ValueError(f"{name} is {value!r}, expected one of {expected}{nearest(value, names)}")


def check_flag(name: str, value: object) -> None:
    """Raise a ValueError unless `value` is True or False; any other would pass for one of them."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, expected True or False")


def nearest(value: object, known: Iterable[str]) -> str:
    """'; did you mean X?' where a known name is close to `value`, else nothing."""
    name = nearest_name(value, known)
    return f"; did you mean {name}?" if name else ""


def nearest_name(value: object, known: Iterable[str]) -> str | None:
    """The known name that is closest to `value`, case aside; None where none is close."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(value).lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def annotation_folder(path: str | os.PathLike[str], holding: str, split: str, system: str) -> Path:
    """The folder at `path`, for what every reader is asked in the same way.

    holding: what the folder should hold, for the message. Raises FileNotFoundError where there is
    no folder, and ValueError for an unknown split or system.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        raise FileNotFoundError(f"{folder}: {what}, expected the folder with {holding}")
    check_choice("split", split, SPLIT_NAMES)
    check_choice("system", system, SYSTEMS)
    return folder


def given_annotation(option: str, file: str | os.PathLike[str], folder: Path) -> Path:
    """The annotation file that an option names, as seen from the working directory.

    Raises FileNotFoundError, saying whether `folder` has one of that name, where there is none.
    """
    path = Path(file)
    if path.is_file():
        return path
    looked = "" if path.is_absolute() else f" in the working directory, {Path.cwd()}"
    beside = folder / path
    hint = f"; did you mean --{option}={beside}?" if beside.is_file() and beside != path else ""
    raise FileNotFoundError(f"--{option}={file}: no such annotation file{looked}{hint}")


def find_annotation(folder: Path, names: Iterable[str], split: str) -> Path:
    """The first of `names` that is a file in `folder`.

    Raises MissingSplit, saying what was looked for, where there is none.
    """
    names = list(names)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    looked_for = " or ".join(names)
    raise MissingSplit(f"split {split!r} needs {looked_for}: no such annotation file in {folder}")
