"""Prefixes of training wrappers, and the choice among several models in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtr_jax.convert.checkpoint_file import open_checkpoint
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.prefixes import without_wrappers
from vtr_jax.convert.state_dict import find_state_dict

NAMES = (
    "positional_embedding",
    "logit_scale",
    "token_embedding.weight",
    "visual.class_embedding",
    "visual.proj",
    "visual.transformer.resblocks.0.attn.in_proj_weight",
    "transformer.resblocks.11.mlp.c_fc.bias",
)
OUTER = ["module.", "model.", "net.", "network.", "backbone.", "base_model.model.", "student."]
INNER = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."]


def tensor(value: float) -> LazyTensor:
    return LazyTensor(np.dtype(np.float32), (1,), lambda: np.full(1, value, np.float32))


def weights(names=NAMES, prefix: str = "", start: int = 0) -> dict[str, LazyTensor]:
    """Tensors whose value is their place in the list, from start on."""
    return {f"{prefix}{name}": tensor(start + place) for place, name in enumerate(names)}


def numbers(tensors: dict[str, LazyTensor]) -> dict[str, float]:
    return {name: float(item.read()[0]) for name, item in tensors.items()}


def insert(name: str, wrapper: str, place: int) -> str:
    """The name with a wrapper before one of its segments, the last one not."""
    parts = name.split(".")
    place = min(place, len(parts) - 1)
    return ".".join([*parts[:place], wrapper + parts[place], *parts[place + 1 :]])


@settings(deadline=None, max_examples=60)
@given(
    outer=st.lists(st.sampled_from(OUTER + INNER), max_size=5),
    inner=st.lists(st.tuples(st.sampled_from(INNER), st.integers(0, 4)), max_size=3),
    system=st.sampled_from(["", "clip."]),
    counter=st.booleans(),
)
def test_any_wrappers_in_any_order_are_removed(outer, inner, system, counter):
    named = {}
    for name, item in weights(prefix=system).items():
        for wrapper, place in inner:
            name = insert(name, wrapper, place)
        named["".join(outer) + name] = item
    if counter:
        named["n_averaged"] = tensor(9)
    found, notes = find_state_dict(named)
    assert numbers(found) == numbers(weights(prefix=system))
    assert bool(notes) == bool(outer or inner or counter)


def test_names_that_become_one_are_an_error():
    named = {**weights(prefix="_orig_mod."), **weights()}
    with pytest.raises(ValueError, match="there twice.*--prefix"):
        without_wrappers(named)


def test_names_of_a_trained_retriever_stay():
    named = weights(prefix="clip.") | {"transformerClip.resblocks.0.ln_1.bias": tensor(0)}
    assert without_wrappers(named) == (named, ())


def test_losses_and_metrics_next_to_the_model_are_noted():
    named = weights(prefix="model.") | {"criterion.weight": tensor(0), "val_acc.total": tensor(0)}
    found, notes = find_state_dict(named)
    assert set(found) == set(NAMES)
    assert any("criterion.weight" in note for note in notes)


@pytest.mark.parametrize("prefix", ["teacher", "teacher."])
def test_of_several_models_one_must_be_chosen(prefix):
    named = weights(prefix="student.") | weights(prefix="teacher.", start=20)
    with pytest.raises(ValueError, match=r"student\. and teacher\..*--prefix=student\."):
        find_state_dict(named)
    found, notes = find_state_dict(named, prefix=prefix)
    assert numbers(found) == numbers(weights(start=20))
    assert any("ignored 7 names" in note for note in notes)


def test_an_unknown_prefix_is_asked_for_with_what_it_leaves_out():
    named = weights(prefix="strange.") | {"head.weight": tensor(0)}
    with pytest.raises(ValueError, match=r"--prefix=strange\.; this leaves out 1.*head\.weight"):
        find_state_dict(named)
    assert numbers(find_state_dict(named, prefix="strange")[0]) == numbers(weights())


def test_a_prefix_that_is_not_there_lists_those_that_are():
    with pytest.raises(ValueError, match=r"got 'b\.'; names begin with strange\."):
        find_state_dict(weights(prefix="strange."), prefix="b")


def test_averages_are_taken_when_asked_for_and_never_silently():
    value = {"model": weights(), "model_ema": weights(start=20), "epoch": 3}
    found, notes = find_state_dict(value)
    assert numbers(found) == numbers(weights())
    assert any("--entry=model_ema" in note for note in notes)
    found, notes = find_state_dict(value, entry="model_ema")
    assert numbers(found) == numbers(weights(start=20))
    assert any("model_ema" in note for note in notes)


@pytest.mark.parametrize("key", ["ema", "model_ema", "state_dict_ema", "ema_model", "swa"])
def test_an_average_beside_an_unusual_name_is_not_preferred(key):
    found, _ = find_state_dict({key: weights(start=20), "my_clip": weights()})
    assert numbers(found) == numbers(weights())
    found, notes = find_state_dict({key: weights(start=20)})
    assert numbers(found) == numbers(weights(start=20))
    assert any(key in note and "averaged" in note for note in notes)


def test_entries_are_dotted_paths_and_listed_in_errors():
    value = {"a.b": {"c": weights()}, "other": {"d": {"w": tensor(1)}}}
    assert numbers(find_state_dict(value, entry="a.b.c")[0]) == numbers(weights())
    with pytest.raises(ValueError, match=r"got 'a\.x'; entries with weights: a\.b\.c, other\.d"):
        find_state_dict(value, entry="a.x")


def test_of_several_entries_the_clip_is_taken():
    found, notes = find_state_dict({"projector": {"w": tensor(1)}, "towers": weights()})
    assert numbers(found) == numbers(weights())
    assert any("the only one with a CLIP" in note for note in notes)


def test_random_states_are_no_weights():
    state = LazyTensor(np.dtype(np.uint8), (5056,), lambda: np.zeros(5056, np.uint8))
    found, _ = find_state_dict({"rng": {"torch": state}, "cuda_rng": state, "my_clip": weights()})
    assert numbers(found) == numbers(weights())


def test_options_reach_the_file(tmp_path: Path, torch_writer):
    path = tmp_path / "two.pt"
    one = {name: np.full(1, 1, np.float32) for name in NAMES}
    value = {"x": {f"a.{name}": array for name, array in one.items()}, "y": one}
    torch_writer.write_torch_zip(path, value)
    assert set(open_checkpoint(path, "x", "a").tensors) == set(NAMES)
    with pytest.raises(ValueError, match=r"two\.pt: entry: .*got 'z'.*x, y"):
        convert_checkpoint(path, tmp_path / "r", entry="z")
    with pytest.raises(ValueError, match=r"two\.pt: prefix: .*got 'z\.'"):
        convert_checkpoint(path, tmp_path / "r", entry="y", prefix="z")
