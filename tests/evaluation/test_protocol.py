"""The protocol card survives JSON, compares protocols and refuses unknown words."""

from __future__ import annotations

import dataclasses
import json

import pytest

from vtr_jax.data.split import Split, VideoClip
from vtr_jax.evaluation.protocol import ProtocolCard, shared_text

SETTINGS = {
    "clips_skipped": 1,
    "frames": 12,
    "frame_rate": 1.0,
    "frame_choice": "uniform, normal order",
    "resolution": 224,
    "max_words": 32,
    "captions_cut": 3,
    "checkpoint_sha256": "c" * 64,
    "recipe": "clip4clip, seqTransf",
    "software": {"vtr_jax": "0.1.0", "jax": "0.10.2"},
}


def make_split() -> Split:
    clips = (VideoClip("a", "a.mp4"), VideoClip("b", "b.mp4"))
    return Split("msrvtt", "test", clips, ("one", "two", "three"), [0, 1, 1])


def make_card(**changes) -> ProtocolCard:
    return ProtocolCard.of_split(make_split(), **(SETTINGS | changes))


def test_counts_and_hash_come_from_the_split():
    card = make_card()
    assert (card.dataset, card.split) == ("msrvtt", "test")
    assert (card.captions, card.clips, card.captions_per_clip) == (3, 2, (1, 1.5, 2))
    assert card.split_sha256 == make_split().sha256()
    assert (card.score_normalisation, card.ties, card.selection) == ("none", "once", "none")


def test_survives_json():
    card = make_card(ties="original", selection="test split")
    again = ProtocolCard.from_dict(json.loads(json.dumps(card.to_dict())))
    assert again == card
    assert hash(again) == hash(card)


def test_every_field_is_shown():
    text = make_card(frames=17, resolution=96, captions_cut=5).text()
    for shown in (
        "msrvtt",
        "17",
        "96",
        "1 to 2, mean 1.5",
        "c" * 64,
        "jax 0.10.2",
        "gallery order",
    ):
        assert shown in text
    assert len(text.splitlines()) == len(dataclasses.fields(ProtocolCard))
    assert all(len(line.split()) > 1 for line in text.splitlines())
    assert ["options", "none"] in [line.split() for line in text.splitlines()]


def test_a_frame_rule_without_a_rate_has_none():
    card = make_card(frame_rate=None, frame_rule="xpool")
    assert "the rule's" in card.text()
    assert ProtocolCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card


def test_choosing_on_the_test_split_is_said_loudly():
    assert "TEST SPLIT" in make_card(selection="test split").text()


def test_differences_name_what_keeps_scores_apart():
    card = make_card()
    same = make_card(checkpoint_sha256="d" * 64, recipe="drl", software={}, compute_dtype="float16")
    assert card.differences(same) == []
    assert card.differences(make_card(frames=8, score_normalisation="dual softmax")) == [
        "frames a clip: 12 against 8",
        "score normalisation: none against dual softmax",
    ]


@pytest.mark.parametrize("field", ["ties", "selection", "score_normalisation"])
def test_unknown_words_are_refused(field):
    with pytest.raises(ValueError, match=f"{field}: expected one of .*; got 'other'"):
        make_card(**{field: "other"})


def test_a_card_of_another_form_is_refused():
    values = make_card().to_dict()
    values["fps"] = values.pop("frame_rate")
    with pytest.raises(ValueError, match=r"missing \['frame_rate'\], unknown \['fps'\]"):
        ProtocolCard.from_dict(values)


def test_a_split_without_captions_has_no_card():
    empty = Split("msrvtt", "test", (VideoClip("a", "a.mp4"),), (), [])
    with pytest.raises(ValueError, match="msrvtt test: a split without captions"):
        ProtocolCard.of_split(empty, **SETTINGS)


def test_cards_of_several_retrievers_say_once_what_they_share():
    one, two = make_card(), make_card(checkpoint_sha256="d" * 64)
    text = shared_text({"meanP": one, "seqTransf": two})
    assert text.count("msrvtt") == 1
    lines = [line.split() for line in text.splitlines()]
    assert ["checkpoint", "sha256", "meanP:", "c" * 64] in lines
    assert ["seqTransf:", "d" * 64] in lines
    assert shared_text({"meanP": one, "again": one}) == one.text()


def test_long_values_go_on_in_the_next_line():
    software = {f"package{number}": "1.2.3" for number in range(20)}
    text = make_card(software=software).text()
    assert max(map(len, text.splitlines())) <= 110
    assert all(name in text for name in software)
