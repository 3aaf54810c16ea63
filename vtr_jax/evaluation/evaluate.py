"""Evaluating a retriever on a split: encode, compare tile by tile, rank, describe."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vtr_jax.cluster import to_host
from vtr_jax.data.preprocess import count_preprocessed, tokenize_preprocessed
from vtr_jax.data.split import Split
from vtr_jax.evaluation.encode import encode_captions, encode_clips, rounded_batch_size
from vtr_jax.evaluation.metrics import (
    TIE_RULES,
    ranks_of_direction,
    resolve_ties,
    summarise_direction,
)
from vtr_jax.evaluation.nonfinite import Nonfinite, NonfiniteScores, find_nonfinite
from vtr_jax.evaluation.normalisation import NORMALISATIONS, count_both_ways
from vtr_jax.evaluation.protocol import ProtocolCard
from vtr_jax.evaluation.scoring import RECIPE_SCORING, EmclScoring, Scoring
from vtr_jax.evaluation.similarity import SimilarityTiles
from vtr_jax.evaluation.store_match import require_resolution as require_resolution
from vtr_jax.evaluation.store_match import sampling_differences
from vtr_jax.models.parameter_paths import path_name
from vtr_jax.models.retriever import Retriever
from vtr_jax.preprocessing import Preprocessing
from vtr_jax.sharding import process_rows
from vtr_jax.versions import software_versions

FRAME_CHOICES = {0: "head", 1: "tail", 2: "uniform"}
FRAME_ORDERS = {0: "normal order", 1: "reversed", 2: "shuffled"}


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """How a split is read and compared.

    max_words: token limit. max_frames: frames a clip. slice_framepos: 0 head, 1 tail, 2 uniform.
    frame_order: 0 normal, 1 reversed, 2 shuffled. batch_size: captions or clips encoded at once.
    tile: texts and videos a side of a similarity tile. ties: a key of TIE_RULES. normalisation:
    a key of NORMALISATIONS. allow_nonfinite: rank features and scores that are not finite.
    Raises ValueError for values out of range.
    """

    max_words: int = 32
    max_frames: int = 12
    slice_framepos: int = 2
    frame_order: int = 0
    batch_size: int = 64
    tile: int = 256
    ties: str = "once"
    normalisation: str = "none"
    emcl: EmclScoring | None = None
    allow_nonfinite: bool = False

    @property
    def scoring(self) -> Scoring:
        """What compares texts and videos: the recipe, or EMCL over its vectors."""
        return self.emcl or RECIPE_SCORING

    def __post_init__(self) -> None:
        for name in ("max_frames", "batch_size", "tile"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        for name, choices in (
            ("slice_framepos", FRAME_CHOICES),
            ("frame_order", FRAME_ORDERS),
            ("ties", TIE_RULES),
            ("normalisation", NORMALISATIONS),
        ):
            if getattr(self, name) not in choices:
                known = ", ".join(map(str, choices))
                raise ValueError(f"{name}: expected one of {known}; got {getattr(self, name)!r}")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of one evaluation.

    results: {"t2v": {"R@1": ...}, "v2t": ...}. ranks: {"t2v": [T], "v2t": [V]}, 0 = first.
    tiles: the similarity matrix before any normalization. nonfinite: captions and clips without
    finite features or scores; there are some only if the settings allow it.
    """

    results: dict[str, dict[str, float]]
    ranks: dict[str, np.ndarray]
    tiles: SimilarityTiles
    nonfinite: Nonfinite = Nonfinite()


def retriever_sha256(retriever: Retriever) -> str:
    """A hash of the parameters and state, in float32, whatever file they came from."""
    digest = hashlib.sha256()
    tree = {"params": retriever.params, "state": retriever.state}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        digest.update(path_name(path).encode())
        digest.update(np.ascontiguousarray(to_host(leaf), np.float32).tobytes())
    return digest.hexdigest()


def require_frames(store: Any, split: Split) -> None:
    """Raise ValueError naming the clips of a split that have no frame in the store."""
    store.require_covers(split)
    frameless = [
        clip.clip_id for clip in split.clips if store.num_frames[store.index_of(clip.clip_id)] == 0
    ]
    if frameless:
        raise ValueError(
            f"{len(frameless)} of the {len(split.clips)} clips of {split.dataset} {split.name} "
            f"have no frame: {', '.join(frameless[:5])}; leave them out of the split"
        )


def evaluate_split(
    retriever: Retriever,
    store: Any,
    split: Split,
    settings: EvaluationSettings,
    mesh: Mesh,
    tokens: tuple[np.ndarray, np.ndarray] | None = None,
) -> Evaluation:
    """Rank every caption's clip and every clip's captions.

    store: a FrameStore that holds every clip of the split. tokens: ids and mask of its captions,
    int32 [C,L], if they are already tokenized. Raises ValueError before anything is
    encoded for clips without frames, or ties that need other groups of captions, and
    NonfiniteScores (a ValueError) for features or scores that are not finite, unless
    settings.allow_nonfinite.
    """
    from vtr_jax.data.pipeline import caption_batches, clip_batches

    require_frames(store, split)
    if resolve_ties(settings.ties, split.caption_clip) == "original-emcl":
        raise ValueError("ties='original-emcl' groups captions otherwise; use ties='original'")
    batch_size = rounded_batch_size(settings.batch_size, mesh)
    if tokens is None:
        tokens = tokenize_preprocessed(split.captions, retriever.preprocessing, settings.max_words)
    rows = process_rows(mesh, batch_size)
    captions = caption_batches(tokens, batch_size, rows)
    text = encode_captions(retriever, captions, mesh, settings.scoring)
    clips = clip_batches(
        store,
        split,
        batch_size=batch_size,
        max_frames=settings.max_frames,
        slice_framepos=settings.slice_framepos,
        frame_order=settings.frame_order,
        rows=rows,
    )
    video = encode_clips(retriever, clips, mesh, settings.scoring)
    tiles = SimilarityTiles(
        retriever, text, video, split.caption_clip, settings.tile, settings.scoring
    )
    counters = count_both_ways(tiles, settings.normalisation)
    normalized = counters.values() if settings.normalisation != "none" else ()
    nonfinite = find_nonfinite(text, video, tiles, normalized)
    if nonfinite and not settings.allow_nonfinite:
        raise NonfiniteScores(nonfinite, split)
    ranks = {way: ranks_of_direction(counters[way], way, settings.ties) for way in counters}
    results = {
        way: summarise_direction(way, ranks[way], settings.ties, split.caption_clip)
        for way in ranks
    }
    return Evaluation(results, ranks, tiles, nonfinite)


def protocol_card(
    retriever: Retriever,
    store: Any,
    split: Split,
    settings: EvaluationSettings,
    *,
    checkpoint_sha256: str,
    tokens: tuple[np.ndarray, np.ndarray] | None = None,
    clips_skipped: int = 0,
    clips_trained_on: int | None = 0,
    selection: str = "none",
) -> ProtocolCard:
    """The card that says what an evaluation with these settings measures.

    checkpoint_sha256: see retriever_sha256, which reads every parameter. tokens: ids and mask of
    the captions, int32 [C,L], if they are already tokenized.
    """
    from vtr_jax.data.frame_store.settings import StoreSettings

    choice, preprocessing = FRAME_CHOICES[settings.slice_framepos], retriever.preprocessing
    if tokens is None:
        tokens = tokenize_preprocessed(split.captions, preprocessing, settings.max_words)
    return ProtocolCard.of_split(
        split,
        clips_skipped=clips_skipped,
        clips_trained_on=clips_trained_on,
        frames=settings.max_frames,
        frame_rate=store.settings["framerate"],
        frame_choice=f"{choice}, {FRAME_ORDERS[settings.frame_order]}",
        frame_rule=store.settings.get("frame_rule", "opencv"),
        resolution=store.settings["resolution"],
        max_words=settings.max_words,
        captions_cut=_captions_cut(split, tokens[1], preprocessing, settings.max_words),
        checkpoint_sha256=checkpoint_sha256,
        recipe=retriever.config.recipe,
        options=", ".join(f"{name}={value}" for name, value in retriever.config.options),
        score_normalisation=NORMALISATIONS[settings.normalisation],
        emcl="none" if settings.emcl is None else str(settings.emcl),
        ties=settings.ties,
        selection=selection,
        compute_dtype=retriever.runtime.compute_dtype,
        tokenizer=str(preprocessing.tokenizer),
        pixels=preprocessing.pixel_text,
        resize=str(StoreSettings.from_dict(store.settings).resize),
        activation=retriever.config.clip.vision.activation,
        unlike_training=sampling_differences(store, retriever.config),
        assumed=retriever.config.assumed,
        software=software_versions(),
    )


def _captions_cut(
    split: Split, token_mask: np.ndarray, preprocessing: Preprocessing, max_words: int
) -> int:
    """Count the captions that are longer than the token limit; only a full row can be."""
    full = [split.captions[row] for row in np.flatnonzero(token_mask.all(axis=1))]
    return int((count_preprocessed(full, preprocessing) > max_words).sum())
