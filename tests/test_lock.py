"""One process at a time in a directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

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
