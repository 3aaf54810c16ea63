"""An evaluation of EERCF from store to ranks: a caption's row is ranked over all clips at once."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from vtr_jax.data.annotations import read_split
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.evaluation.evaluate import EvaluationSettings, evaluate_split
from vtr_jax.models.clip import clip_config
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import init_retriever
from vtr_jax.sharding import make_mesh

FRAMES, RECALLED = 4, 3


@pytest.fixture(scope="module")
def retriever():
    clip = clip_config(
        embed_dim=32,
        image_resolution=32,
        patch_size=16,
        vision_width=32,
        vision_layers=1,
        text_width=32,
        text_layers=1,
    )
    sizes = {"temporal_layers": 1, "max_frames": FRAMES}
    config = recipe_named("eercf").config(clip, {"rerantopk": RECALLED}, sizes)
    return init_retriever(config, jax.random.key(0))


def evaluated(retriever, tiny_dataset, tiny_store, **changes):
    """The training split: two captions a clip, and more clips than a tile."""
    settings = {"max_words": 12, "max_frames": FRAMES, "batch_size": 4, "tile": 5, **changes}
    split = read_split("table", tiny_dataset.captions_file, "train")
    store = FrameStore.open(tiny_store)
    return split, evaluate_split(
        retriever, store, split, EvaluationSettings(**settings), make_mesh()
    )


def test_rows_are_reranked_over_all_clips(retriever, tiny_dataset, tiny_store):
    split, evaluation = evaluated(retriever, tiny_dataset, tiny_store)
    tiles = evaluation.tiles
    assert len(split.clips) > tiles.tile
    logits_tv = tiles.matrix()
    scores = retriever.scores(*jax.tree.map(np.asarray, (tiles.text, tiles.video)))
    # Scores near 100 have a spacing of 8e-6.
    np.testing.assert_allclose(logits_tv, scores["logits_tv"], rtol=0, atol=4e-5)
    assert ((logits_tv > 50).sum(axis=1) == RECALLED).all()
    own_t = logits_tv[np.arange(len(logits_tv)), split.caption_clip]
    better_t = (logits_tv > own_t[:, None]).sum(axis=1)
    tied_t = (logits_tv == own_t[:, None]).sum(axis=1) - 1
    ranks_t = evaluation.ranks["t2v"]
    assert ((better_t <= ranks_t) & (ranks_t <= better_t + tied_t)).all()


def test_other_numbers_of_frames_are_refused(retriever, tiny_dataset, tiny_store):
    with pytest.raises(ValueError, match=f"2 frames a clip, .*max_frames={FRAMES}"):
        evaluated(retriever, tiny_dataset, tiny_store, max_frames=2)
