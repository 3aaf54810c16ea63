"""The pictures that a rule takes of a video file or a folder of frames, one at a time."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from vtr_jax.data.decode import (
    StatedLength,
    UnreadableVideo,
    counted_length,
    frames_at,
    stated_length,
)
from vtr_jax.data.frame_rules import CAP4VIDEO_FPS, Sampling, choose_frames

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class SampledPictures(NamedTuple):
    """Frames of one stretch of a video.

    fps, frame_count: of the whole video as it states them. chosen: how many frames the rule takes
    of a video of that length; a damaged or cut off one gives fewer. pictures: (index, uint8
    [H, W, 3] RGB), ascending, decoded while they are taken.
    """

    fps: float
    frame_count: int
    chosen: int
    pictures: Iterator[tuple[int, np.ndarray]]


def sample_pictures(
    path: str | os.PathLike[str],
    sampling: Sampling,
    start: float | None = None,
    end: float | None = None,
    thread_type: str = "NONE",
) -> SampledPictures:
    """Choose the frames of a video, to be decoded while they are taken.

    The first frame that cannot be decoded ends the video, as in the originals; under "xpool",
    which wants a number of them, it is an error.

    Args:
        path: a video file, or the folder of image files that a folder rule reads.
        sampling: the rule.
        start: seconds; None = from the beginning.
        end: seconds; None = to the end.
        thread_type: how PyAV decodes: "NONE" (one thread), "AUTO", "FRAME" or "SLICE".

    Raises:
        UnreadableVideo: here or while pictures are taken, where there is none to take.
        ValueError: the times make no sense.
    """
    if sampling.reads_folders:
        files = image_files(path, sampling)
        length = StatedLength(float(CAP4VIDEO_FPS), len(files))
        indices = _choose(path, sampling, length, start, end)
        pictures = _opened_images(files, indices)
        return SampledPictures(length.fps, len(files), len(indices), pictures)
    length = counted_length(path) if sampling.frame_rule == "decord" else stated_length(path)
    indices = chosen_indices(path, sampling, length, start, end)
    decoded = frames_at(path, sorted(set(indices)), thread_type)
    pictures = _repeated(decoded, indices)
    if sampling.frame_rule == "xpool":
        pictures = _all_of(path, pictures, indices)
    stated = dataclasses.replace(length, frame_count=length.frame_count + length.lacking)
    return SampledPictures(
        length.fps,
        length.frame_count,
        len(chosen_indices(path, sampling, stated, start, end)),
        _at_least_one(path, pictures, indices),
    )


def chosen_indices(
    path: str | os.PathLike[str],
    sampling: Sampling,
    length: StatedLength,
    start: float | None = None,
    end: float | None = None,
) -> list[int]:
    """Indices of the frames that a rule takes of a video file, at least one.

    Raises UnreadableVideo where it takes none, and where the file has too few frames a second.
    """
    if not length.frame_count:
        raise nothing_decoded(path, 0)
    least = max(sampling.framerate, 1)
    too_slow = length.fps < least or int(length.fps) < sampling.framerate
    if sampling.frame_rule == "opencv" and too_slow:
        raise UnreadableVideo(
            path,
            "frame rate too low",
            f"{length.fps:g} frames a second, expected at least {least}: re-encode it, or ask for "
            "a lower frame rate",
        )
    return _choose(path, sampling, length, start, end)


def _choose(
    path: str | os.PathLike[str],
    sampling: Sampling,
    length: StatedLength,
    start: float | None,
    end: float | None,
) -> list[int]:
    indices = choose_frames(sampling, length, start, end)
    if indices:
        return indices
    seconds = length.frame_count / (length.fps or 1)
    if start:
        found = f"start is {start:g}, the video has {seconds:.1f} seconds"
        raise UnreadableVideo(path, "start beyond the end", found)
    raise UnreadableVideo(
        path,
        "no frame chosen",
        f"{length.frame_count} frames are too few for the rule {sampling.frame_rule!r} at "
        f"framerate {sampling.framerate}",
    )


def nothing_decoded(path: str | os.PathLike[str], first_wanted: int) -> UnreadableVideo:
    """The error for a video of which no wanted frame could be decoded."""
    if first_wanted == 0:
        return UnreadableVideo(
            path, "no decodable frame", "not even the first frame can be decoded: fetch it again"
        )
    return UnreadableVideo(
        path,
        "start beyond the end",
        f"frame {first_wanted} was wanted first, but decoding ends before it",
    )


def _repeated(
    decoded: Iterator[tuple[int, np.ndarray]], indices: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
    times = Counter(indices)
    for index, picture in decoded:
        for _ in range(times[index]):
            yield index, picture


def _all_of(
    path: str | os.PathLike[str],
    pictures: Iterator[tuple[int, np.ndarray]],
    indices: Sequence[int],
) -> Iterator[tuple[int, np.ndarray]]:
    reached = 0
    for numbered in pictures:
        yield numbered
        reached += 1
    if reached < len(indices):
        raise UnreadableVideo(
            path,
            "cut off",
            f"frame {indices[reached]} cannot be decoded, and the rule wants all of "
            f"{len(indices)}: fetch the file again, or use another rule",
        )


def _at_least_one(
    path: str | os.PathLike[str],
    pictures: Iterator[tuple[int, np.ndarray]],
    indices: Sequence[int],
) -> Iterator[tuple[int, np.ndarray]]:
    first = next(pictures, None)
    if first is None:
        raise nothing_decoded(path, indices[0])
    yield first
    yield from pictures


def image_files(path: str | os.PathLike[str], sampling: Sampling) -> list[Path]:
    """The image files of a folder of frames in the order in which its rule counts them.

    By name for EMCL-Net, by the number behind the last underscore for the others.

    Raises UnreadableVideo where there is no folder, no image, or a name without a number.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UnreadableVideo(path, "missing", "no such folder of frames")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_EXTENSIONS)
    if not files:
        raise UnreadableVideo(
            path, "empty folder", f"no image files ({', '.join(IMAGE_EXTENSIONS)}) in it"
        )
    if sampling.frame_rule == "emcl_folder":
        return files
    numbers = [re.fullmatch(r"(?:.*_)?(\d+)", file.stem) for file in files]
    if None in numbers:
        name = files[numbers.index(None)].name
        raise UnreadableVideo(
            path, "not numbered", f"{name}: expected names that end in _NUMBER, as img_00001.jpg"
        )
    order = np.argsort([int(number[1]) for number in numbers if number], kind="stable")
    return [files[place] for place in order]


def _opened_images(
    files: Sequence[Path], indices: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
    for index in indices:
        try:
            with Image.open(files[index]) as image:
                picture = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise UnreadableVideo(
                files[index], "not an image", f"damaged or cut off ({error})"
            ) from error
        yield index, picture
