"""What `vtr evaluate` does: a retriever directory and a split to a report."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from vtr_jax import cluster
from vtr_jax.checkpoint import NOT_RECORDED, load_retriever, read_description
from vtr_jax.data.annotations import read_split
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.data.preprocess import tokenize_preprocessed
from vtr_jax.data.trained_clips import clips_trained_on, memory_warning
from vtr_jax.evaluation.evaluate import (
    EvaluationSettings,
    evaluate_split,
    protocol_card,
    retriever_sha256,
)
from vtr_jax.evaluation.nonfinite import NonfiniteScores
from vtr_jax.evaluation.report import (
    format_report,
    require_folder,
    write_failed_report,
    write_report,
)
from vtr_jax.evaluation.scoring import EmclScoring
from vtr_jax.evaluation.store_match import require_same_pictures
from vtr_jax.models.retriever import Retriever
from vtr_jax.sharding import make_mesh
from vtr_jax.training.run_record import RUN_FILE

TRAINED_SETTINGS = {
    "max_words": "max_words",
    "max_frames": "max_frames",
    "slice_framepos": "slice_framepos",
    "frame_order": "eval_frame_order",
}


@dataclasses.dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate on what; None means as trained, or the default."""

    checkpoint: str
    dataset: str
    annotations: str
    store: str
    split: str = "test"
    output: str | None = None
    step: int | None = None
    max_words: int | None = None
    max_frames: int | None = None
    slice_framepos: int | None = None
    frame_order: int | None = None
    batch_size: int = 64
    ties: str = "once"
    normalisation: str = "none"
    emcl: str | None = None
    compute_dtype: str = "float32"
    skip_missing: bool = False
    allow_nonfinite: bool = False
    reader_options: dict[str, Any] = dataclasses.field(default_factory=dict)


def _trained_settings(run_file: Path) -> dict[str, Any]:
    if not run_file.is_file():
        return {}
    try:
        return json.loads(run_file.read_text(encoding="utf-8"))["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run_file}: damaged, expected the record of a run ({error})") from error


def _stated_settings(retriever: Retriever, directory: Path) -> dict[str, Any]:
    """Return the retriever's own settings; runs of earlier versions have them in run.json."""
    if NOT_RECORDED not in retriever.config.assumed:
        return {name: getattr(retriever.preprocessing, name) for name in TRAINED_SETTINGS}
    trained = _trained_settings(directory / RUN_FILE)
    return {ours: trained[theirs] for ours, theirs in TRAINED_SETTINGS.items() if theirs in trained}


def _settings(request: EvaluationRequest, retriever: Retriever) -> EvaluationSettings:
    values = _stated_settings(retriever, Path(request.checkpoint))
    given = {
        name: value for name in TRAINED_SETTINGS if (value := getattr(request, name)) is not None
    }
    return EvaluationSettings(
        **{**values, **given},
        batch_size=request.batch_size,
        ties=request.ties,
        normalisation=request.normalisation,
        emcl=None if request.emcl is None else EmclScoring.parse(request.emcl),
        allow_nonfinite=request.allow_nonfinite,
    )


def run_evaluation(request: EvaluationRequest) -> str:
    """Evaluate, write the report where asked, and return it as text.

    That clips were trained on is counted on its card, and said on standard error.
    Raises ValueError or FileNotFoundError before encoding for what does not fit together: no
    such split, clips missing from the store, frames of another resolution. Raises NonfiniteScores
    (a ValueError) after the report without scores is written, unless request.allow_nonfinite.
    """
    if request.output:
        require_folder(request.output)
    mesh = make_mesh()
    split = read_split(
        request.dataset, request.annotations, request.split, **request.reader_options
    )
    store = FrameStore.open(request.store)
    skipped: list[str] = []
    if request.skip_missing:
        split, skipped = store.covered_part(split)
    retriever = load_retriever(
        request.checkpoint,
        mesh,
        compute_dtype=request.compute_dtype,
        step=request.step,
        allow_nonfinite=request.allow_nonfinite,
    )
    settings = _settings(request, retriever)
    require_same_pictures(store, retriever.preprocessing)
    trained_on = clips_trained_on(Path(request.checkpoint), split)
    tokens = tokenize_preprocessed(split.captions, retriever.preprocessing, settings.max_words)
    selection = read_description(request.checkpoint).get("selection") or {}
    card = protocol_card(
        retriever,
        store,
        split,
        settings,
        checkpoint_sha256=retriever_sha256(retriever),
        tokens=tokens,
        clips_skipped=len(skipped),
        clips_trained_on=None if trained_on is None else len(trained_on),
        selection="none" if request.step is not None else selection.get("rule", "unknown"),
    )
    try:
        evaluation = evaluate_split(retriever, store, split, settings, mesh, tokens)
    except NonfiniteScores as error:
        if request.output:
            found = error.nonfinite.to_json(split)
            cluster.on_first(write_failed_report, request.output, card, found, str(error))
        raise
    found = evaluation.nonfinite.to_json(split)
    if request.output:
        cluster.on_first(write_report, request.output, card, evaluation.results, skipped, found)
    if trained_on:
        cluster.on_first(_warn, memory_warning(split, trained_on))
    for difference in card.unlike_training:
        cluster.on_first(_warn, f"WARNING: {difference}")
    return format_report(card, evaluation.results, skipped, found)


def _warn(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
