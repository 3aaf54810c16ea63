"""Which checkpoints are kept, and that what was saved is what comes back."""

from __future__ import annotations

import errno
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

from vtr_jax.checkpoint import best_checkpoint_step, checksums_file
from vtr_jax.restore import restore_tree
from vtr_jax.sharding import make_mesh
from vtr_jax.training.checkpoints import RunCheckpoints

METRIC = "t2v R@1"


def state_of(value, shape=(3, 4)):
    weights = jnp.full(shape, value, jnp.float32)
    return {
        "params": {"text": {"projection": weights}},
        "state": {},
        "opt_state": {"count": jnp.int32(7), "mu": {"text": {"projection": -weights}}},
    }


def steps_in(folder):
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def save(checkpoints, step, score=None):
    """Saved, then evaluated where there is a score, as a run does."""
    checkpoints.save(step, state_of(float(step)))
    if score is not None:
        checkpoints.add_scores(step, {METRIC: score, "t2v R@5": 100.0 - score})


@pytest.fixture
def checkpoints(tmp_path):
    opened = RunCheckpoints(tmp_path, keep_last=2, metric=METRIC)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ({1: 10.0, 2: 30.0, 3: 20.0, 4: 20.0, 5: 10.0}, [2, 4, 5]),
        ({1: 10.0, 2: 20.0, 3: 30.0}, [2, 3]),
        ({1: 20.0, 2: 10.0, 3: 10.0, 4: 30.0}, [3, 4]),
        # Of equal scores the later one is the best, as in the originals.
        ({1: 30.0, 2: 30.0, 3: 20.0, 4: 10.0}, [2, 3, 4]),
        # Saved between two evaluations, or without any.
        ({1: 30.0, 2: None, 3: None, 4: None}, [1, 3, 4]),
        ({1: None, 2: None, 3: None}, [2, 3]),
    ],
)
def test_the_last_ones_and_the_best_are_kept(checkpoints, tmp_path, scores, kept):
    for step, score in scores.items():
        save(checkpoints, step, score)
    checkpoints.finish()
    assert steps_in(checkpoints.folder) == kept
    assert checkpoints.latest_step() == max(scores)
    known = {step: score for step, score in scores.items() if score is not None}
    best = max(known, key=lambda step: (known[step], step)) if known else max(scores)
    assert best_checkpoint_step(tmp_path, METRIC) == best


def test_what_was_saved_comes_back_bit_by_bit(checkpoints):
    state = state_of(0.1)
    checkpoints.save(3, state)
    checkpoints.finish()
    restored = checkpoints.restore(3, jax.eval_shape(lambda: state), make_mesh())
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, state))


def test_a_save_is_not_disturbed_by_the_steps_that_follow(checkpoints):
    """The next step overwrites the memory of a state that is still being written."""
    step_fn = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = state_of(1.0, shape=(2000, 1000))
    checkpoints.save(1, state)
    for _ in range(20):
        state = step_fn(state)
    jax.block_until_ready(state)
    checkpoints.finish()
    restored = checkpoints.restore(1, jax.eval_shape(lambda: state), make_mesh())
    np.testing.assert_array_equal(restored["params"]["text"]["projection"], 1.0)
    np.testing.assert_array_equal(state["params"]["text"]["projection"], 21.0)


def test_a_new_process_finds_the_newest_and_removes_what_was_left_half_written(tmp_path):
    first = RunCheckpoints(tmp_path, keep_last=2, metric=METRIC)
    assert first.latest_step() is None
    save(first, 4, 1.0)
    first.close()
    torn = first.folder / "8.orbax-checkpoint-tmp"
    torn.mkdir()
    (torn / "retriever").mkdir()
    second = RunCheckpoints(tmp_path, keep_last=2, metric=METRIC)
    assert second.latest_step() == 4
    save(second, 8, 0.5)
    save(second, 12, 0.25)
    save(second, 16, 0.125)
    second.close()
    # The best of the first process counts in the second.
    assert steps_in(second.folder) == [4, 12, 16]
    assert not torn.exists()


def test_a_checkpoint_of_another_shape_is_refused_by_name(checkpoints):
    checkpoints.save(1, state_of(1.0))
    checkpoints.finish()
    with pytest.raises(ValueError, match=r"params/text/projection: expected \(5, 4\), found"):
        checkpoints.restore(1, state_of(1.0, shape=(5, 4)), make_mesh())
    bigger = state_of(1.0)
    bigger["opt_state"]["nu"] = jnp.zeros(2)
    with pytest.raises(ValueError, match="missing: nu"):
        checkpoints.restore(1, bigger, make_mesh())


@pytest.mark.parametrize("recorded", [True, False])
def test_a_damaged_checkpoint_is_refused_with_its_folder(checkpoints, tmp_path, recorded):
    checkpoints.save(1, state_of(1.0, shape=(300, 300)))
    checkpoints.finish()
    if not recorded:  # as where the run was killed right behind the save
        checksums_file(tmp_path, 1).unlink()
    for file in (checkpoints.folder / "1" / "retriever").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-200])
    found = "1/retriever/.*: damaged, sha256 is" if recorded else "1/retriever: the saved arrays"
    with pytest.raises(ValueError, match=found):
        checkpoints.restore(1, state_of(1.0, shape=(300, 300)), make_mesh())


def flip_a_bit(folder):
    """Damages the largest file of a folder without changing its size; returns its name."""
    path = max(folder.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else -1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path.name


def test_the_newest_whole_checkpoint_is_resumed_and_nothing_is_destroyed(checkpoints, tmp_path):
    for step in (1, 2, 3):
        save(checkpoints, step, 10.0 - step)
    checkpoints.finish()
    assert sorted(path.name for path in (tmp_path / "checksums").iterdir()) == [
        "1.json",
        "2.json",
        "3.json",
    ]
    name = flip_a_bit(checkpoints.folder / "3" / "optimizer")
    (checkpoints.folder / "2" / "retriever" / "_METADATA").unlink()
    step, state, notes = checkpoints.restore_newest(state_of(0.0), make_mesh())
    assert step == 1 and state["params"]["text"]["projection"][0, 0] == 1.0
    assert "step 3 is damaged, moved to" in notes[0] and name in notes[0]
    assert "_METADATA: missing" in notes[1]
    # Where they lie now, nothing is to be copied to.
    assert not any("copy" in note for note in notes)
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["2.1", "3.1"]
    # The run saves these steps again.
    checkpoints.save(2, state_of(2.0))
    checkpoints.finish()
    assert steps_in(checkpoints.folder) == [1, 2]
    checkpoints.restore(2, state_of(0.0), make_mesh())


def test_where_no_checkpoint_is_whole_everything_stays(checkpoints, tmp_path):
    checkpoints.save(4, state_of(1.0))
    checkpoints.finish()
    flip_a_bit(checkpoints.folder / "4" / "retriever")
    with pytest.raises(ValueError, match=r"(?s)no checkpoint can be resumed:.*everything is left"):
        checkpoints.restore_newest(state_of(0.0), make_mesh())
    assert steps_in(checkpoints.folder) == [4] and not (tmp_path / "damaged").exists()


def tensorstore_says(cause):
    """Raises what Orbax makes of an error that TensorStore met while it read."""

    def fail(*args, **kwargs):
        raise Exception("Encountered error while reading array index: (). See more") from cause

    return fail


DENIED = "PERMISSION_DENIED: Error reading \"a/0.0\": Permission denied [os_error_code='13']"
ON_THE_DEVICE = "RESOURCE_EXHAUSTED: Out of memory allocating 4096 bytes"


@pytest.mark.parametrize(
    ("cause", "kind", "message"),
    [
        (ValueError(DENIED), PermissionError, r"Permission denied\)?.*: '.*/2/retriever'"),
        (OSError(errno.EMFILE, "Too many open files"), OSError, "Too many open files.*/2/retr"),
        (OSError(errno.EIO, "Input/output error"), OSError, "Input/output error.*/2/retriever"),
        (MemoryError("no room"), MemoryError, r"2/retriever: out of memory .*no room"),
        (RuntimeError(ON_THE_DEVICE), MemoryError, r"2/retriever: out of memory .*4096 bytes"),
    ],
)
def test_what_the_machine_refuses_is_no_damage(
    checkpoints, tmp_path, monkeypatch, cause, kind, message
):
    for step in (1, 2):
        save(checkpoints, step)
    checkpoints.finish()
    with monkeypatch.context() as patched:
        fails = tensorstore_says(cause)
        patched.setattr(orbax.checkpoint.StandardCheckpointHandler, "restore", fails)
        with pytest.raises(kind, match=message) as caught:
            checkpoints.restore_newest(state_of(0.0), make_mesh())
    assert "os_error_code" not in str(caught.value) and "damaged" not in str(caught.value)
    # Nothing is moved: once the machine lets it, the newest is resumed.
    assert steps_in(checkpoints.folder) == [1, 2] and not (tmp_path / "damaged").exists()
    assert checkpoints.restore_newest(state_of(0.0), make_mesh())[0] == 2


def test_too_many_open_files_are_no_damage(checkpoints, monkeypatch):
    """The description of the arrays is the first that is opened."""
    save(checkpoints, 1)
    checkpoints.finish()

    def fail(*args, **kwargs):
        raise OSError(errno.EMFILE, "Too many open files", "_METADATA")

    monkeypatch.setattr(orbax.checkpoint.StandardCheckpointHandler, "metadata", fail)
    with pytest.raises(OSError, match="Too many open files.*/1/retriever") as caught:
        checkpoints.restore_newest(state_of(0.0), make_mesh())
    assert caught.value.errno == errno.EMFILE


def test_the_average_is_the_retriever_and_the_rest_comes_back_too(checkpoints):
    state = {**state_of(1.0), "guard": {"refused": jnp.int32(3)}}
    state["ema"] = jax.tree.map(lambda leaf: leaf / 2, state["params"])
    checkpoints.save(1, state)
    checkpoints.finish()
    restored = checkpoints.restore(1, jax.eval_shape(lambda: state), make_mesh())
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, state))
    saved = restore_tree(
        checkpoints.folder / "1" / "retriever",
        jax.tree.map(jnp.zeros_like, {"params": state["params"], "state": {}}),
    )
    assert saved["params"]["text"]["projection"][0, 0] == 0.5


def test_scores_can_follow_a_checkpoint(checkpoints, tmp_path):
    save(checkpoints, 1, 10.0)
    checkpoints.save(2, state_of(2.0))
    checkpoints.finish()
    assert checkpoints.has_scores(1) and not checkpoints.has_scores(2)
    checkpoints.add_scores(2, {METRIC: 20.0})
    checkpoints.finish()
    assert best_checkpoint_step(tmp_path, METRIC) == 2
    for step in (3, 4, 5):
        checkpoints.save(step, state_of(1.0))
    checkpoints.finish()
    assert steps_in(checkpoints.folder) == [2, 4, 5]
    checkpoints.restore(2, state_of(0.0), make_mesh())


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of less than two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1700k", "tmpfs", folder],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_and_costs_no_checkpoint(small_disk):
    """Two checkpoints of 0.6 MB fit on it, the third does not."""
    state = state_of(1.0, shape=(300, 250))
    noise = jax.random.normal(jax.random.key(0), (300, 250))  # cannot be compressed
    state["params"]["text"]["projection"] = state["opt_state"]["mu"]["text"]["projection"] = noise
    checkpoints = RunCheckpoints(small_disk, keep_last=5, metric=METRIC)
    with pytest.raises(OSError, match=r"/disk/checkpoints: a checkpoint could not be written \("):
        for step in range(1, 6):
            checkpoints.save(step, state)
    checkpoints.close()
    kept = steps_in(checkpoints.folder)
    assert kept and kept[-1] < 5
    again = RunCheckpoints(small_disk, keep_last=5, metric=METRIC)
    step, restored, notes = again.restore_newest(state, make_mesh())
    again.close()
    assert (step, notes) == (kept[-1], [])
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, state))


@pytest.mark.parametrize("keep_last", [0, -1])
def test_keeping_nothing_is_refused(tmp_path, keep_last):
    with pytest.raises(ValueError, match=f"keep_last: expected at least 1 .*, got {keep_last}"):
        RunCheckpoints(tmp_path, keep_last, METRIC)
