"""Recipe files as arguments of `vtr evaluate`: data settings, and what is given beside them."""

from __future__ import annotations

import pytest

from vtr_jax.evaluation.recipe_file import with_recipe_settings

RECIPE = "internvideo"


def test_arguments_without_a_recipe_are_left_alone():
    assert with_recipe_settings(["--store=s", "--max_frames", "4"]) == [
        "--store=s",
        "--max_frames",
        "4",
    ]


@pytest.mark.parametrize("form", [["--config={}"], ["--config", "{}"]])
def test_a_recipe_gives_its_data_settings(form):
    recipe = [part.format(f"{RECIPE}:lsmdc-zeroshot") for part in form]
    assert with_recipe_settings([*recipe, "--store=s"]) == [
        "--dataset=lsmdc",
        "--max_words=77",
        "--max_frames=6",
        "--slice_framepos=2",
        "--batch_size=32",
        "--system=internvideo",
        "--store=s",
    ]


def test_what_is_given_beside_it_wins():
    given = ["--max_frames", "4", "--system=clip4clip", f"--config={RECIPE}:lsmdc"]
    arguments = with_recipe_settings(given)
    assert arguments[-3:] == given[:3]
    assert not any(each.startswith(("--max_frames=", "--system=i")) for each in arguments)


def test_another_data_set_has_other_reader_options():
    arguments = with_recipe_settings([f"--config={RECIPE}:lsmdc", "--dataset=table"])
    assert "--system=internvideo" not in arguments
    assert [each for each in arguments if "dataset" in each] == ["--dataset=table"]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (["--config=nothing.py"], FileNotFoundError, "no such recipe or file"),
        (["--config"], FileNotFoundError, "no such recipe or file"),
        ([f"--config={RECIPE}:msrvtt-half"], ValueError, "TABLE one of finetune, zeroshot"),
    ],
)
def test_recipes_that_are_not_there_are_refused(given, error, words):
    with pytest.raises(error, match=words):
        with_recipe_settings(given)
