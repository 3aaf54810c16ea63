"""Train with 1, 2 and 4 processes on this machine and compare: losses, checkpoints, ranks.

    python scripts/soak_processes.py [--out=DIR]

One run is left alone. Another one goes from 1 process to 2, 4, 2 and 1: each time SIGTERM to one
process stops all of them. Then one of two processes is killed, or frozen, and the time is taken
until the other one has ended. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vtr_jax.cluster import HEARTBEAT_SECONDS
from vtr_jax.data.synthetic import render_dataset
from vtr_jax.evaluation.report import read_report
from vtr_jax.training.run_log import read_log

REPOSITORY = Path(__file__).resolve().parents[1]
STOPPED = 75
SETTINGS = (
    "--config=clip4clip:smoke",
    "--config.batch_size=8",
    "--config.epochs=12",
    "--config.eval_every=12",
    "--config.log_every=1",
)
# Sums in another order: float32 rounds at 6e-8; 48 steps of Adam enlarge that.
LOSS_TOLERANCE = 1e-4


def vtr(*arguments: str) -> list[str]:
    """A command line of this very Python."""
    return [sys.executable, "-m", "vtr_jax.cli", *arguments]


class Together:
    """Processes of one command on this machine; their output is in LOGS/0.txt, 1.txt, ...

    own: by the number of a process, arguments that it alone is given.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        logs: Path,
        own: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        self.logs = [logs / f"{index}.txt" for index in range(count)]
        environment = _environment(count)
        self.processes = []
        for index, path in enumerate(self.logs):
            with path.open("w") as log:
                told = environment | {"JAX_PROCESS_ID": str(index)} if environment else {}
                process = subprocess.Popen(
                    [*command, *(own or {}).get(index, ())],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | told,
                )
            self.processes.append(process)

    def codes(self, timeout: float = 1800) -> list[int]:
        """Wait for all; their exit codes."""
        return [process.wait(timeout) for process in self.processes]

    def output(self) -> str:
        """The end of what each of them wrote."""
        return "\n".join(f"{path}:\n{path.read_text()[-3000:]}" for path in self.logs)

    def end(self) -> None:
        """Kill those that are left."""
        for process in self.processes:
            process.kill()
            process.wait()


def _environment(count: int) -> dict[str, str]:
    if count == 1:
        return {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(count)}


@contextlib.contextmanager
def together(
    command: Sequence[str],
    count: int,
    logs: Path,
    own: Mapping[int, Sequence[str]] | None = None,
) -> Iterator[Together]:
    """Processes that do not outlive the block; arguments as for Together."""
    processes = Together(command, count, logs, own)
    try:
        yield processes
    finally:
        processes.end()


def run(command: Sequence[str], count: int, logs: Path) -> None:
    """Run to the end; RuntimeError with the output where a process fails."""
    with together(command, count, logs) as processes:
        codes = processes.codes()
        if any(codes):
            raise RuntimeError(f"exit codes {codes}\n{processes.output()}")


def last_step(workdir: Path) -> int:
    """The last step that a run has logged, 0 for none."""
    return max((record["step"] for record in read_log(workdir)), default=0)


def wait_for_step(workdir: Path, step: int, processes: Together) -> None:
    """Wait until a run has logged a step; RuntimeError where a process ends before."""
    while last_step(workdir) < step:
        if any(process.poll() is not None for process in processes.processes):
            raise RuntimeError(f"a process ended before step {step}\n{processes.output()}")
        time.sleep(0.02)


def stop_behind(command: Sequence[str], count: int, logs: Path, workdir: Path, steps: int) -> None:
    """Run so many steps further, then SIGTERM to the last process: all must save and exit.

    Not to a step that an earlier stop may have passed already: a process that is told to stop
    before it listens ends without saving.
    """
    step = last_step(workdir) + steps
    with together(command, count, logs) as processes:
        wait_for_step(workdir, step, processes)
        processes.processes[-1].send_signal(signal.SIGTERM)
        codes = processes.codes()
        if codes != [STOPPED] * count:
            raise RuntimeError(f"exit codes {codes}, expected {STOPPED}\n{processes.output()}")


def seconds_until_the_other_ended(
    command: Sequence[str], logs: Path, workdir: Path, victim: int, how: signal.Signals
) -> float:
    """Send one of two processes a signal behind step 3; how long the other lives after that."""
    with together(command, 2, logs) as processes:
        wait_for_step(workdir, 3, processes)
        began = time.monotonic()
        processes.processes[victim].send_signal(how)
        if processes.processes[1 - victim].wait(1800) == 0:
            raise RuntimeError(f"the other process ended well\n{processes.output()}")
        return time.monotonic() - began


def log_differences(ours: Path, theirs: Path, tolerance: float = LOSS_TOLERANCE) -> list[str]:
    """Records of two runs whose steps, losses (beyond a relative tolerance) or scores differ."""
    logs = [_by_step(read_log(workdir)) for workdir in (ours, theirs)]
    if logs[0].keys() != logs[1].keys():
        return [f"records of {len(logs[0])} and {len(logs[1])} steps"]
    return [
        f"{kind} of step {step}: {one} and {two}"
        for (kind, step), one in logs[0].items()
        if not np.allclose(one, two := logs[1][kind, step], rtol=tolerance, atol=0)
    ]


def _by_step(records: Sequence[Mapping]) -> dict[tuple[str, int], list[float]]:
    shown = {"train": ("loss", "logit_scale"), "evaluation": ("t2v R@1", "t2v MnR", "v2t MnR")}
    return {
        (record["kind"], record["step"]): [record[name] for name in shown[record["kind"]]]
        for record in records
        if record["kind"] in shown
    }


def evaluated(workdir: Path, count: int, data: Mapping[str, str], out: Path) -> tuple:
    """(hash of the parameters, results) as `vtr evaluate` with some processes reports them."""
    command = vtr("evaluate", f"--checkpoint={workdir}", f"--output={out}", "--batch_size=5")
    run([*command, *(f"--{name}={value}" for name, value in data.items())], count, out / "logs")
    card, results = read_report(out)
    return card.checkpoint_sha256, results


def prepare(out: Path) -> dict[str, str]:
    """Render and prepare a small data set; returns the options that name it."""
    dataset = render_dataset(
        out / "data", 16, seed=3, num_val=5, num_test=7, direction_pairs=1, video_size=48
    )
    data = {"annotations": str(dataset.captions_file), "store": str(out / "store")}
    options = [f"--{name}={value}" for name, value in data.items()]
    options += [f"--videos={dataset.videos_dir}", "--framerate=4", "--resolution=32"]
    subprocess.run(vtr("prepare", *options), check=True)
    return data


def soak(out: Path) -> int:
    """Make all comparisons in a folder and print them; returns the exit code."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(out / "compiled")
    os.environ["JAX_PLATFORMS"] = "cpu"
    data = prepare(out)
    settings = [*SETTINGS, *(f"--config.data.{name}={value}" for name, value in data.items())]

    def command(name: str) -> list[str]:
        return vtr("train", *settings, f"--workdir={out / name}")

    run(command("alone"), 1, out / "logs")
    found = []
    for count in (2, 4):
        run(command(f"by-{count}"), count, out / "logs")
        found += log_differences(out / f"by-{count}", out / "alone")
        print(f"{count} processes: {len(found)} differences from one", flush=True)
    for count in (1, 2, 4, 2):
        stop_behind(command("moved"), count, out / "logs", out / "moved", 3)
        step = last_step(out / "moved")
        print(f"stopped {count} of {count} processes behind step {step}", flush=True)
    run(command("moved"), 1, out / "logs")
    found += log_differences(out / "moved", out / "alone")
    reports = [evaluated(out / "by-4", count, data, out / f"report-{count}") for count in (1, 2, 4)]
    found += [f"evaluation by {n} processes" for n in (2, 4) if reports[n // 2] != reports[0]]
    longer = [*command("killed"), "--config.epochs=1000", "--config.eval_every=100000"]
    for victim, how in itertools.product((0, 1), (signal.SIGKILL, signal.SIGSTOP)):
        workdir = out / "killed"
        seconds = seconds_until_the_other_ended(longer, out / "logs", workdir, victim, how)
        print(f"{how.name} to process {victim}: the other ended after {seconds:.1f} s", flush=True)
        if seconds > 2 * HEARTBEAT_SECONDS:
            found.append(f"{seconds:.0f} s until a process noticed")
        shutil.rmtree(workdir)
    print(f"{len(found)} differences{': ' if found else ''}{', '.join(found[:10])}")
    return 1 if found else 0


def main() -> int:
    """Run the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="folder for data and runs; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return soak(Path(options.out or temporary))


if __name__ == "__main__":
    sys.exit(main())
