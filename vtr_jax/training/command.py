"""The settings of `vtr train`: a recipe and overrides of single settings."""

from __future__ import annotations

import difflib
import inspect
import runpy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

import vtr_jax.configs

PREFIX = "--config."
CONFIGS = Path(vtr_jax.configs.__path__[0])

# By the type of a setting's default: how its text is read, and what to call that.
_TYPES: dict[type, tuple[flags.ArgumentParser, str]] = {
    bool: (flags.BooleanParser(), "True or False"),
    int: (flags.IntegerParser(), "a whole number"),
    float: (flags.FloatParser(), "a number"),
}


def read_config(recipe: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the settings of a recipe with some of them replaced, locked against new names.

    Args:
        recipe: NAME of an installed recipe (clip4clip) or FILE.py, either with :VARIANT; the file's
            get_config is called with the variant.
        overrides: --config.name=value arguments.

    Raises:
        FileNotFoundError: there is no such recipe or file.
        ValueError: unknown variant or setting (with the nearest name), or a value of another type.
    """
    config = _load(recipe)
    settings = dict(_settings(config))
    for argument in overrides:
        _check_override(argument, settings)
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=list(overrides))
    try:
        values(["vtr train", *overrides])
    except (flags.Error, TypeError) as error:
        raise ValueError(str(error)) from error
    return config


def installed_recipes() -> dict[str, Path]:
    """Return the recipe files that are installed with vtr_jax, by name."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.py")) if path.stem != "__init__"}


def find_recipe_file(name: str) -> Path:
    """Return the file of a recipe: an installed one's name, or a path.

    "configs/NAME.py" means the installed recipe too if there is no such file.

    Raises:
        FileNotFoundError: there is none; the message names the nearest or all installed ones.
    """
    installed = installed_recipes()
    if name in installed:
        return installed[name]
    path = Path(name)
    if path.is_file():
        return path
    if path.parent == Path("configs") and path.suffix == ".py" and path.stem in installed:
        return installed[path.stem]
    near = difflib.get_close_matches(path.stem, installed, n=1)
    hint = f"did you mean {near[0]}?" if near else f"installed: {', '.join(installed)}"
    raise FileNotFoundError(f"{name}: no such recipe or file; {hint}")


def _load(recipe: str) -> ConfigDict:
    path, colon, variant = recipe.partition(":")
    get_config = runpy.run_path(str(find_recipe_file(path))).get("get_config")
    if get_config is None:
        raise ValueError(f"{path}: expected a recipe file with a function get_config")
    if colon and not inspect.signature(get_config).parameters:
        raise ValueError(f"{path}: this recipe has no variants, got {variant!r}")
    config = get_config(variant) if colon else get_config()
    if not isinstance(config, ConfigDict):
        raise ValueError(f"{path}: get_config gave {config!r}, expected a ConfigDict")
    return config


def _settings(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _check_override(argument: str, settings: Mapping[str, Any]) -> None:
    name, equals, text = argument.removeprefix(PREFIX).partition("=")
    if not argument.startswith(PREFIX) or not equals:
        raise ValueError(f"argument {argument!r}: expected {PREFIX}name=value")
    if name not in settings:
        raise ValueError(f"{PREFIX}{name}: {_hint(name, list(settings))}")
    default = settings[name]
    if type(default) not in _TYPES:
        return
    parser, meaning = _TYPES[type(default)]
    try:
        parser.parse(text)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{PREFIX}{name}: expected {meaning}, found {text!r}; "
            f"for example {PREFIX}{name}={default}"
        ) from error


def _hint(name: str, names: Sequence[str]) -> str:
    members = [known for known in names if known.startswith(f"{name}.")]
    if members:
        return f"a group of settings: {', '.join(members)}"
    by_last_part = {known.rpartition(".")[2]: known for known in names}
    near = difflib.get_close_matches(name, names, n=1)
    last = difflib.get_close_matches(name.rpartition(".")[2], by_last_part, n=1)
    nearest = near or [by_last_part[part] for part in last]
    if nearest:
        return f"no such setting; did you mean {PREFIX}{nearest[0]}?"
    return f"no such setting; known: {', '.join(names)}"
