"""The same decoding on Apache Beam, for when one machine is too few.

Every worker of the runner must reach the videos and the store under the same paths (a shared or
mounted file system): it writes part files there, which this process then turns into the store.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vtr_jax.data.frame_store.jobs import ClipJob
from vtr_jax.data.frame_store.part import PartFolder
from vtr_jax.data.frame_store.report import BadClip
from vtr_jax.files import write_atomically

if TYPE_CHECKING:
    import apache_beam as beam


@dataclasses.dataclass(frozen=True)
class BeamRunner:
    """A runner by its name ("DirectRunner", "FlinkRunner", "DataflowRunner", ...).

    options: Beam's own, as on its command line: ("--flink_master=...",).
    """

    name: str
    options: tuple[str, ...] = ()

    def check(self) -> beam.Pipeline:
        """Returns an empty pipeline of this runner; nothing runs yet.

        Raises ValueError where Beam is not installed, or knows no such runner or refuses the
        options.
        """
        try:
            import apache_beam as beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError as error:
            raise ValueError(
                "beam_runner needs Apache Beam, which is not installed: pip install 'vtr_jax[beam]'"
            ) from error
        try:
            return beam.Pipeline(options=PipelineOptions([f"--runner={self.name}", *self.options]))
        except (AttributeError, ImportError, ValueError) as error:
            raise ValueError(f"beam_runner {self.name!r}: {error}") from error

    def run(
        self, jobs: Sequence[ClipJob], parts: PartFolder
    ) -> Iterator[tuple[ClipJob, BadClip | None]]:
        """Makes the part file of every job; yields (job, why it is bad or None) at the end.

        A job whose part is there already is not decoded again when Beam tries a bundle twice.
        """
        pipeline = self.check()
        import apache_beam as beam

        with pipeline:
            _ = (
                pipeline
                | "clips" >> beam.Create(list(jobs))
                | "spread over workers" >> beam.Reshuffle()
                | "decode" >> beam.Map(_make_or_note, parts)
            )
        for job in jobs:
            yield job, _outcome(job, parts)


def _make_or_note(job: ClipJob, parts: PartFolder) -> None:
    if parts.has(job):
        return
    bad = parts.make(job)
    if bad is not None:
        note = _note_of(job, parts)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, json.dumps(bad).encode())


def _note_of(job: ClipJob, parts: PartFolder) -> Path:
    return parts.path_of(job.clip_id).with_suffix(".bad.json")


def _outcome(job: ClipJob, parts: PartFolder) -> BadClip | None:
    note = _note_of(job, parts)
    if note.exists():
        bad = BadClip(*json.loads(note.read_text()))
        note.unlink()
        return bad
    if parts.path_of(job.clip_id).exists():
        return None
    raise OSError(
        f"{parts.path_of(job.clip_id)}: Beam's workers reported success but wrote no such file; "
        "do they all see the store's directory under this path?"
    )
