"""Which clips could not be stored, remembered so that a next run does not try them in vain."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from vtr_jax.data.frame_store.jobs import ClipJob, ClipSource, is_unchanged, source_of
from vtr_jax.data.frame_store.report import BadClip
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.video_file import UnreadableVideo
from vtr_jax.files import write_atomically

BAD_CLIPS_FILE = "bad_clips.jsonl"


@dataclasses.dataclass(frozen=True)
class _Entry:
    bad: BadClip
    source: ClipSource
    settings: StoreSettings
    found_at: float

    def line(self) -> str:
        source, settings = dataclasses.asdict(self.source), self.settings.as_dict()
        return json.dumps([self.bad, source, settings, self.found_at]) + "\n"


class BadClipMemory:
    """Bad clips of a store, one JSON line each in `bad_clips.jsonl`."""

    def __init__(self, store_dir: Path, settings: StoreSettings) -> None:
        self._settings = settings
        self._path = store_dir / BAD_CLIPS_FILE
        self._entries = _read_entries(self._path)
        self._may_end_in_half_a_line = self._path.exists()

    def _rewrite(self) -> None:
        self._may_end_in_half_a_line = False
        lines = [self._entries[clip_id].line() for clip_id in sorted(self._entries)]
        write_atomically(self._path, "".join(lines).encode())

    def recall(self, job: ClipJob) -> BadClip | None:
        """Why this clip is bad, None where that is not known or file or settings differ."""
        entry = self._entries.get(job.clip_id)
        if entry is None or entry.settings != self._settings or job.path is None:
            return None
        if not os.access(job.path, os.R_OK):  # not what it was then: look again
            return None
        return entry.bad if is_unchanged(entry.source, job, entry.found_at) else None

    def remember(self, bad: BadClip, job: ClipJob) -> None:
        """Notes a bad clip; one whose file cannot even be read is not noted."""
        found_at = time.time()
        try:
            source = source_of(job)
        except (OSError, UnreadableVideo):
            return
        if self._may_end_in_half_a_line:
            # left by a killed run: this line would be glued to it
            self._rewrite()
        self._entries[bad.clip_id] = _Entry(bad, source, self._settings, found_at)
        with self._path.open("a") as file:
            file.write(self._entries[bad.clip_id].line())

    def forget(self, mended: Iterable[str]) -> None:
        """Drops the notes on clips that are no longer bad."""
        stale = self._entries.keys() & set(mended)
        if stale:
            self._entries = {name: e for name, e in self._entries.items() if name not in stale}
            self._rewrite()


def _read_entries(path: Path) -> dict[str, _Entry]:
    if not path.exists():
        return {}
    entries = {}
    for line in path.read_text(errors="replace").splitlines():
        # The last line of a run that was killed, or damage: such a clip is only tried again.
        with contextlib.suppress(ValueError, TypeError, LookupError, AttributeError):
            bad, source, settings, found_at = json.loads(line)
            entries[bad[0]] = _Entry(
                BadClip(*bad), ClipSource(**source), StoreSettings.from_dict(settings), found_at
            )
    return entries
