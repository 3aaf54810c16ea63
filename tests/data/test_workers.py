"""Worker processes that crash, and what they import; files written at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from vtr_jax.data.frame_store import StoreSettings
from vtr_jax.data.frame_store.workers import run_jobs
from vtr_jax.files import write_atomically


class Killed(BaseException):
    """Stands for the end of the process."""


# The jobs below are programs and the work is exec: worker processes can import nothing from here.
CRASH = "import os; os._exit(3)"


def test_a_job_that_kills_its_process_is_found_and_the_others_are_done():
    jobs = ["pass"] * 4 + [CRASH] + ["import time; time.sleep(0.01)"] * 6
    results = list(run_jobs(jobs, exec, lambda job: "crashed", workers=2))
    assert sorted(job for job, _ in results) == sorted(jobs)
    assert all((result == "crashed") == (job == CRASH) for job, result in results)


def test_an_exception_in_a_worker_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(run_jobs(["pass", "1 / 0"], exec, lambda job: None, workers=1))


def test_workers_import_neither_tensorflow_nor_jax():
    program = (
        "import sys, vtr_jax.data.frame_store.prepare; "
        "print({'tensorflow', 'jax', 'tensorflow_datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_settings_survive_json():
    settings = StoreSettings(2, 48, "jpeg", 90, 3)
    assert StoreSettings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings
    assert settings.differences(settings) == []


def test_settings_of_a_former_version_come_without_what_nothing_read():
    noted = {"framerate": 1, "encoding": "png", "jpeg_quality": 95, "num_frames": 12}
    assert StoreSettings.from_dict(noted) == StoreSettings(encoding="png")
    xpool = StoreSettings.from_dict({**noted, "frame_rule": "xpool", "num_frames": 5})
    assert (xpool.framerate, xpool.num_frames, xpool.sampling.num_frames) == (None, 5, 5)


def test_an_atomic_write_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomically(path, np.arange(3, dtype=np.uint8).tobytes())
    assert path.read_bytes() == b"\0\1\2"
