"""The scripts: each answers --help, and a .venv that is of no use is told from one that is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    path
    for folder in ("scripts", "benchmarks")
    for path in (REPOSITORY / folder).iterdir()
    if path.suffix in (".sh", ".py")
)
NO_COMMAND = (
    "demo_report.py",
    "interleaved.py",
    "train_step_jax.py",
    "train_step_settings.py",
    "train_step_torch.py",
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_answers_help(script, tmp_path):
    if script.name in NO_COMMAND:
        pytest.skip(f"{script.name} is a part of another script")
    program = "bash" if script.suffix == ".sh" else sys.executable
    done = subprocess.run(
        [program, script, "--help"], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 10 and "installing" not in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.fixture
def venv_problem(tmp_path):
    """Says what scripts/environment.sh finds wrong with .venv in a folder."""
    command = ["bash", "-c", f". {REPOSITORY / 'scripts' / 'environment.sh'}; venv_problem"]

    def ask(folder=tmp_path):
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
        return done.stdout.strip()

    return ask


def test_a_venv_that_is_of_no_use_is_told(venv_problem, tmp_path):
    assert "Python is gone" in venv_problem()
    home = tmp_path / ".venv"
    venv.create(home, symlinks=True)
    assert venv_problem() == "it has no pip"
    (home / "bin" / "python").unlink()
    (home / "bin" / "python").symlink_to("/nowhere/python")
    assert "Python is gone" in venv_problem()


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="runs in no virtual environment")
def test_a_good_venv_is_good_and_its_copy_is_not(venv_problem, tmp_path):
    (tmp_path / ".venv").symlink_to(sys.prefix)
    assert venv_problem() == ""
    other = tmp_path / "other"
    venv.create(other / ".venv", symlinks=True)
    shutil.copy(Path(sys.prefix) / "bin" / "pip", other / ".venv" / "bin")
    pip = other / ".venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "pip"
    pip.mkdir()
    (pip / "__init__.py").write_text("")
    assert venv_problem(other) == "it was made in another folder"


@pytest.fixture
def repository(tmp_path):
    """A folder with the scripts, and a .venv whose vtr only says what it was told."""
    folder = tmp_path / "repository"
    vtr = folder / ".venv" / "bin" / "vtr"
    vtr.parent.mkdir(parents=True)
    vtr.write_text('#!/usr/bin/env bash\necho vtr "$@"\n')
    vtr.chmod(0o755)
    shutil.copytree(REPOSITORY / "scripts", folder / "scripts")
    return folder


@pytest.fixture
def slurm_job(tmp_path, repository):
    """Runs train_slurm.sh with a Slurm that only says what it was told, and ends with a code."""
    for name, code in (("srun", "$SRUN_CODE"), ("scontrol", "0")):
        program = tmp_path / name
        program.write_text(f'#!/usr/bin/env bash\necho {name} "$@"\nexit {code}\n')
        program.chmod(0o755)

    def run(code, **variables):
        outside = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        environment = outside | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(repository),
            "SLURM_JOB_ID": "17",
            "SRUN_CODE": str(code),
        }
        done = subprocess.run(
            ["bash", REPOSITORY / "scripts" / "train_slurm.sh", "--workdir=a b"],
            capture_output=True,
            text=True,
            env=environment | variables,
        )
        return done.returncode, done.stdout.splitlines()

    return run


def test_a_slurm_job_that_saved_is_queued_again(slurm_job):
    code, lines = slurm_job(75, SLURM_CPUS_PER_TASK="12")
    train = ".venv/bin/vtr train --workdir=a b"
    # Nothing is killed while it saves, or ends after that.
    assert lines == [
        f"srun --kill-on-bad-exit=0 --cpus-per-task=12 {train}",
        "scontrol requeue 17",
    ]
    assert code == 75
    assert slurm_job(1) == (1, [f"srun --kill-on-bad-exit=0 {train}"])


@pytest.mark.parametrize("name", ["train_gpus.sh", "train_slurm.sh"])
def test_a_missing_installation_is_told_with_the_extra_for_gpus(repository, name):
    shutil.rmtree(repository / ".venv")
    done = train(repository, name)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"error: {repository}/.venv/bin/vtr: not found; there: python3.11 -m venv .venv && "
        ".venv/bin/pip install -e '.[data,cuda12]'\n"
    )


def test_one_machine_trains_with_what_is_installed_beside_the_scripts(repository):
    assert train(repository, "train_gpus.sh").stdout == "vtr train --workdir=a b\n"


def train(repository, name):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    return subprocess.run(
        ["bash", repository / "scripts" / name, "--workdir=a b"],
        capture_output=True,
        text=True,
        env=environment,
    )
