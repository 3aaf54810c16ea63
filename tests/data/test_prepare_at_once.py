"""Several `vtr prepare` of one new store, started at the same moment."""

from __future__ import annotations

import re
import subprocess
import sys

from vtr_jax.data.frame_store import FrameStore

RUNS = 4
PROGRAM = """
import sys
from vtr_jax.cli import main
from vtr_jax.data.frame_store import prepare
if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    sys.exit(main(sys.argv[1:]))
"""


def test_one_runs_and_the_others_name_it(tmp_path, video_folder):
    table = tmp_path / "captions.csv"
    table.write_text("video,caption\n" + "".join(f"clip{n}.mp4,{n}\n" for n in range(3)))
    program = tmp_path / "at_once.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), "prepare", f"--annotations={table}", "--workers=1"]
    command += [f"--videos={video_folder}", f"--store={tmp_path / 'new' / 'store'}"]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    runs = [subprocess.Popen(command, text=True, **pipes) for _ in range(RUNS)]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    errors = {run.pid: run.communicate(timeout=120)[1] for run in runs}
    (winner,) = [run.pid for run in runs if run.returncode == 0]
    for run in runs:
        if run.pid != winner:
            (line,) = errors[run.pid].splitlines()
            assert re.search(rf"process {winner} on \S+ is preparing this frame store", line)
    assert len(FrameStore.open(tmp_path / "new" / "store")) == 3
