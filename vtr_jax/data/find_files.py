"""The video file, or the folder of frames, of every clip of a split."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vtr_jax.data.file_names import FolderNames, NameMatch, clip_name

if TYPE_CHECKING:
    from vtr_jax.data.split import Split, VideoClip


def find_video_files(
    split: Split, videos_dir: str | os.PathLike[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Find the video file of every clip.

    Returns:
        clip id -> path of what was found, and clip id -> what was looked for, of what was not
        found or is ambiguous. Every clip is in one of the two.

    Raises:
        FileNotFoundError: `videos_dir` is not a folder.
    """
    files = find_files(split, Path(videos_dir))
    return files.found, files.missing


@dataclass(frozen=True)
class FoundFiles:
    """Files (or folders of frames) of the clips of a split.

    Attributes:
        found: clip id -> path.
        missing: clip id -> what was looked for, of what was not found or is ambiguous.
        respelled: clip id -> how the name of what was found differs from the annotations' name.
    """

    found: dict[str, Path] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    respelled: dict[str, str] = field(default_factory=dict)

    def update(self, other: FoundFiles) -> None:
        """Add the files of another split."""
        self.found.update(other.found)
        self.missing.update(other.missing)
        self.respelled.update(other.respelled)

    def take(self, clip: VideoClip, match: NameMatch, folder: Path) -> None:
        """Record the one path that was found for a clip."""
        (path,) = match.paths
        self.found[clip.clip_id] = path
        if set(match.apart_from) - {"its extension"}:
            apart_from = " and ".join(match.apart_from)
            self.respelled[clip.clip_id] = (
                f"{clip.file}: taken is {path.relative_to(folder)}, the same apart from "
                f"{apart_from}"
            )


def find_files(split: Split, videos_dir: Path) -> FoundFiles:
    """Find the video file of every clip.

    Looked for in this order: the clip's own path below `videos_dir`; the other names it goes by;
    each of these anywhere deeper in the tree (links to folders are followed); then names that
    differ in Unicode normalization, case, backslashes, surrounding spaces, or the video extension.
    The first of these that gives exactly one file counts.

    Raises:
        FileNotFoundError: `videos_dir` is not a folder.
    """
    _require_folder(videos_dir)
    files = FoundFiles()
    tree = FolderNames(videos_dir)
    for clip in split.clips:
        names = (clip.file, *clip.other_names)
        # pathlib drops the folder where the clip's file is absolute.
        paths = [videos_dir / name for name in names]
        path = next((path for path in paths if os.path.isfile(path)), None)
        if path is not None:
            files.found[clip.clip_id] = path
            continue
        match = tree.match(names)
        # Pipes, devices and broken links are found too: preparing reports what they are.
        odd = [path for path in paths if os.path.lexists(path) and not os.path.isdir(path)]
        if len(match.paths) == 1:
            files.take(clip, match, videos_dir)
        elif odd and not match.paths:
            files.found[clip.clip_id] = odd[0]
        else:
            files.missing[clip.clip_id] = _why_not_found(names, videos_dir, match, tree)
    return files


def find_frame_folders(split: Split, videos_dir: Path) -> FoundFiles:
    """Find the folder of images of every clip: its file's name, with or without the extension.

    Names may differ as those of video files do. Raises FileNotFoundError where videos_dir is no
    folder.
    """
    _require_folder(videos_dir)
    files = FoundFiles()
    tree = FolderNames(videos_dir, folders=True)
    for clip in split.clips:
        own = (clip.file, *clip.other_names)
        names = tuple(dict.fromkeys(name for file in own for name in (file, clip_name(file))))
        folder = next(
            (videos_dir / name for name in names if os.path.isdir(videos_dir / name)), None
        )
        if folder is not None:
            files.found[clip.clip_id] = folder
            continue
        match = tree.match(names)
        if len(match.paths) == 1:
            files.take(clip, match, videos_dir)
            continue
        looked_for = ", or ".join(dict.fromkeys(clip_name(file) for file in own))
        if match.paths:
            files.missing[clip.clip_id] = _several(looked_for, "folders", match, videos_dir)
        else:
            hint = _nearest(names[0], tree)
            files.missing[clip.clip_id] = f"{looked_for}: no such folder in {videos_dir}{hint}"
    return files


def _require_folder(videos_dir: Path) -> None:
    if not videos_dir.is_dir():
        raise FileNotFoundError(
            f"{videos_dir}: no such folder, expected the one with the video files"
        )


def _why_not_found(
    names: tuple[str, ...], folder: Path, match: NameMatch, tree: FolderNames
) -> str:
    looked_for = ", or ".join(names)
    if match.paths:
        return _several(looked_for, "files", match, folder)
    if PurePosixPath(names[0]).is_absolute():
        return f"{looked_for}: no such file"
    folders = [folder / form for name in names for form in (name, clip_name(name))]
    frames = next((each for each in folders if os.path.isdir(each)), None)
    if frames is not None:
        return f"{looked_for}: {frames} is a folder; of images? Then give --frame_rule=..._folder"
    hint = _nearest(names[0], tree)
    return f"{looked_for}: not in {folder}, nor deeper, nor with another video extension{hint}"


def _several(looked_for: str, kind: str, match: NameMatch, folder: Path) -> str:
    paths = ", ".join(str(path.relative_to(folder)) for path in match.paths[:5])
    apart_from = f" apart from {' and '.join(match.apart_from)}" if match.apart_from else ""
    return (
        f"{looked_for}: {len(match.paths)} {kind} in {folder} fit{apart_from}; write one of these "
        f"names in the annotations: {paths}"
    )


def _nearest(name: str, tree: FolderNames) -> str:
    near = tree.nearest(name)
    hint = f"; nearest names: {', '.join(near)}" if near else ""
    return "; ".join([hint, *tree.unreadable[:1]])
