"""The two ways of `vtr convert`: a checkpoint to a retriever directory, and back."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.write_back import write_back, write_back_warnings
from vtr_jax.convert.write_huggingface import write_huggingface
from vtr_jax.models.recipes import RECIPES

HUGGING_FACE = "huggingface"

EPILOG = """\
accepted checkpoints, told by their content and never executed:
  OpenAI's TorchScript archives (ViT-B-32.pt), files of torch.save (zip and legacy; bare, under
  state_dict, with the prefixes of training wrappers), .safetensors files, Hugging Face folders
  with config.json, and DeepSpeed's mp_rank_00_model_states.pt; configurations next to the file
  are read whatever the file is called;
  names of openai/CLIP, of open_clip's Vision Transformers, of Hugging Face's CLIPModel, and of
  {systems}

--name=value options of the towers, for what names and shapes do not tell:
  --activation=gelu       quick_gelu (default, OpenAI's) or gelu (open_clip's without -quickgelu)
  --vision_heads=N        heads of the image tower (default: width / 64)
  --text_heads=N          heads of the text tower (default: width / 64)
  --layer_norm_eps=X      of both towers (default 1e-05)
  --end_of_text_id=N      pool texts at the first such token (default: at the largest token id)

--name=value options of the preprocessing, for what no configuration says (one that contradicts a
configuration is an error, except for frames and token limit):
  --image_mean=R,G,B --image_std=R,G,B    after --rescale=X (default: OpenAI's, 1/255)
  --resize_mode=squash    shortest (default: shorter side, then crop), squash, longest (then pad
                          with --fill_color=R,G,B); --resized_side=N pixels before the crop;
                          --crop_offset=down rounds half pixels as Hugging Face does
  --interpolation=NAME    bicubic (default), bilinear, nearest, lanczos, box, hamming
  --tokenizer=FILE        tokenizer.json of the text tower (default: CLIP's own, --tokenizer=clip)
  --max_words=N           tokens per caption (default: the text tower's limit for clip, else 32)
  --max_frames=N          frames per clip (default 12), of --framerate=N per second by
                          --frame_rule=opencv (--num_frames=N of rules that count);
                          --slice_framepos=N --frame_order=N as of vtr evaluate

--name=value options of the recipe, spelt as the original's flags, e.g. --sim_header=seqTransf;
what the names in the file tell need not be given:
{options}

--name=value options for files with several models, and for other frames:
  --entry=model_ema       the entry with the weights, e.g. state_dict or checkpoint.model_ema
  --prefix=student.       take the names that begin so, without it
  --image_resolution=N    interpolate the position embeddings to frames of N pixels (bicubic)

--name=value options for files that are not whole:
  --allow_missing=True    draw what the file lacks from --seed
  --ignore_unknown=True   leave out what the model does not have
  --allow_nonfinite=True  keep weights that are NaN or infinite, to look into them
  --mergeclip=True --pretrained_clip_name=ViT-L-14.pt [--mergeweight=0.5] [--merge_projection=True]
                          InternVideo's merging with a CLIP, weight by weight

back to the original's names, for its PyTorch program:
  vtr convert --to=clip4clip DIR OUT.safetensors
  vtr convert --to=huggingface DIR FOLDER
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
        "directory",
        help="retriever directory to write; or, with --to, a .safetensors file (with "
        "--to=huggingface, a folder)",
    )
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), help="default: told by the names in the file"
    )
    parser.add_argument("--seed", type=int, help="for what CLIP has no weights for (default 0)")
    parser.add_argument(
        "--to",
        choices=sorted([*NAME_TABLES, HUGGING_FACE]),
        help="write a retriever directory back under that system's names (clip: its towers; "
        "huggingface: its towers as a folder for transformers' CLIPModel)",
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
    if known.to == HUGGING_FACE:
        shapes = write_huggingface(known.source, known.directory, step=known.step)
    else:
        shapes = write_back(known.source, known.directory, known.to, step=known.step)
        for warning in write_back_warnings(known.source, known.to):
            print(f"warning  {warning}")
    print(f"wrote    {known.directory}: {len(shapes)} tensors under the names of {known.to}")
