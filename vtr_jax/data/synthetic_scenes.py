"""Which moving shapes the demo's data set shows, in which words, and which of them are held out.

A scene is one shape in one colour and size on one path. The scenes of validation and test never
occur in training. Some test scenes come in pairs that differ only in the direction or order of
motion: their videos show the same frames in reverse order, so that only time tells them apart.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

COLOURS = ("red", "yellow", "green", "blue")
SHAPES = ("circle", "square", "triangle")
SIZES = ("small", "large")
OPPOSITE = {"right": "left", "left": "right", "up": "down", "down": "up"}
MOTIONS: tuple[tuple[str, ...], ...] = (
    *((direction,) for direction in OPPOSITE),
    *itertools.product(("right", "left"), ("up", "down")),
    *itertools.product(("up", "down"), ("right", "left")),
)
CAPTIONS_PER_TRAINING_CLIP = 2


@dataclass(frozen=True)
class Scene:
    """One combination of attributes; motion is one direction, or two in their order."""

    colour: str
    shape: str
    size: str
    motion: tuple[str, ...]

    def reversed(self) -> Scene:
        """Returns the scene whose video is this one's played backwards."""
        backwards = tuple(OPPOSITE[direction] for direction in reversed(self.motion))
        return Scene(self.colour, self.shape, self.size, backwards)

    def captions(self) -> list[str]:
        """Returns every wording of this scene, the one that evaluation uses first."""
        thing = f"{self.size} {self.colour} {self.shape}"
        first, last = self.motion[0], self.motion[-1]
        if len(self.motion) == 1:
            return [
                f"a {thing} moves {first}",
                f"{thing} moving {first}",
                f"the {thing} slides {first}",
                f"{first} goes the {thing}",
            ]
        return [
            f"a {thing} moves {first}, then {last}",
            f"{thing} moving {first}, then {last}",
            f"the {thing} slides {first} before {last}",
            f"{first} and then {last} goes the {thing}",
        ]


@dataclass(frozen=True)
class PlannedClip:
    """A video to render: file name, split, scene, captions, and the seed of background and place.

    Paired clips share look_seed: they differ in nothing but the order of their frames.
    """

    file: str
    split: str
    scene: Scene
    captions: tuple[str, ...]
    look_seed: tuple[int, ...]


def all_scenes() -> list[Scene]:
    """Returns every combination of colour, shape, size and motion."""
    return [Scene(*parts) for parts in itertools.product(COLOURS, SHAPES, SIZES, MOTIONS)]


def plan_clips(
    num_clips: int, seed: int, *, num_val: int, num_test: int, direction_pairs: int
) -> tuple[list[PlannedClip], list[tuple[str, str]]]:
    """Chooses scenes and captions of all three splits; the same seed gives the same plan.

    Training goes through its scenes again, with another look, when num_clips is more than there
    are. Returns the clips and the file names of the test clips that form direction pairs. Raises
    ValueError for counts that cannot be met.
    """
    _check_counts(num_clips, num_val, num_test, direction_pairs)
    rng = np.random.default_rng(seed)
    scenes = all_scenes()
    shuffled = [scenes[i] for i in rng.permutation(len(scenes))]
    pairs = _take_pairs(shuffled, direction_pairs)
    paired = [scene for pair in pairs for scene in pair]
    rest = [scene for scene in shuffled if scene not in set(paired)]
    singles = _take_without_reverse(rest, num_test - len(paired))
    rest = [scene for scene in rest if scene not in set(singles)]
    val, train = rest[:num_val], rest[num_val:]
    test = [
        PlannedClip(f"test_{i:05d}.mp4", "test", scene, tuple(scene.captions()[:1]), look)
        for i, (scene, look) in enumerate(_with_looks(paired, singles, seed))
    ]
    val_clips = [
        PlannedClip(f"val_{i:05d}.mp4", "val", scene, tuple(scene.captions()[:1]), (seed, 1, i))
        for i, scene in enumerate(val)
    ]
    train_clips = [
        PlannedClip(f"train_{i:05d}.mp4", "train", scene, _some_captions(scene, rng), (seed, 0, i))
        for i, scene in enumerate(itertools.islice(itertools.cycle(train), num_clips))
    ]
    paired_files = [(test[2 * i].file, test[2 * i + 1].file) for i in range(len(pairs))]
    return train_clips + val_clips + test, paired_files


def _check_counts(num_clips: int, num_val: int, num_test: int, direction_pairs: int) -> None:
    if min(num_clips, num_val, num_test) < 1 or direction_pairs < 0:
        raise ValueError(
            f"expected at least one clip a split, got num_clips={num_clips}, num_val={num_val}, "
            f"num_test={num_test}, direction_pairs={direction_pairs}"
        )
    if 2 * direction_pairs > num_test:
        raise ValueError(
            f"direction_pairs: {direction_pairs} pairs need {2 * direction_pairs} test clips, "
            f"num_test is {num_test}"
        )
    total = len(COLOURS) * len(SHAPES) * len(SIZES) * len(MOTIONS)
    if num_val + num_test > total // 2:
        raise ValueError(
            f"num_val + num_test = {num_val + num_test}: at most half of the {total} combinations "
            f"({total // 2}) can be held out"
        )


def _take_pairs(scenes: list[Scene], count: int) -> list[tuple[Scene, Scene]]:
    forward = [s for s in scenes if MOTIONS.index(s.motion) < MOTIONS.index(s.reversed().motion)]
    return [(scene, scene.reversed()) for scene in forward[:count]]


def _take_without_reverse(scenes: list[Scene], count: int) -> list[Scene]:
    taken: dict[Scene, None] = {}
    for scene in scenes:
        if len(taken) < count and scene.reversed() not in taken:
            taken[scene] = None
    return list(taken)


def _with_looks(
    paired: list[Scene], singles: list[Scene], seed: int
) -> list[tuple[Scene, tuple[int, ...]]]:
    looks = [(seed, 2, i // 2) for i in range(len(paired))]
    looks += [(seed, 3, i) for i in range(len(singles))]
    return list(zip([*paired, *singles], looks, strict=True))


def _some_captions(scene: Scene, rng: np.random.Generator) -> tuple[str, ...]:
    captions = scene.captions()
    chosen = rng.choice(len(captions), CAPTIONS_PER_TRAINING_CLIP, replace=False)
    return tuple(captions[i] for i in sorted(chosen))
