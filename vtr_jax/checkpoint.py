"""The retriever directory: weights that Orbax wrote, and the JSON that gives them meaning.

DIR/retriever.json     recipe, sizes, options, origin of the weights, versions, files
DIR/tokenizer.json     the tokenizer, if it is not CLIP's
DIR/weights/           converted or exported weights, or
DIR/checkpoints/STEP/  what training saved; the best by validation is the one that counts
DIR/checksums/STEP.json  sha256 of every file of such a checkpoint
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vtr_jax.checksums import DamagedFiles, directory_checksums, verify_checksums
from vtr_jax.finite import nonfinite_counts, nonfinite_message
from vtr_jax.lock import LOCK_FILE, only_process
from vtr_jax.models.clip import ClipConfig, TextConfig, VisionConfig
from vtr_jax.models.module_spec import Params
from vtr_jax.models.recipes import RetrieverConfig, recipe_named
from vtr_jax.models.retriever import Retriever, abstract_retriever
from vtr_jax.models.runtime import Runtime, check_compute_device
from vtr_jax.preprocessing import Preprocessing
from vtr_jax.restore import restore_tree
from vtr_jax.sharding import make_mesh, shardings
from vtr_jax.versions import software_versions

FORMAT_VERSION = 1
DESCRIPTION_FILE = "retriever.json"
WEIGHTS_FOLDER = "weights"
CHECKPOINTS_FOLDER = "checkpoints"
CHECKSUMS_FOLDER = "checksums"
RETRIEVER_ITEM = "retriever"
CHECKPOINT_METRICS = "metrics"


def config_to_json(config: RetrieverConfig) -> dict[str, Any]:
    """A RetrieverConfig as plain JSON values."""
    return {
        "recipe": config.recipe,
        "vision": dataclasses.asdict(config.clip.vision),
        "text": dataclasses.asdict(config.clip.text),
        "options": dict(config.options),
        "sizes": dict(config.sizes),
        "preprocessing": config.preprocessing.to_json(),
        "assumed": list(config.assumed),
    }


# What a directory without preprocessing leaves open.
NOT_RECORDED = (
    "preprocessing as OpenAI's CLIP, 32 tokens per caption, 12 frames at 1 frame per second: an "
    "earlier version wrote this directory and did not record it"
)


def config_from_json(values: Mapping[str, Any], directory: Path | None = None) -> RetrieverConfig:
    """Return the RetrieverConfig that config_to_json wrote.

    directory: of the retriever, which holds its tokenizer.json if it has one. Preprocessing that
    an earlier version did not record gets the defaults, listed as assumed. Raises ValueError for
    anything else, FileNotFoundError if the tokenizer.json is missing.
    """
    try:
        clip = ClipConfig(VisionConfig(**values["vision"]), TextConfig(**values["text"]))
        stored = values.get("preprocessing")
        return recipe_named(values["recipe"]).config(
            clip,
            values["options"],
            values["sizes"],
            None if stored is None else Preprocessing.from_json(stored, directory),
            (NOT_RECORDED,) if stored is None else values.get("assumed", ()),
        )
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"the description of the retriever cannot be read: {error}") from error


def read_description(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of DIR/retriever.json.

    Raises FileNotFoundError where there is none, ValueError for a file that is damaged or was
    written by a newer version.
    """
    path = Path(directory) / DESCRIPTION_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory}: not a retriever directory (no {DESCRIPTION_FILE}); make one with "
            "`vtr convert` or `vtr train`"
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = int(description["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged, expected JSON with format_version ({error})") from error
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {version}, this vtr_jax reads up to {FORMAT_VERSION}; "
            "upgrade vtr_jax"
        )
    return description


def read_config(directory: str | os.PathLike[str]) -> RetrieverConfig:
    """Return the RetrieverConfig of a retriever directory; errors as load_retriever."""
    description = read_description(directory)
    path = Path(directory)
    try:
        config = config_from_json(description["retriever"], path)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path / DESCRIPTION_FILE}: {error}") from error
    if NOT_RECORDED not in config.assumed:
        return config
    # Earlier versions listed the assumptions of a conversion outside the retriever.
    assumed = (*map(str, description.get("assumed", ())), *config.assumed)
    return dataclasses.replace(config, assumed=assumed)


def write_description(
    directory: Path, config: RetrieverConfig, facts: Mapping[str, Any] | None = None
) -> None:
    """Write DIR/retriever.json in one step, after the tokenizer.json if there is one.

    facts: added to retriever.json as they are.
    """
    config.preprocessing.write_tokenizer(directory)
    description = {
        "format_version": FORMAT_VERSION,
        "retriever": config_to_json(config),
        "versions": software_versions(),
        **(facts or {}),
    }
    text = json.dumps(description, indent=2) + "\n"
    partial = directory / f".{DESCRIPTION_FILE}.{os.getpid()}"
    partial.write_text(text, encoding="utf-8")
    partial.replace(directory / DESCRIPTION_FILE)


def check_new_directory(directory: str | os.PathLike[str]) -> Path:
    """The directory as a path, refused with FileExistsError if there is anything in it."""
    path = Path(directory)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists already; choose another directory or remove it")
    return path


def _write_weights(folder: Path, tree: Any) -> None:
    """Save arrays as they are: neither copied nor compressed, so that they are in memory once."""
    import orbax.checkpoint as ocp

    kinds = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.ArrayHandler()),
    )
    handler = ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=kinds)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(folder.absolute(), args=ocp.args.PyTreeSave(tree))


def _file_sizes(folder: Path, relative_to: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(relative_to).as_posix(): path.stat().st_size for path in files}


def _check_files(directory: Path, sizes: Mapping[str, int]) -> None:
    """Refuse a directory whose files are not all there in full; raises ValueError naming one."""
    for name, size in sizes.items():
        path = directory / name
        found = path.stat().st_size if path.is_file() else 0
        if found != size:
            raise ValueError(
                f"{path}: expected {size} bytes, found {found}: the directory is damaged or was "
                "copied in part; convert or copy it again"
            )


def write_retriever(
    directory: str | os.PathLike[str],
    config: RetrieverConfig,
    params: Params,
    state: Params | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a retriever directory; it appears complete or not at all.

    params: nested dict of arrays in any float dtype (kept on disk, float32 when loaded). The
    description records size and sha256 of every file of the weights. What a killed process has
    left of the same directory, hidden beside it, is removed. Raises FileExistsError if the
    directory holds anything, BlockingIOError while another process writes it.
    """
    target = check_new_directory(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial"
    with only_process(partial, f"writing {target}"):
        try:
            _clear(partial)
            weights = partial / WEIGHTS_FOLDER
            _write_weights(weights, {"params": params, "state": state or {}})
            sums = directory_checksums(weights)
            written = {
                "files": _file_sizes(weights, partial),
                "sha256": {f"{WEIGHTS_FOLDER}/{name}": value for name, value in sums.items()},
            }
            write_description(partial, config, {**(facts or {}), **written})
            (partial / LOCK_FILE).unlink()
            if target.exists():
                target.rmdir()
            partial.replace(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _clear(folder: Path) -> None:
    """Remove what a killed process has left there; its lock is ours now."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK_FILE:
            entry.unlink()


def checkpoint_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints that a training run has finished, in order."""
    folder = directory / CHECKPOINTS_FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def scores_file(directory: Path, step: int) -> Path:
    """Where the validation scores of a checkpoint are."""
    return directory / CHECKPOINTS_FOLDER / str(step) / CHECKPOINT_METRICS / "metrics"


def checkpoint_scores(directory: Path, step: int) -> dict[str, float]:
    """The validation scores of a checkpoint, {} if it was not evaluated.

    Raises ValueError for a damaged file.
    """
    path = scores_file(directory, step)
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: damaged, expected scores by name as JSON ({error})") from error


def best_checkpoint_step(directory: Path, metric: str | None) -> int | None:
    """The step of the checkpoint with the highest metric (the later of equals), else the last.

    None where the directory holds no checkpoint.
    """
    steps = checkpoint_steps(directory)
    if not steps:
        return None
    scored = [
        (value, step)
        for step in steps
        if metric and (value := checkpoint_scores(directory, step).get(metric)) is not None
    ]
    return max(scored)[1] if scored else steps[-1]


def checksums_file(directory: Path, step: int) -> Path:
    """Where the checksums of a checkpoint are recorded."""
    return directory / CHECKSUMS_FOLDER / f"{step}.json"


def verify_checkpoint(directory: Path, step: int, item: str = "") -> None:
    """Compare the files of a checkpoint with their checksums, where those were recorded.

    item: one of its folders, such as "retriever"; "" for all. Raises DamagedFiles naming files that
    are missing or not as they were written, OSError where they cannot be read.
    """
    record = checksums_file(directory, step)
    if not record.is_file():
        return  # the run was killed before it had recorded them
    try:
        recorded = dict(json.loads(record.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{record}: damaged, expected checksums as JSON ({error})") from error
    prefix = f"{item}/" if item else ""
    wanted = {
        name.removeprefix(prefix): value
        for name, value in recorded.items()
        if name.startswith(prefix)
    }
    verify_checksums(directory / CHECKPOINTS_FOLDER / str(step) / item, wanted)


def _restore_chosen(directory: Path, step: int, target: Any) -> Any:
    """Verify and load the weights of a checkpoint; the error says which others there are."""
    folder = directory / CHECKPOINTS_FOLDER / str(step) / RETRIEVER_ITEM
    try:
        with _copying_again_helps():
            verify_checkpoint(directory, step, RETRIEVER_ITEM)
            return restore_tree(folder, target)
    except ValueError as error:
        others = [str(other) for other in checkpoint_steps(directory) if other != step]
        hint = (
            f"step={' or '.join(others)} can be chosen instead" if others else "there is no other"
        )
        raise ValueError(f"{error}; {hint}") from error


def weights_folder(directory: str | os.PathLike[str], step: int | None = None) -> Path:
    """Where the weights of a retriever directory lie.

    step: which checkpoint of a training run; None for the best one. Raises FileNotFoundError
    naming what there is instead.
    """
    path = Path(directory)
    if step is None and (path / WEIGHTS_FOLDER).is_dir():
        return path / WEIGHTS_FOLDER
    steps = checkpoint_steps(path)
    if step is None:
        selection = read_description(path).get("selection") or {}
        step = best_checkpoint_step(path, selection.get("metric"))
    if step is None or step not in steps:
        raise FileNotFoundError(
            f"{path}: no weights{f' of step {step}' if step is not None else ''}; "
            f"checkpoints there: {steps or 'none'}"
        )
    return path / CHECKPOINTS_FOLDER / str(step) / RETRIEVER_ITEM


@contextlib.contextmanager
def _copying_again_helps() -> Iterator[None]:
    """Say what to do about damaged files that stay where they are."""
    try:
        yield
    except DamagedFiles as error:
        raise DamagedFiles(
            f"{error}; copy this folder again from where it is whole, or make it anew"
        ) from error


def load_retriever(
    directory: str | os.PathLike[str],
    mesh: Mesh | None = None,
    *,
    compute_dtype: str = "float32",
    step: int | None = None,
    allow_nonfinite: bool = False,
) -> Retriever:
    """Load a retriever directory that convert or train wrote.

    mesh: where the parameters go; all devices if None. compute_dtype: "float32" or "bfloat16";
    parameters are float32 either way; "float16" on accelerators alone. step: which checkpoint of a
    training run, None for the best. Files are compared with their recorded sha256 first, which
    takes one to three seconds a gigabyte. allow_nonfinite: accept weights that are NaN or infinite.
    Raises FileNotFoundError or ValueError naming what is missing, damaged, not finite or does not
    fit, OSError or MemoryError where whole files cannot be read.
    """
    path, runtime = Path(directory), Runtime(compute_dtype)
    mesh = mesh or make_mesh()
    check_compute_device(compute_dtype, mesh.devices.flat[0])
    description, config = read_description(path), read_config(path)
    abstract = abstract_retriever(config)
    tree = {"params": abstract.params, "state": abstract.state}
    target = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, np.float32, sharding=sharding),
        tree,
        shardings(tree, mesh),
    )
    folder = weights_folder(path, step)
    _check_files(path, description.get("files", {}))
    if folder.name == RETRIEVER_ITEM:
        restored = _restore_chosen(path, int(folder.parent.name), target)
    else:
        with _copying_again_helps():
            verify_checksums(path, description.get("sha256", {}))
            restored = restore_tree(folder, target)
    if not allow_nonfinite and (nonfinite := nonfinite_counts(restored["params"])):
        raise ValueError(nonfinite_message(str(folder), nonfinite))
    return Retriever(restored["params"], restored.get("state", {}), config, runtime)
