from __future__ import annotations

from pathlib import Path

import pytest

from vtr_jax.convert.checkpoint_file import CheckpointFacts
from vtr_jax.convert.huggingface_config import read_facts

PATH = Path("folder")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "clip", "text_config": None},
        {"text_config": {"eos_token_id": 2}, "vision_config": {"num_attention_heads": 16}},
        {
            "text_config": {"hidden_act": "gelu", "num_attention_heads": 4},
            "vision_config": {"hidden_act": "gelu", "layer_norm_eps": 1e-5},
        },
        {"text_config": {"eos_token_id": 2}, "text_config_dict": {"hidden_size": 768}},
        {
            "vision_config": {"num_attention_heads": 1},
            "vision_config_dict": {"num_attention_heads": 6, "layer_norm_eps": 1e-5},
        },
    ],
)
def test_facts_are_those_that_transformers_reads(config: dict):
    from transformers import CLIPConfig

    given = {key: value for key, value in config.items() if value is not None}
    theirs = CLIPConfig.from_dict(given)
    facts = read_facts(config, PATH)
    assert facts.vision_heads == theirs.vision_config.num_attention_heads
    assert facts.text_heads == theirs.text_config.num_attention_heads
    assert facts.activation == theirs.vision_config.hidden_act == theirs.text_config.hidden_act
    assert facts.layer_norm_eps == theirs.vision_config.layer_norm_eps
    assert facts.eos_token_id == theirs.text_config.eos_token_id
    assert facts.eos_rule == ("argmax" if facts.eos_token_id == 2 else "first_eos")


def test_no_config_no_facts():
    assert read_facts(None, PATH) == CheckpointFacts()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "siglip"}, "expected model_type clip.*found 'siglip'"),
        ({"text_config": []}, "expected an object text_config"),
        ({"text_config": {"hidden_act": "gelu"}}, r"one hidden_act.*'quick_gelu' \(vision\)"),
        ({"vision_config": {"layer_norm_eps": 1e-6}}, "one layer_norm_eps for both towers"),
        ({"vision_config": {"num_attention_heads": 0}}, "expected num_attention_heads like 12"),
        ({"vision_config": {"num_attention_heads": True}}, "expected num_attention_heads"),
        ({"text_config": {"eos_token_id": [2, 3]}}, r"expected eos_token_id.*found '\[2, 3\]'"),
        ({"text_config": {"hidden_act": None}}, "expected hidden_act like 'quick_gelu'"),
        ({"text_config": {"layer_norm_eps": "small"}}, "expected layer_norm_eps like 1e-05"),
    ],
)
def test_impossible_configs_are_refused(config: dict, message: str):
    with pytest.raises(ValueError, match=message) as error:
        read_facts(config, PATH)
    assert str(error.value).startswith("folder: ")
