"""Runs that are asked to stop, shut out, or lose their data: what they did is kept."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

import vtr_jax.data.frame_store.store as store_module
from vtr_jax.checkpoint import checkpoint_scores, checkpoint_steps, load_retriever
from vtr_jax.data.frame_store.store import DamagedStore
from vtr_jax.lock import only_process
from vtr_jax.training import stop_request
from vtr_jax.training.checkpoints import RunCheckpoints
from vtr_jax.training.loop import train
from vtr_jax.training.run import Run
from vtr_jax.training.run_log import RunLog, read_log
from vtr_jax.training.stop_request import Interrupted, stop_requests


def last_words(process, seconds=60):
    """What a process still says until it ends, which it must do in so many seconds."""
    try:
        return process.communicate(timeout=seconds)
    finally:
        process.kill()


def test_sigterm_saves_and_exits_with_75(
    soak_kills, train_command, tiny_config, tiny_run, tmp_path
):
    workdir = tmp_path / "run"
    with subprocess.Popen(
        train_command(workdir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and soak_kills.last_step(workdir) < 2:
            time.sleep(0.002)
        process.terminate()
        out, errors = last_words(process)
    assert process.returncode == 75, errors[-3000:]
    assert "SIGTERM: saving behind the step that runs" in errors
    step = checkpoint_steps(workdir)[-1]
    assert 2 <= step < 32 and f"SIGTERM: saved after step {step}; the same" in out
    train(tiny_config(), workdir)
    assert soak_kills.differences(workdir, tiny_run) == []


def test_a_second_signal_ends_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        assert not stop.reached(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.reached(1) and stop.signal == signal.SIGINT
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert stop.interruption(1).code == 130
    assert signal.getsignal(signal.SIGTERM) == before


def test_nothing_is_waited_for_where_nothing_is_left_to_save(capfd):
    with stop_requests() as stop, pytest.raises(Interrupted) as raised, stop.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")
    assert raised.value.code == 75
    assert "SIGTERM: nothing was left to save; the same command goes on" in capfd.readouterr().err
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        # It came just before: noted, and obeyed as soon as nothing is left to save.
        with pytest.raises(Interrupted), stop.at_once():
            pytest.fail("was not ended")
        assert not stop.ends_at_once


def test_sigterm_while_libraries_are_loaded_exits_with_75(train_command, tmp_path, monkeypatch):
    # An import of JAX that takes for ever.
    (tmp_path / "jax.py").write_text("print('loading', flush=True)\nwhile True: pass\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with subprocess.Popen(
        train_command(tmp_path / "run"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "loading\n"
        process.terminate()
        _, errors = last_words(process)
    assert process.returncode == 75
    assert errors.startswith("SIGTERM: nothing was left to save; the same command goes on")
    assert not (tmp_path / "run").exists()


def test_sigterm_while_the_other_processes_are_waited_for_exits_with_75(train_command, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    options = [f"--coordinator_address=127.0.0.1:{address[1]}", "--num_processes=2"]
    command = [*train_command(tmp_path / "run"), *options, "--process_id=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for_a_server(process, address)
            time.sleep(1)  # from there it is not far to the place where it waits for its partner
            process.terminate()
            _, errors = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 75, errors[-3000:]
    assert "SIGTERM: nothing was left to save" in errors


def wait_for_a_server(process, address):
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
            return
        time.sleep(0.05)
    pytest.fail(f"nobody listens at {address}")


@pytest.fixture
def exit_codes(monkeypatch):
    """The codes with which this process would have ended."""
    codes, before = [], signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(stop_request.os, "_exit", codes.append)
    yield codes
    signal.signal(signal.SIGTERM, before)


def test_sigterm_behind_a_run_is_no_reason_to_start_it_again(exit_codes, capfd):
    stop_request.end_before_the_run()
    os.kill(os.getpid(), signal.SIGTERM)
    assert exit_codes == [75]
    with pytest.raises(DamagedStore), stop_requests():
        raise DamagedStore("not finished")
    os.kill(os.getpid(), signal.SIGTERM)
    assert exit_codes == [75, 75] and "nothing was left" in capfd.readouterr().err
    with stop_requests():
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert exit_codes == [75, 75, 0] and capfd.readouterr().err == ""


def test_signals_are_obeyed_where_nobody_reads_what_they_say(monkeypatch):
    def write(descriptor, text):
        raise BrokenPipeError

    monkeypatch.setattr(stop_request.os, "write", write)
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reached(1)
    with pytest.raises(Interrupted), stop_requests() as stop, stop.at_once():
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_goes_on_when_nobody_reads_its_output(train_command, tiny_run, tmp_path, soak_kills):
    workdir = tmp_path / "run"
    with subprocess.Popen(
        train_command(workdir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert "32 steps in all" in process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        _, errors = last_words(process, seconds=180)
    assert process.returncode == 0, errors[-3000:]
    told = "standard output: [Errno 32] Broken pipe; the run goes on without it\n"
    assert errors.count(told) == errors.count("standard output") == 1
    assert soak_kills.differences(workdir, tiny_run) == []


def killed_in_its_evaluation(config, workdir, error=None):
    """A run that is told to stop, or fails, in the middle of its first evaluation."""

    def evaluate(run):
        if error:
            raise error
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on evaluating")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Run, "evaluate", evaluate)
        train(config, workdir)


def test_sigterm_in_an_evaluation_ends_it_and_it_is_made_up_for(
    tiny_config, tiny_run, tmp_path, soak_kills
):
    workdir = tmp_path / "run"
    for _ in range(2):  # the second time before anything is trained, which costs nothing
        with pytest.raises(Interrupted) as raised:
            killed_in_its_evaluation(tiny_config(), workdir)
        assert raised.value.code == 75
        assert checkpoint_steps(workdir) == [8] and checkpoint_scores(workdir, 8) == {}
        assert not any(record["kind"] == "evaluation" for record in read_log(workdir))
    train(tiny_config(), workdir)
    assert soak_kills.differences(workdir, tiny_run) == []


def test_an_evaluation_whose_scores_were_not_saved_is_not_logged_twice(
    tiny_config, tiny_run, tmp_path, monkeypatch, soak_kills
):
    workdir = tmp_path / "run"

    def killed(checkpoints, step, metrics):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RunCheckpoints, "add_scores", killed)
        train(tiny_config(), workdir)
    assert [r["step"] for r in read_log(workdir) if r["kind"] == "evaluation"] == [8]
    assert checkpoint_scores(workdir, 8) == {}
    train(tiny_config(), workdir)
    assert soak_kills.differences(workdir, tiny_run) == []


def test_one_process_a_workdir(tiny_config, tmp_path):
    with (
        only_process(tmp_path / "run", "training"),
        pytest.raises(BlockingIOError, match=f"process {os.getpid()} on .* is training; wait"),
    ):
        train(tiny_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # nothing but the lock came into it


def test_a_store_that_cannot_be_read_any_more(
    tiny_config, tiny_run, tmp_path, monkeypatch, soak_kills
):
    workdir, reads = tmp_path / "run", iter(range(10**6))
    pread = os.pread

    def fails(descriptor, length, offset):
        if next(reads) >= 120:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, length, offset)

    with monkeypatch.context() as patched:
        patched.setattr(store_module.os, "pread", fails)
        message = "tfrecord-.*: record of clip 'train_.*' cannot be read: .*Input/output error"
        with pytest.raises(DamagedStore, match=message):
            train(tiny_config(), workdir)
    # What was trained until then is there, not only what was due.
    assert checkpoint_steps(workdir)[0] == 8
    assert checkpoint_steps(workdir)[-1] not in (0, 8)
    train(tiny_config(), workdir)
    assert soak_kills.differences(workdir, tiny_run) == []


def test_a_store_that_is_emptied_in_mid_run(tiny_config, tiny_store, tmp_path, monkeypatch):
    """Its files are deleted, which an open one survives, or cut off, which is named."""
    store = shutil.copytree(tiny_store, tmp_path / "store")
    workdir, reads = tmp_path / "run", iter(range(10**6))
    (shard,) = store.glob("*.tfrecord-*")
    pread = os.pread

    def meanwhile(descriptor, length, offset):
        count = next(reads)
        if count == 40:
            shard.rename(tmp_path / "gone")
        elif count == 120:
            os.truncate(tmp_path / "gone", 0)
        return pread(descriptor, length, offset)

    with monkeypatch.context() as patched:
        patched.setattr(store_module.os, "pread", meanwhile)
        with pytest.raises(DamagedStore, match=f"{shard}: record of clip 'train_.*' is damaged"):
            train(tiny_config({"data.store": str(store)}), workdir)
    assert checkpoint_steps(workdir)[0] == 8
    assert load_retriever(workdir).config.recipe == "clip4clip"
    with pytest.raises(DamagedStore, match=rf"1 of 1 record files are missing: {shard.name}"):
        train(tiny_config({"data.store": str(store)}), workdir)


@pytest.mark.parametrize(
    "error", [DamagedStore("a shard is gone"), RuntimeError("RESOURCE_EXHAUSTED: out of memory")]
)
def test_an_evaluation_that_fails_costs_no_training(tiny_config, tmp_path, error):
    with pytest.raises(type(error), match=str(error)):
        killed_in_its_evaluation(tiny_config({"log_every": 100}), tmp_path / "run", error)
    assert checkpoint_steps(tmp_path / "run") == [8]
    assert checkpoint_scores(tmp_path / "run", 8) == {}


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    log = RunLog(tmp_path, 0, tensorboard=False)

    class Full:
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    log.write("train", 1, {"loss": float("nan"), "found": "loss nan"})
    log._file.close()
    log._file = Full()
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        log.write("train", 2, {"loss": 1.0})
    assert read_log(tmp_path) == [{"kind": "train", "step": 1, "loss": None, "found": "loss nan"}]
