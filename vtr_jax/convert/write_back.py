"""A retriever directory back to a file that the original PyTorch program loads.

write_back("msrvtt", "clip4clip.safetensors", "clip4clip")

In the program: `model.load_state_dict(safetensors.torch.load_file("clip4clip.safetensors"))`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from vtr_jax.checkpoint import load_retriever, read_config
from vtr_jax.convert.from_state_dict import to_state_dict
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.convert.names.params import original_from_params
from vtr_jax.convert.written_facts import facts_to_metadata, hard_coded_differences
from vtr_jax.lock import only_process
from vtr_jax.models.retriever import Retriever
from vtr_jax.preprocessing import check_tokenizer_path

_TOWERS = ("visual", "text", "logit_scale")


def original_state_dict(retriever: Retriever, to: str) -> dict[str, np.ndarray]:
    """{original key: float32 array} as the system `to` names its parameters.

    to: the retriever's own system, or "clip" for its two towers under CLIP's names. Raises
    ValueError for another system, and for towers that CLIP cannot hold.
    """
    config = retriever.config
    if to == config.recipe:
        return to_state_dict(retriever)
    if to != "clip":
        own = "" if config.recipe == "clip" else f"--to={config.recipe}, or "
        raise ValueError(
            f"this is a retriever of {config.recipe}, whose parameters {to} does not have; give "
            f"{own}--to=clip or --to=huggingface for its two towers"
        )
    towers = {name: retriever.params[name] for name in _TOWERS}
    try:
        return original_from_params(jax.device_get(towers), NAME_TABLES["clip"])
    except ValueError as error:
        raise ValueError(
            f"the towers of this {config.recipe} are more than CLIP's ({error}); give "
            f"--to={config.recipe}"
        ) from error


def write_back_warnings(directory: str | os.PathLike[str], to: str) -> tuple[str, ...]:
    """Return what the original program would compute differently from this retriever."""
    return hard_coded_differences(read_config(directory), to)


def write_back(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    to: str,
    *,
    step: int | None = None,
) -> Mapping[str, tuple[int, ...]]:
    """Write a retriever's parameters under the original's names; returns {name: shape}.

    directory: what convert or train wrote. output: a new .safetensors file, there complete or not
    at all. to: as original_state_dict. step: which checkpoint of a run, None for the best. Raises
    FileExistsError, FileNotFoundError or ValueError before anything is written, BlockingIOError
    while another process writes the same file.
    """
    from safetensors.numpy import save_file

    path = Path(output)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: expected a file name that ends in .safetensors")
    if path.exists():
        raise FileExistsError(f"{path} exists already; choose another file or remove it")
    retriever = load_retriever(directory, step=step)
    try:
        state_dict = original_state_dict(retriever, to)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    check_tokenizer_path(retriever.preprocessing, path.parent)
    # A folder, because that can be locked: what a killed process left in it is overwritten.
    partial = path.with_name(f".{path.name}.partial")
    with only_process(partial, f"writing {path}"):
        try:
            metadata = facts_to_metadata(retriever.config, to)
            save_file(state_dict, partial / path.name, metadata=metadata)
            with (partial / path.name).open("rb") as file:
                os.fsync(file.fileno())
            retriever.preprocessing.write_tokenizer(path.parent)
            (partial / path.name).replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return {name: array.shape for name, array in state_dict.items()}
