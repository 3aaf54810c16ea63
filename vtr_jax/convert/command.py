"""The two ways of `vtr convert`: a checkpoint to a retriever directory, and back."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.write_back import write_back
from vtr_jax.models.recipes import RECIPES

EPILOG = """\
accepted checkpoints, told by their content and never executed:
  OpenAI's TorchScript archives (ViT-B-32.pt), files of torch.save (zip and legacy; bare, under
  state_dict, with module.), .safetensors files, and Hugging Face folders with config.json;
  names of openai/CLIP, of open_clip's Vision Transformers, of Hugging Face's CLIPModel, and of
  {systems}

--name=value options of the towers, for what names and shapes do not tell:
  --activation=gelu       quick_gelu (default, OpenAI's) or gelu (open_clip's without -quickgelu)
  --vision_heads=N        heads of the image tower (default: width / 64)
  --text_heads=N          heads of the text tower (default: width / 64)
  --layer_norm_eps=X      of both towers (default 1e-05)
  --end_of_text_id=N      pool texts at the first such token (default: at the largest token id)

--name=value options of the recipe, spelt as the original's flags, e.g. --sim_header=seqTransf;
what the names in the file tell need not be given:
{options}

--name=value options for files that are not whole:
  --allow_missing=True    draw what the file lacks from --seed
  --ignore_unknown=True   leave out what the model does not have
  --mergeclip=True --pretrained_clip_name=ViT-L-14.pt [--mergeweight=0.5] [--merge_projection=True]
                          InternVideo's merging with a CLIP, weight by weight

back to the original's names, for its PyTorch program:
  vtr convert --to=clip4clip DIR OUT.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `vtr convert`, and below them what it accepts."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    options = "\n".join(
        textwrap.fill(
            ", ".join(recipe.options),
            95,
            initial_indent=f"  {name + ':':<14}",
            subsequent_indent=" " * 16,
        )
        for name, recipe in RECIPES.items()
        if recipe.options
    )
    systems = ", ".join(name for name in NAME_TABLES if name != "clip")
    parser.epilog = EPILOG.format(systems=systems, options=options)
    parser.add_argument("source", help="checkpoint file or Hugging Face folder; or, with --to, DIR")
    parser.add_argument(
        "directory", help="retriever directory to write; or, with --to, a .safetensors file"
    )
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), help="default: told by the names in the file"
    )
    parser.add_argument("--seed", type=int, help="for what CLIP has no weights for (default 0)")
    parser.add_argument(
        "--to",
        choices=sorted(NAME_TABLES),
        help="write a retriever directory back under that system's names (clip: its towers)",
    )
    parser.add_argument("--step", type=int, help="with --to: which checkpoint of a training run")


def run_conversion(known: argparse.Namespace, options: dict[str, Any]) -> None:
    """Run `vtr convert` and print its report; errors as convert_checkpoint and write_back."""
    if known.to is not None:
        _run_back(known, options)
        return
    if known.step is not None:
        raise ValueError("--step says which checkpoint to write back, with --to=SYSTEM")
    report = convert_checkpoint(
        known.source, known.directory, known.recipe, seed=known.seed or 0, **options
    )
    print(report)
    print(f"wrote    {known.directory}")


def _run_back(known: argparse.Namespace, options: dict[str, Any]) -> None:
    given = [name for name in ("recipe", "seed") if getattr(known, name) is not None]
    if given or options:
        names = ", ".join(f"--{name}" for name in [*given, *options])
        raise ValueError(f"{names}: not with --to, which writes what the directory holds")
    shapes = write_back(known.source, known.directory, known.to, step=known.step)
    print(f"wrote    {known.directory}: {len(shapes)} tensors under the names of {known.to}")
