"""A bare weight file says which published weights it may be, and what to pass for each."""

from __future__ import annotations

import pytest

from vtr_jax.cli import parse_options
from vtr_jax.convert.families import FAMILIES, family_hint, possible_families
from vtr_jax.convert.preprocessing_facts import given_settings
from vtr_jax.models.clip import CLIP_PRESETS, clip_config
from vtr_jax.models.transformer import ACTIVATIONS
from vtr_jax.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("ViT-B/32", {"OpenAI", "LAION-400M B/32", "LAION-2B", "MetaCLIP"}),
        ("ViT-L/14", {"OpenAI", "LAION-2B L/14", "LAION-400M", "DFN-2B"}),
        ("ViT-L/14@336px", {"OpenAI"}),
    ],
)
def test_candidates_follow_from_the_shapes(preset, expected):
    names = {family.name for family in possible_families(CLIP_PRESETS[preset])}
    assert expected <= names
    hint = family_hint(CLIP_PRESETS[preset])
    assert all(name in hint for name in expected)


def test_other_statistics_are_named():
    assert "--image_mean=0.5,0.5,0.5" in family_hint(CLIP_PRESETS["ViT-L/14"])
    assert "--image_mean" not in family_hint(CLIP_PRESETS["ViT-B/32"])


def test_unknown_sizes_have_no_candidates(tiny_clip):
    assert family_hint(tiny_clip) is None
    other = clip_config(
        embed_dim=512,
        image_resolution=224,
        patch_size=32,
        vision_width=768,
        vision_layers=12,
        text_width=512,
        text_layers=12,
        vocab_size=250002,
    )
    assert family_hint(other) is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_is_to_be_passed_can_be_passed(family):
    options = parse_options(family.arguments.split())
    assert options.pop("activation") in ACTIVATIONS
    Preprocessing().replace(**given_settings(options))
