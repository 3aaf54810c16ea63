"""One process at a time in a directory."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from vtr_jax.lock import LOCK_FILE, only_process

HOLD = """
import sys, time
from vtr_jax.lock import only_process
with only_process(sys.argv[1], "training"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path):
    with (
        only_process(tmp_path / "new", "training"),
        pytest.raises(OSError, match=rf"process {os.getpid()} on .* is training; wait for it"),
        only_process(tmp_path / "new", "training"),
    ):
        pass


def test_the_lock_is_free_again_after_use_and_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), only_process(tmp_path, "training"):
        raise ZeroDivisionError
    with only_process(tmp_path, "training"):
        assert str(os.getpid()) in (tmp_path / LOCK_FILE).read_text()


def test_a_folder_that_nothing_came_into_is_gone_again(tmp_path):
    with pytest.raises(ZeroDivisionError), only_process(tmp_path / "refused", "training"):
        raise ZeroDivisionError
    assert not (tmp_path / "refused").exists()
    with only_process(tmp_path / "used", "training"):
        (tmp_path / "used" / "run.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    with only_process(tmp_path / "empty", "training"):
        pass
    assert (tmp_path / "used" / "run.json").exists() and (tmp_path / "empty").exists()


def test_a_killed_holder_is_no_obstacle(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OSError, match=f"process {holder.pid} "), only_process(tmp_path, "x"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    with only_process(tmp_path, "training"):
        pass


def test_a_file_where_a_folder_is_expected_is_named(tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    with (
        pytest.raises(NotADirectoryError, match=r"notes\.md: a file, expected a folder"),
        only_process(tmp_path / "notes.md", "training"),
    ):
        pass
    assert (tmp_path / "notes.md").read_text() == "mine"


def test_the_name_of_an_earlier_holder_is_not_given(tmp_path):
    """A new holder has locked the file, but its name is not in it yet."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    earlier = f"process {dead.pid} on {socket.gethostname()}"
    (tmp_path / LOCK_FILE).write_text(earlier)
    with (tmp_path / LOCK_FILE).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def name():
            lock.truncate(0)
            lock.write("process 1 on here")
            lock.flush()

        writer = threading.Timer(0.2, name)
        writer.start()
        with pytest.raises(BlockingIOError, match="process 1 on here"), only_process(tmp_path, "x"):
            pass
        writer.join()


def test_a_lock_whose_file_was_removed_keeps_nobody_out(tmp_path, monkeypatch):
    """The holder that made the folder removes it just before the next one locks its old file."""
    flock, removed = fcntl.flock, []

    def remove_first(file, operation):
        if not removed:
            removed.append((tmp_path / "new" / LOCK_FILE).unlink())
        flock(file, operation)

    monkeypatch.setattr("vtr_jax.lock.fcntl.flock", remove_first)
    with only_process(tmp_path / "new", "training"):
        assert str(os.getpid()) in (tmp_path / "new" / LOCK_FILE).read_text()
        monkeypatch.undo()
        with pytest.raises(BlockingIOError), only_process(tmp_path / "new", "training"):
            pass


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_said_to_be_one(tmp_path, monkeypatch, code):
    def refuse(path, *arguments, **options):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(OSError) as error, only_process(tmp_path, "training"):
        pass
    assert str(error.value).startswith(f"{tmp_path}: ")
    assert os.strerror(code) in str(error.value) and "[Errno" not in str(error.value)


def test_a_file_system_without_locks_is_said_to_be_one(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("vtr_jax.lock.fcntl.flock", refuse)
    with pytest.raises(OSError, match="does not support locks"), only_process(tmp_path, "x"):
        pass
