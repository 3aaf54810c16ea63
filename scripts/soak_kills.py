"""Kill a training run at random moments, again and again, and compare it with one left alone.

    python scripts/soak_kills.py [--kills=20] [--seed=0] [--out=DIR]

Every kill is a SIGKILL: while the run starts, between two checkpoints, or while one is written.
The same command resumes it. Exit code 1 if parameters, optimizer or log differ in the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vtr_jax.data.synthetic import render_dataset
from vtr_jax.training.run_log import LOG_FILE, read_log

REPOSITORY = Path(__file__).resolve().parents[1]
MOMENTS = ("starting", "training", "saving")
CHECKPOINT_EVERY = 5
SETTINGS = (
    "--config=demo:seqTransf-short",
    "--config.epochs=20",
    "--config.eval_every=10",
    f"--config.checkpoint_every={CHECKPOINT_EVERY}",
    "--config.log_every=1",
)


@dataclasses.dataclass(frozen=True)
class Kill:
    """One killed process: when in its life, and what it had done."""

    moment: str
    seconds: float
    last_step: int
    checkpoints: tuple[int, ...]
    half_written: tuple[str, ...]


def last_step(workdir: Path) -> int:
    """The last step that a run has logged, 0 if none."""
    return max((record["step"] for record in read_log(workdir)), default=0)


def checkpoint_steps(workdir: Path) -> tuple[int, ...]:
    """The complete checkpoints of a run."""
    return tuple(sorted(int(path.name) for path in _entries(workdir) if path.name.isdigit()))


def _entries(workdir: Path) -> list[Path]:
    folder = workdir / "checkpoints"
    return list(folder.iterdir()) if folder.is_dir() else []


def _half_written(workdir: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in _entries(workdir) if not path.name.isdigit()))


def _moment_reached(
    moment: str, workdir: Path, rng: np.random.Generator, startup: float, ahead: int
) -> Callable[[float], bool]:
    """Says, given the seconds a process has lived, whether its time has come."""
    if moment == "starting":
        end = rng.uniform(0, startup)
        return lambda seconds: seconds >= end
    # Beyond everything that any process has logged, so that each of them gets further.
    target = last_step(workdir) + int(rng.integers(1, ahead + 1))
    if moment == "training":
        return lambda seconds: last_step(workdir) >= target
    return lambda seconds: last_step(workdir) >= target and bool(_half_written(workdir))


def kill_once(
    command: Sequence[str],
    workdir: Path,
    moment: str,
    rng: np.random.Generator,
    *,
    startup: float = 8.0,
    ahead: int = 3 * CHECKPOINT_EVERY,
) -> Kill | None:
    """Start the command and kill it at a random moment of this kind; None if it ended before.

    startup: about the seconds that a process needs until its first step. ahead: steps that it may
    get further than any process before. Raises RuntimeError if the command fails by itself.
    """
    reached = _moment_reached(moment, workdir, rng, startup, ahead)
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None and not reached(time.monotonic() - began):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        code = process.wait()
        if code > 0:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)}: exit code {code}\n{errors.read()[-3000:]}")
    if code == 0:
        return None
    return Kill(
        moment,
        time.monotonic() - began,
        last_step(workdir),
        checkpoint_steps(workdir),
        _half_written(workdir),
    )


def differences(ours: Path, theirs: Path) -> list[str]:
    """What differs between the last checkpoints and the logs of two runs, bit by bit.

    How fast they were is no difference.
    """
    if checkpoint_steps(ours) != checkpoint_steps(theirs):
        return [f"checkpoints: {checkpoint_steps(ours)} and {checkpoint_steps(theirs)}"]
    step = checkpoint_steps(ours)[-1]
    one, two = (saved_arrays(workdir, step) for workdir in (ours, theirs))
    found = [
        name
        for name in sorted(one.keys() | two.keys())
        if name not in one or name not in two or one[name].tobytes() != two[name].tobytes()
    ]
    if _log_lines(ours) != _log_lines(theirs):
        found.append(LOG_FILE)
    return found


def _log_lines(workdir: Path) -> list[bytes]:
    """The lines of a run's log but those of its speed, which no two runs share."""
    lines = (workdir / LOG_FILE).read_bytes().splitlines()
    return [line for line in lines if not line.startswith(b'{"kind": "speed"')]


def saved_arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint by name: parameters, optimizer, what else training needs."""
    import jax
    import orbax.checkpoint as ocp

    from vtr_jax.training.optimizer import path_name

    arrays = {}
    with ocp.StandardCheckpointer() as checkpointer:
        for item in ("retriever", "optimizer", "training"):
            folder = workdir.absolute() / "checkpoints" / str(step) / item
            tree = checkpointer.restore(folder)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                arrays[f"{item}/{path_name(path)}"] = np.asarray(leaf)
    return arrays


def _vtr(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vtr_jax.cli", *arguments]


def _prepare(out: Path) -> list[str]:
    """Render and prepare the demo's data in little; returns the settings that name them."""
    dataset = render_dataset(out / "data", 240, num_val=20, num_test=20, direction_pairs=5)
    annotations, store = str(dataset.captions_file), str(out / "store")
    data = [f"--annotations={annotations}", f"--store={store}", f"--videos={dataset.videos_dir}"]
    subprocess.run(_vtr("prepare", *data, "--framerate=4", "--resolution=64"), check=True)
    return [f"--config.data.annotations={annotations}", f"--config.data.store={store}"]


def _row(number: int, kill: Kill) -> str:
    checkpoints = " ".join(map(str, kill.checkpoints)) or "-"
    return (
        f"{number:>4}  {kill.moment:<9} {kill.seconds:>7.2f} s {kill.last_step:>9}  "
        f"{checkpoints:<16} {' '.join(kill.half_written) or '-'}"
    )


def main() -> int:
    """Run the comparison and print it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for data and runs; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return soak(Path(options.out or temporary), options.kills, options.seed)


def soak(out: Path, kills: int, seed: int) -> int:
    """Train once left alone and once killed, in OUT/alone and OUT/killed; returns the exit code."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(out / "compiled")
    rng = np.random.default_rng(seed)
    settings = [*SETTINGS, *_prepare(out)]
    alone, killed = out / "alone", out / "killed"
    began = time.monotonic()
    command = _vtr("train", *settings, f"--workdir={alone}")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print(f"left alone: {last_step(alone)} steps in {time.monotonic() - began:.0f} s", flush=True)

    command = _vtr("train", *settings, f"--workdir={killed}")
    print("kill  moment      alive    last step  checkpoints      half written", flush=True)
    done = torn = 0
    for moment in itertools.islice(itertools.cycle(MOMENTS), kills):
        kill = kill_once(command, killed, moment, rng)
        if kill is None:
            break
        done += 1
        torn += bool(kill.half_written)
        print(_row(done, kill), flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = differences(killed, alone)
    print(
        f"{done} kills, {torn} of them during a save; {len(found)} differences"
        f"{': ' if found else ''}{', '.join(found[:10])}"
    )
    if done < kills or not torn:
        print(f"expected {kills} kills and one during a save at least: give more --config.epochs")
        return 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
