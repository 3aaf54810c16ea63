"""What `vtr train --help` says below its options: the recipes, settings most used."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping
from pathlib import Path

from vtr_jax.training.command import installed_recipes

# Setting, an example of its value, what it means; the defaults stand in training/config.py.
USUAL_SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("init", "clip-b32", "retriever directory to start from, as `vtr convert` writes it"),
    ("data.annotations", "captions.csv", "annotation file or folder"),
    ("data.store", "store", "frame store, as `vtr prepare` writes it"),
    ("data.validation", "holdout", "val, test, holdout (of the training clips) or none"),
    ("data.max_frames", "12", "frames a clip"),
    ("data.max_words", "32", "token limit of a caption"),
    ("batch_size", "64", "clips a step, over all devices"),
    ("epochs", "5", "passes over the training split"),
    ("optimizer.learning_rate", "1e-4", "of what the recipe adds to CLIP"),
    ("optimizer.coef_lr", "1e-3", "times that for CLIP itself"),
    ("optimizer.freeze_layer_num", "0", "-1 nothing, 0 embeddings, n also the first n blocks"),
    ("compute_dtype", "bfloat16", "auto: float32 on CPU, bfloat16 on accelerators"),
    ("attention", "cudnn", "fused, NVIDIA GPUs in bfloat16; not tried on one; default xla"),
    ("remat", "True", "less memory, more time"),
    ("mesh.fsdp", "8", "devices over which parameters are split"),
    ("eval_every", "500", "steps; 0: after every epoch"),
    ("seed", "42", "everything random comes from it"),
    ("tensorboard", "True", "needs vtr_jax[tensorboard]"),
)


def training_help() -> str:
    """Return the installed recipes with their variants, and the settings most used."""
    width = max(len(f"--config.{name}={value}") for name, value, _ in USUAL_SETTINGS)
    settings = [
        f"  {f'--config.{name}={value}':<{width}}  {meaning}"
        for name, value, meaning in USUAL_SETTINGS
    ]
    return "\n".join(
        [
            "recipes (--config=NAME or NAME:VARIANT; --config=FILE.py for your own file):",
            *recipe_lines(installed_recipes()),
            "",
            "settings most used, with an example of their value:",
            *settings,
            "",
            "every setting and its default: vtr_jax/training/config.py, overlaid by the recipe "
            "file",
        ]
    )


def recipe_lines(recipes: Mapping[str, Path]) -> list[str]:
    """Return a description of each recipe file and its variants, from its docstring."""
    lines = []
    for name, path in recipes.items():
        first, *others = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")
        variants = [text for text in others if text.startswith("The variant")]
        lines.append(f"  {name}")
        for text in (first, *variants):
            lines += textwrap.wrap(
                " ".join(text.split()), 96, initial_indent="      ", subsequent_indent="      "
            )
    return [*lines, f"  files: {next(iter(recipes.values())).parent}"]
