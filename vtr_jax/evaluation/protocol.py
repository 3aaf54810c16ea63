"""The protocol card: everything one must know to compare a score with another.

card = ProtocolCard.of_split(split, frames=12, frame_rate=1, ..., software=software_versions())
print(card.text())
card.differences(another_card)        # [] = the scores may stand in one column
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vtr_jax.evaluation.metrics import TIE_RULES

if TYPE_CHECKING:
    from vtr_jax.data.split import Split

SCORE_NORMALISATIONS = {
    "none": "none",
    "dual softmax": "dual softmax at temperature 1: each score times its softmax over all texts of "
    "the split (video to text with one caption a clip: over all its clips)",
    "inverted softmax": "inverted softmax: as dual softmax, at temperature 0.01",
    "QB-Norm": "QB-Norm",
}
SELECTIONS = {
    "none": "none: the checkpoint was not chosen among several",
    "unknown": "not known: nothing beside the checkpoint tells how it was chosen",
    "validation split": "best checkpoint by the validation split",
    "test split": "best checkpoint by the TEST SPLIT itself (as in the original)",
}
_VALUE_WIDTH = 84
# Cards of earlier versions do not tell these.
_NOT_RECORDED = "not recorded"
_UNTOLD_BEFORE = {
    "clips_trained_on": None,
    "emcl": "none",
    "frame_rule": "opencv",
    "options": "",
    "tokenizer": _NOT_RECORDED,
    "pixels": _NOT_RECORDED,
    "resize": _NOT_RECORDED,
    "activation": _NOT_RECORDED,
    "unlike_training": (),
    "assumed": (),
}
_LABELS = {
    "dataset": "data set",
    "split_sha256": "split sha256",
    "captions_per_clip": "captions a clip",
    "clips_skipped": "clips skipped",
    "frames": "frames a clip",
    "frame_rate": "frames a second",
    "frame_choice": "frame choice",
    "frame_rule": "frame rule",
    "max_words": "token limit",
    "captions_cut": "captions cut",
    "clips_trained_on": "clips trained on",
    "checkpoint_sha256": "checkpoint sha256",
    "score_normalisation": "score normalisation",
    "emcl": "EMCL over features",
    "compute_dtype": "compute dtype",
    "unlike_training": "unlike training",
}


@dataclass(frozen=True)
class ProtocolCard:
    """How a score came about; equal cards mean equal protocol, checkpoint and software.

    Attributes:
        dataset, split, split_sha256: what was evaluated (Split.sha256).
        captions, clips: counted after leaving out what could not be used.
        captions_per_clip: fewest, mean and most captions of a clip.
        clips_skipped: clips of the annotations that are missing or unreadable.
        frames: at most so many frames a clip. frame_rate: frames sampled a second of video,
            None where the frame rule reads no rate.
        frame_rule: how frames were sampled, as `vtr prepare --frame_rule`.
        frame_choice: which of them are kept, in which order, e.g. "uniform, normal order".
        resolution: pixels a side. max_words: token limit with both special tokens.
        captions_cut: captions longer than that.
        checkpoint_sha256, recipe, options: the retriever, options as "name=value, ...".
        score_normalisation: one of SCORE_NORMALISATIONS. ties: a key of TIE_RULES.
        clips_trained_on: of these clips, so many are known to have been trained on; None where
            none is, but not everything is known.
        selection: a key of SELECTIONS. compute_dtype: of the towers, e.g. "float32".
        tokenizer, pixels, resize, activation: the retriever's tokenizer, its scale of pixel
            values, how pictures became squares, the activation of its towers.
        unlike_training: sentences on how frames were chosen otherwise than in training.
        assumed: sentences on what was assumed of the retriever because nothing stated it.
        emcl: settings of EMCL where it was put over the features, or "none".
        software: name -> version, see `versions.software_versions`.

    Raises:
        ValueError: an unknown score_normalisation, ties or selection.
    """

    dataset: str
    split: str
    split_sha256: str
    captions: int
    clips: int
    captions_per_clip: tuple[int, float, int]
    clips_skipped: int
    frames: int
    frame_rate: float | None
    frame_choice: str
    resolution: int
    max_words: int
    captions_cut: int
    checkpoint_sha256: str
    recipe: str
    score_normalisation: str = "none"
    ties: str = "once"
    selection: str = "none"
    clips_trained_on: int | None = None
    emcl: str = "none"
    frame_rule: str = "opencv"
    options: str = ""
    compute_dtype: str = "float32"
    tokenizer: str = "clip"
    pixels: str = _NOT_RECORDED
    resize: str = "shortest, bicubic"
    activation: str = _NOT_RECORDED
    unlike_training: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    software: dict[str, str] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("captions_per_clip", "unlike_training", "assumed"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _expect("score_normalisation", self.score_normalisation, tuple(SCORE_NORMALISATIONS))
        _expect("ties", self.ties, tuple(TIE_RULES))
        _expect("selection", self.selection, tuple(SELECTIONS))

    @classmethod
    def of_split(cls, split: Split, **settings: Any) -> ProtocolCard:
        """Returns the card of a split; its counts and hash are filled in, the rest is `settings`.

        Raises ValueError if the split has no caption.
        """
        if not split.captions:
            raise ValueError(f"{split.dataset} {split.name}: a split without captions has no score")
        counts = [len(split.captions_of(clip)) for clip in range(len(split.clips))]
        mean = round(sum(counts) / len(counts), 4)
        return cls(
            dataset=split.dataset,
            split=split.name,
            split_sha256=split.sha256(),
            captions=len(split.captions),
            clips=len(split.clips),
            captions_per_clip=(min(counts), mean, max(counts)),
            **settings,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the card as plain JSON values; `from_dict` reads them back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProtocolCard:
        """Returns the card that `to_dict` wrote. Raises ValueError for missing or unknown names."""
        values = {**_UNTOLD_BEFORE, **values}
        names = {field.name for field in dataclasses.fields(cls)}
        missing, unknown = sorted(names - values.keys()), sorted(values.keys() - names)
        if missing or unknown:
            raise ValueError(f"protocol card: missing {missing}, unknown {unknown}")
        return cls(**values)

    def differences(self, other: ProtocolCard) -> list[str]:
        """Lists where two protocols differ, as "frames a clip: 12 against 8".

        The retriever itself (checkpoint, recipe, preprocessing) and what should not matter to a
        score (compute dtype, software) are not compared.
        """
        ours, theirs = self._protocol(), other._protocol()
        return [
            f"{_label(name)}: {ours[name]} against {theirs[name]}"
            for name in ours
            if ours[name] != theirs[name]
        ]

    def text(self) -> str:
        """Returns the card as one readable block of aligned lines."""
        return shared_text({"": self})

    def _shown(self) -> dict[str, str]:
        fewest, mean, most = self.captions_per_clip
        shown = dataclasses.asdict(self) | {
            "captions_per_clip": f"{fewest} to {most}, mean {mean:g}",
            "score_normalisation": SCORE_NORMALISATIONS[self.score_normalisation],
            "ties": f"{self.ties}: {TIE_RULES[self.ties]}",
            "selection": SELECTIONS[self.selection],
            "frame_rate": "the rule's" if self.frame_rate is None else f"{self.frame_rate:g}",
            "options": self.options or "none",
            "unlike_training": "; ".join(self.unlike_training) or "nothing",
            "assumed": "; ".join(self.assumed) or "nothing",
            "clips_trained_on": "not known"
            if self.clips_trained_on is None
            else self.clips_trained_on,
            "software": ", ".join(f"{name} {value}" for name, value in self.software.items()),
        }
        return {_label(name): str(value) for name, value in shown.items()}

    def _protocol(self) -> dict[str, Any]:
        ignored = {"checkpoint_sha256", "recipe", "options", "compute_dtype", "software"}
        ignored |= {"tokenizer", "pixels", "resize", "activation", "unlike_training", "assumed"}
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in ignored}


def shared_text(cards: Mapping[str, ProtocolCard]) -> str:
    """Returns the cards of several retrievers as one block: what differs is said for each.

    cards: the retriever's name -> its card, at least one. Long values go on in a next line.
    """
    blocks = {name: card._shown() for name, card in cards.items()}
    labels = list(next(iter(blocks.values())))
    width = max(map(len, labels)) + 2
    lines = []
    for label in labels:
        values = {name: block[label] for name, block in blocks.items()}
        same = len(set(values.values())) == 1
        texts = [next(iter(values.values()))] if same else [f"{n}: {v}" for n, v in values.items()]
        wrapped = [line for text in texts for line in textwrap.wrap(text, _VALUE_WIDTH) or [""]]
        lines += [f"{label:<{width}}{wrapped[0]}", *(" " * width + line for line in wrapped[1:])]
    return "\n".join(lines)


def _label(name: str) -> str:
    return _LABELS.get(name, name)


def _expect(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"protocol card, {name}: expected one of {', '.join(known)}; got {value!r}"
        )
