"""The data settings of a recipe file as arguments of `vtr evaluate`.

    vtr evaluate --config=internvideo:msrvtt-zeroshot --checkpoint=DIR ...

is the same as giving its data set, reader options, token limit, frames and batch size one by one;
what is given beside it wins.
"""

from __future__ import annotations

from collections.abc import Sequence

from vtr_jax.training.command import read_config

FLAG = "--config"
DATA_SETTINGS = ("dataset", "max_words", "max_frames", "slice_framepos")


def with_recipe_settings(arguments: Sequence[str]) -> list[str]:
    """The arguments with --config=FILE.py:VARIANT replaced by what it sets.

    Raises FileNotFoundError or ValueError as read_config.
    """
    recipes, given = _apart(arguments)
    if not recipes:
        return given
    config = read_config(recipes[-1])
    settings = {name: config.data[name] for name in DATA_SETTINGS}
    settings |= {"batch_size": config.evaluation.batch_size}
    if not any(_name(argument) == "dataset" for argument in given):
        settings |= config.data.options.to_dict()
    names = {_name(argument) for argument in given}
    told = [f"--{name}={value}" for name, value in settings.items() if name not in names]
    return [*told, *given]


def _apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The recipes that are named, as --config=RECIPE or --config RECIPE, and all else."""
    recipes: list[str] = []
    given: list[str] = []
    pending = iter(arguments)
    for argument in pending:
        if argument == FLAG:
            recipes.append(next(pending, ""))
        elif argument.startswith(f"{FLAG}="):
            recipes.append(argument.removeprefix(f"{FLAG}="))
        else:
            given.append(argument)
    return recipes, given


def _name(argument: str) -> str:
    return argument.removeprefix("--").partition("=")[0]
