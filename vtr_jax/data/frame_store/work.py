"""The folder of unfinished work inside a frame store: part files, found again by the next run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vtr_jax.data.frame_store.finish import WORK_FOLDER, discard_work
from vtr_jax.data.frame_store.part import read_part_source
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.frame_store.source import ClipJob, is_unchanged
from vtr_jax.files import write_atomically


class WorkFolder:
    """Part files of clips that are decoded but not yet in the record files."""

    def __init__(self, store_dir: Path, settings: StoreSettings) -> None:
        """Opens the folder, or makes it where there is none.

        Raises ValueError where unfinished work with other settings is there.
        """
        self._root = store_dir / WORK_FOLDER
        about = self._root / "settings.json"
        if about.exists():
            found = StoreSettings.from_dict(json.loads(about.read_text()))
            require_same_settings(self._root, found, settings)
        else:
            discard_work(store_dir)
            self._root.mkdir()
            write_atomically(about, json.dumps(settings.as_dict()).encode())
        for unfinished in self._root.rglob("*.tmp"):
            unfinished.unlink(missing_ok=True)

    def part_path(self, clip_id: str) -> Path:
        """The part file of a clip; ids may hold characters that file names may not."""
        name = hashlib.sha256(clip_id.encode()).hexdigest()
        return self._root / "parts" / name[:2] / f"{name[2:34]}.npz"

    def has(self, job: ClipJob) -> bool:
        """Whether a whole part file of this clip is there, its video unchanged since."""
        path = self.part_path(job.clip_id)
        source = read_part_source(path)
        return source is not None and is_unchanged(source, job, path.stat().st_mtime)


def require_same_settings(place: Path, found: StoreSettings, wanted: StoreSettings) -> None:
    """Raises ValueError saying which settings of a store differ from those wanted."""
    differences = found.differences(wanted)
    if differences:
        raise ValueError(
            f"{place} was made with {'; '.join(differences)}: use the same settings, another "
            "store directory, or delete this one"
        )
