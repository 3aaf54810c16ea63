"""The retriever directory: what is written is read back bit for bit, or refused by name."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

import vtr_jax.checkpoint as checkpoint
from vtr_jax.checkpoint import (
    best_checkpoint_step,
    config_from_json,
    config_to_json,
    load_retriever,
    read_description,
    write_description,
    write_retriever,
)
from vtr_jax.checksums import directory_checksums
from vtr_jax.lock import only_process
from vtr_jax.training.checkpoints import RunCheckpoints


@pytest.fixture(scope="module")
def retriever(tiny_retriever):
    return tiny_retriever("clip4clip", sim_header="seqTransf", linear_patch="3d")


@pytest.fixture(scope="module")
def written(retriever, tmp_path_factory):
    directory = tmp_path_factory.mktemp("written") / "retriever"
    facts = {"source": {"file": "ViT.pt", "sha256": "12"}, "notes": ["a note"]}
    write_retriever(directory, retriever.config, retriever.params, facts=facts)
    return directory


@pytest.fixture
def copied(written, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "copied"))


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_round_trip_is_bitwise(written, retriever, tiny_batch):
    loaded = load_retriever(written)
    assert_same(loaded.params, retriever.params)
    assert loaded.config == retriever.config
    assert loaded.state == {}
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}
    text = tiny_batch["token_ids"], tiny_batch["token_mask"]
    assert_same(loaded.encode_text(*text).sentence, retriever.encode_text(*text).sentence)


def test_it_describes_itself(written, retriever):
    description = json.loads((written / "retriever.json").read_text())
    assert description["format_version"] == 1
    assert description["retriever"]["recipe"] == "clip4clip"
    assert description["retriever"]["vision"]["patch_size"] == 8
    assert description["retriever"]["options"]["sim_header"] == "seqTransf"
    assert description["source"] == {"file": "ViT.pt", "sha256": "12"}
    assert description["notes"] == ["a note"]
    assert {"vtr_jax", "jax", "flax", "orbax-checkpoint"} <= set(description["versions"])
    assert all((written / name).stat().st_size == n for name, n in description["files"].items())
    assert "weights/manifest.ocdbt" in description["files"]
    sums = directory_checksums(written / "weights")
    assert description["sha256"] == {f"weights/{name}": value for name, value in sums.items()}
    assert sorted(path.name for path in written.iterdir()) == ["retriever.json", "weights"]
    assert read_description(written) == description


def test_config_survives_json(retriever, tiny_retriever):
    for config in (retriever.config, tiny_retriever(activation="gelu").config):
        assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_compute_dtype_is_a_setting_of_loading(written):
    assert load_retriever(written, compute_dtype="bfloat16").runtime.compute_dtype == "bfloat16"
    with pytest.raises(ValueError, match="compute_dtype: expected .* got 'int8'"):
        load_retriever(written, compute_dtype="int8")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_dtypes_stay_exact(dtype, tiny_retriever, tmp_path):
    """What a file holds in 16 bits stays 16 bits on disk, and becomes float32 exactly."""
    import orbax.checkpoint as ocp
    from etils import epath

    retriever = tiny_retriever()
    stored = jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype), retriever.params)
    write_retriever(tmp_path / "r", retriever.config, stored)
    on_disk = ocp.StandardCheckpointHandler().metadata(epath.Path(tmp_path / "r" / "weights")).tree
    assert {np.dtype(leaf.dtype) for leaf in jax.tree.leaves(on_disk)} == {np.dtype(dtype)}
    loaded = load_retriever(tmp_path / "r")
    assert_same(loaded.params, jax.tree.map(lambda leaf: leaf.astype(np.float32), stored))


def test_state_is_kept(tiny_retriever, tmp_path, monkeypatch):
    retriever = tiny_retriever()
    state = {"mu": np.arange(6, dtype=np.float32).reshape(2, 3)}
    write_retriever(tmp_path / "r", retriever.config, retriever.params, state)
    abstract = checkpoint.abstract_retriever

    def with_state(config):
        return abstract(config).with_state({"mu": jax.ShapeDtypeStruct((2, 3), np.float32)})

    with pytest.raises(ValueError, match="unexpected: state/mu"):
        load_retriever(tmp_path / "r")
    monkeypatch.setattr(checkpoint, "abstract_retriever", with_state)
    assert_same(load_retriever(tmp_path / "r").state, state)


ON_EIGHT_DEVICES = """
import sys
import jax, numpy as np
from vtr_jax.checkpoint import load_retriever, write_retriever
from vtr_jax.sharding import make_mesh

directory, weights = sys.argv[1:]
expected = np.load(weights)
for sizes in ({"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 8}):
    retriever = load_retriever(directory, make_mesh(sizes))
    leaves = jax.tree_util.tree_leaves_with_path(retriever.params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    assert sorted(names) == sorted(expected)
    for name, (_, leaf) in zip(names, leaves):
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
        assert len(leaf.devices()) == 8, name
    split = retriever.params["visual"]["transformer"]["blocks"]["mlp"]["fc"]["kernel"]
    assert split.addressable_shards[0].data.size < split.size
write_retriever(directory + "-again", retriever.config, retriever.params)
"""


def test_any_mesh_reads_what_another_wrote(written, retriever, tmp_path):
    leaves = jax.tree_util.tree_leaves_with_path(retriever.params)
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves)
    weights = {name: np.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}
    np.savez(tmp_path / "weights.npz", **weights)
    copied = Path(shutil.copytree(written, tmp_path / "copied"))
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-c", ON_EIGHT_DEVICES, copied, tmp_path / "weights.npz"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(load_retriever(f"{copied}-again").params, retriever.params)


def test_no_directory_and_no_description(tmp_path):
    for directory in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileNotFoundError, match="not a retriever directory .*vtr convert"):
            load_retriever(directory)


def test_newer_format_is_refused(copied):
    path = copied / "retriever.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(ValueError, match=r"retriever\.json: format version 2, .* up to 1; upgrade"):
        load_retriever(copied)


def change(field, **values):
    def changed(description):
        return {**description, field: {**description[field], **values}}

    return changed


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: [], "damaged, expected JSON with format_version"),
        (lambda d: {}, "damaged, expected JSON with format_version"),
        (lambda d: {**d, "format_version": "one"}, "damaged, expected JSON with format_version"),
        (lambda d: {"format_version": 1}, "retriever.json: 'retriever'"),
        (lambda d: {**d, "retriever": 3}, "the description of the retriever cannot be read"),
        (change("retriever", recipe="drl2"), "expected one of clip, clip4clip.*, got 'drl2'"),
        (change("retriever", options={"sim_hedder": 1}), "did you mean sim_header"),
        (change("retriever", vision={"depth": 3}), "cannot be read: .*'depth'"),
        (change("retriever", text=None), "the description of the retriever cannot be read"),
    ],
)
def test_damaged_description_is_refused(edit, words, copied):
    path = copied / "retriever.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=words) as caught:
        load_retriever(copied)
    assert str(path) in str(caught.value)


def test_a_description_that_is_cut_off_is_refused(copied):
    path = copied / "retriever.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="damaged, expected JSON"):
        load_retriever(copied)


def test_missing_weights_are_refused(copied):
    shutil.rmtree(copied / "weights")
    with pytest.raises(FileNotFoundError, match="no weights; checkpoints there: none"):
        load_retriever(copied)


def test_a_missing_file_of_the_weights_is_refused(copied):
    path = copied / "weights" / "_METADATA"
    path.unlink()
    with pytest.raises(ValueError, match=f"{path}: expected .* bytes, found 0: the directory is"):
        load_retriever(copied)


def test_cut_off_weights_are_refused(copied):
    files = [path for path in (copied / "weights").rglob("*") if path.parent.name == "d"]
    largest = max(files, key=lambda path: path.stat().st_size)
    size = largest.stat().st_size
    os.truncate(largest, size // 2)
    with pytest.raises(ValueError, match=f"expected {size} bytes, found {size // 2}: the director"):
        load_retriever(copied)


@pytest.mark.parametrize("lost", ["_METADATA", "manifest.ocdbt"])
def test_a_damaged_checkpoint_of_a_run_is_refused(lost, run_directory, tmp_path):
    copied = Path(shutil.copytree(run_directory, tmp_path / "copied"))
    (copied / "checkpoints" / "2" / "retriever" / lost).unlink()
    with pytest.raises(ValueError, match=f"not as they were written .*{lost}"):
        load_retriever(copied)


# Orbax abandons its other reads when one fails; what becomes of them is not ours.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("lost", ["_METADATA", "manifest.ocdbt"])
def test_damage_without_checksums_is_still_refused(lost, run_directory, tmp_path):
    """A run that was killed before it had recorded them: Orbax notices, we say where."""
    copied = Path(shutil.copytree(run_directory, tmp_path / "copied"))
    shutil.rmtree(copied / "checksums")
    (copied / "checkpoints" / "2" / "retriever" / lost).unlink()
    with pytest.raises(ValueError, match="retriever: the saved arrays are damaged or") as caught:
        load_retriever(copied)
    gc.collect()
    message = str(caught.value)
    assert len(message) < 500 and "tensorstore_spec" not in message and "\n" not in message
    assert (
        message.endswith("; step=1 or 3 can be chosen instead")
        and "copy this folder again" in message
    )
    assert caught.value.__cause__ is not None


def test_all_that_does_not_fit_is_in_one_error(retriever, tmp_path):
    params = {**retriever.params, "extra": {"kernel": np.zeros(3, np.float32)}}
    del params["logit_scale"]
    params["text"] = {**params["text"], "projection": np.zeros((32, 5), np.float32)}
    write_retriever(tmp_path / "r", retriever.config, params)
    with pytest.raises(ValueError, match="does not fit its description") as caught:
        load_retriever(tmp_path / "r")
    message = str(caught.value)
    assert "missing: params/logit_scale" in message
    assert "unexpected: params/extra/kernel" in message
    assert "params/text/projection: expected (32, 32), found (32, 5)" in message
    assert message.count("\n") == 3


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_is_not_overwritten(kind, retriever, tmp_path):
    target = tmp_path / "there"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="there exists already; choose another directory"):
        write_retriever(target, retriever.config, retriever.params)
    assert (target if kind == "file" else target / "mine").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_empty_directory_and_missing_parents_are_fine(tiny_retriever, tmp_path):
    retriever = tiny_retriever()
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "empty", tmp_path / "a" / "b"):
        write_retriever(target, retriever.config, retriever.params)
        assert_same(load_retriever(target).params, retriever.params)


@pytest.mark.parametrize("step", ["_write_weights", "write_description"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_nothing(step, error, retriever, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(checkpoint, step, fail)
    with pytest.raises(type(error)):
        write_retriever(tmp_path / "r", retriever.config, retriever.params)
    assert list(tmp_path.iterdir()) == []


KILLED_WHILE_WRITING = """
import os, signal, sys

import numpy as np

import vtr_jax.checkpoint as checkpoint
from vtr_jax.models.retriever import init_retriever

description = checkpoint.read_description(sys.argv[1])["retriever"]
checkpoint.write_description = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
config = checkpoint.config_from_json(description)
checkpoint.write_retriever(sys.argv[2], config, {"logit_scale": np.zeros(())})
"""


def test_what_a_kill_leaves_is_removed_by_the_next_write(written, retriever, tmp_path):
    """It is hidden, and no later than the next attempt at the same place."""
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(written), str(tmp_path / "r")]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    (left,) = tmp_path.iterdir()
    assert left.name == ".r.partial"
    assert (left / "weights").is_dir()
    write_retriever(tmp_path / "r", retriever.config, retriever.params)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert_same(load_retriever(tmp_path / "r").params, retriever.params)


def test_two_writers_of_one_directory(retriever, tmp_path):
    with (
        only_process(tmp_path / ".r.partial", "writing r"),
        pytest.raises(BlockingIOError, match="process .* is writing .*r; wait for it or stop it"),
    ):
        write_retriever(tmp_path / "r", retriever.config, retriever.params)
    write_retriever(tmp_path / "r", retriever.config, retriever.params)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_other_bytes_of_the_same_size_are_noticed(copied):
    """One bit of the weights, which Orbax would load without a word."""
    path = max((copied / "weights").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not as they were written") as caught:
        load_retriever(copied)
    name = path.relative_to(copied).as_posix()
    assert f"({name})" in str(caught.value).splitlines()[-1]


def test_directories_without_checksums_are_still_read(copied, retriever):
    """As the first version wrote them."""
    description = read_description(copied)
    del description["sha256"]
    (copied / "retriever.json").write_text(json.dumps(description))
    assert_same(load_retriever(copied).params, retriever.params)


@pytest.fixture(scope="module")
def run_directory(tiny_retriever, tmp_path_factory):
    """What training leaves: steps 1, 2 and 3, of which 2 is the best; logit_scale is the step."""
    retriever = tiny_retriever()
    workdir = tmp_path_factory.mktemp("run")
    write_description(workdir, retriever.config, {"selection": {"metric": "t2v R@1"}})
    checkpoints = RunCheckpoints(workdir, keep_last=3, metric="t2v R@1")
    for step, recall in ((1, 10.0), (2, 30.0), (3, 20.0)):
        params = {**retriever.params, "logit_scale": np.array(step, np.float32)}
        state = {"params": params, "state": {}, "opt_state": {"count": np.array(step)}}
        checkpoints.save(step, state)
        checkpoints.add_scores(step, {"t2v R@1": recall})
    checkpoints.close()
    return workdir


@pytest.mark.parametrize(("asked", "step"), [(None, 2), (1, 1), (3, 3)])
def test_which_checkpoint_of_a_run(asked, step, run_directory):
    assert load_retriever(run_directory, step=asked).params["logit_scale"] == step


def test_best_falls_back_to_the_last(run_directory):
    assert best_checkpoint_step(run_directory, "t2v R@1") == 2
    assert best_checkpoint_step(run_directory, "v2t R@1") == 3
    assert best_checkpoint_step(run_directory, None) == 3
    assert best_checkpoint_step(run_directory / "elsewhere", None) is None


def test_equal_checkpoints_give_the_later(tmp_path):
    for step in (4, 12):
        (tmp_path / "checkpoints" / str(step) / "retriever").mkdir(parents=True)
        metrics = tmp_path / "checkpoints" / str(step) / "metrics"
        metrics.mkdir()
        (metrics / "metrics").write_text('{"t2v R@1": 5.0}')
    (tmp_path / "checkpoints" / "20").mkdir()  # killed before the retriever was complete
    assert best_checkpoint_step(tmp_path, "t2v R@1") == 12


def test_a_step_that_is_not_there_is_refused(run_directory, written):
    with pytest.raises(FileNotFoundError, match=r"no weights of step 7; .* there: \[1, 2, 3\]"):
        load_retriever(run_directory, step=7)
    with pytest.raises(FileNotFoundError, match="no weights of step 1; checkpoints there: none"):
        load_retriever(written, step=1)


def test_another_recipe_does_not_fit(copied, retriever):
    smaller = dataclasses.replace(retriever.config, recipe="clip4clip", sizes=())
    write_description(copied, smaller)
    with pytest.raises(ValueError, match="missing: params/aggregation|wrong shape"):
        load_retriever(copied)
