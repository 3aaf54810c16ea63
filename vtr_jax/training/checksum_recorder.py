"""Checksums of finished checkpoints, computed beside the training."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from vtr_jax.checkpoint import CHECKPOINTS_FOLDER, CHECKSUMS_FOLDER, checksums_file
from vtr_jax.checksums import directory_checksums
from vtr_jax.cluster import is_first
from vtr_jax.files import write_atomically


class ChecksumRecorder:
    """Writes WORKDIR/checksums/STEP.json for each checkpoint that has come to its end.

    One process of a run does it for all.
    """

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._expected: int | None = None
        self._running: list[Future] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checksums")

    def expect(self, step: int) -> None:
        """A save of this step begins: what is recorded of an older one is void."""
        self.forget(step)
        self._expected = step

    def forget(self, step: int) -> None:
        """Remove the record of a step."""
        if is_first():
            checksums_file(self._workdir, step).unlink(missing_ok=True)

    def record_finished(self) -> None:
        """Start to record the expected step if its folder is there: it appears complete."""
        step = self._expected
        if step is None or not self._folder(step).is_dir():
            return
        self._expected = None
        if is_first():
            self._running.append(self._pool.submit(self._record, step))

    def finish(self) -> None:
        """Wait for what is being recorded; raises OSError where it could not be written."""
        while self._running:
            self._running.pop(0).result()

    def close(self) -> None:
        """Release the thread."""
        self._pool.shutdown()

    def _folder(self, step: int) -> Path:
        return self._workdir / CHECKPOINTS_FOLDER / str(step)

    def _record(self, step: int) -> None:
        folder = self._workdir / CHECKSUMS_FOLDER
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.json"):
            if not self._folder(int(old.stem)).is_dir():
                old.unlink()
        try:
            recorded = directory_checksums(self._folder(step))
        except FileNotFoundError:  # removed meanwhile, for newer ones
            return
        text = json.dumps(recorded, indent=1) + "\n"
        write_atomically(checksums_file(self._workdir, step), text.encode())
