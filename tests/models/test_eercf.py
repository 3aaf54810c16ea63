"""The recipe eercf: what it refuses, what its loss is made of, and its two stages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.evaluation.similarity import SimilarityTiles
from vtr_jax.models.clip import CLIP_PRESETS
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.initialise import initialise_from_clip
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import abstract_retriever

TEXTS, VIDEOS, FRAMES, PATCHES, WIDTH = 9, 6, 3, 4, 32


@pytest.fixture(scope="module")
def retriever(tiny_retriever):
    return tiny_retriever("eercf")


@pytest.fixture(scope="module")
def features():
    """NumPy features of nine captions and six clips, as an evaluation keeps them."""
    rng = np.random.default_rng(2)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    mask = (np.arange(FRAMES) < rng.integers(1, FRAMES + 1, (VIDEOS, 1))).astype(np.int32)
    text = TextFeatures(normal(TEXTS, WIDTH), normal(TEXTS, 0, WIDTH), np.ones((TEXTS, 8), int))
    frames, temporal = normal(VIDEOS, FRAMES, WIDTH), normal(VIDEOS, FRAMES, WIDTH)
    patches = normal(VIDEOS, FRAMES, PATCHES, WIDTH)
    return text, VideoFeatures(frames, temporal, None, patches, mask)


def first_texts(text, count):
    return jax.tree.map(lambda leaf: leaf[:count], text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sim_header": "meanP"}, "sim_header=seqTransf and loose_type=True alone.*'meanP'"),
        ({"loose_type": False}, "sim_header=seqTransf and loose_type=True alone.*=False"),
        ({"weakframe_weight": "0.5"}, "weakframe_weight: expected a number, got '0.5'"),
        ({"final_video_weight": True}, "final_video_weight: expected a number, got True"),
        ({"rerantopk": 0}, "rerantopk: expected a number of videos, 1 or more, got 0"),
        ({"rerantopk": 2.0}, "rerantopk: expected a number of videos, 1 or more, got 2.0"),
        ({"start_patch_eval": "no"}, "start_patch_eval: expected True, False or None, got 'no'"),
        ({"linear_patch": "3d"}, "linear_patch=3d contradicts a 2d patch embedding"),
        ({"rerank_topk": 10}, "has no option 'rerank_topk'.*did you mean rerantopk"),
    ],
)
def test_what_is_undefined_is_refused(options, words, tiny_clip):
    with pytest.raises(ValueError, match=words):
        recipe_named("eercf").config(tiny_clip, options)


def test_clips_have_the_frames_it_has_learned_a_matrix_for(retriever, tiny_batch):
    with pytest.raises(ValueError, match="2 frames a clip, .* over 3 frames.*max_frames=3"):
        retriever.encode_video(tiny_batch["frames"][:, :2], tiny_batch["frame_mask"][:, :2])


def test_training_wants_a_text_for_every_video(retriever, features):
    with pytest.raises(ValueError, match="got 9 texts and 6 videos"):
        retriever.loss(*features)


def test_options_may_change_after_loading(retriever):
    changed = retriever.with_options(rerantopk=10, video_weight=1.0)
    assert changed.config.option("rerantopk") == 10
    assert changed.config.option("strongframe_weight") == 1.0
    assert changed.params is retriever.params
    with pytest.raises(ValueError, match="recipe eercf has no option 'sim_weight'"):
        retriever.with_options(sim_weight=1.0)
    with pytest.raises(ValueError, match="rerantopk: expected a number of videos"):
        retriever.with_options(rerantopk=-1)


def test_options_that_need_other_parameters_are_refused(tiny_retriever):
    with pytest.raises(ValueError, match="sim_header=seqTransf: such a clip4clip has other param"):
        tiny_retriever("clip4clip", sim_header="meanP").with_options(sim_header="seqTransf")


@pytest.mark.parametrize("changes", [{"rerantopk": 2}, {"strongpatch_weight": 0.3}])
def test_both_stages_give_what_all_pairs_would(retriever, features, changes):
    """similarity computes a text's best videos alone, scores everything."""
    chosen = retriever.with_options(**changes)
    scores = chosen.scores(*features)
    assert set(scores) == {
        "sentence_video",
        "frame_weak",
        "frame_strong",
        "patch_weak",
        "patch_strong",
        "logits_tv",
    }
    # Scores near 100 have a spacing of 8e-6.
    np.testing.assert_allclose(chosen.similarity(*features), scores["logits_tv"], rtol=0, atol=4e-5)
    lifted = np.asarray(scores["logits_tv"] != scores["sentence_video"])
    assert (lifted.sum(axis=1) == min(VIDEOS, chosen.config.option("rerantopk"))).all()


def test_patches_are_gated_strongly_only_if_they_weigh(retriever, features):
    for changes, strongly in (
        ({}, False),
        ({"strongpatch_weight": 0.3}, True),
        ({"start_patch_eval": True}, True),
        ({"strongpatch_weight": 0.3, "start_patch_eval": False}, False),
    ):
        scores = retriever.with_options(**changes).scores(*features)
        same = np.array_equal(scores["patch_strong"], scores["frame_strong"])
        assert same is not strongly, changes


def test_the_weights_of_the_loss_do_not_rank_and_the_final_ones_do(retriever, features):
    """The first as in the original; the second it has as constants."""
    before = retriever.similarity(*features)
    others = {"video_weight": 2.0, "weakpatch_weight": 1.0, "strong_loss_weight": 0.7}
    np.testing.assert_array_equal(retriever.with_options(**others).similarity(*features), before)
    changed = retriever.with_options(final_video_weight=1.0).similarity(*features)
    assert not np.array_equal(changed, before)


def test_a_rows_scores_do_not_depend_on_other_texts_or_the_tile(retriever, features):
    text, video = features
    whole = np.asarray(retriever.with_options(rerantopk=2).similarity(text, video))
    few = retriever.with_options(rerantopk=2).with_runtime(tile=2)
    some = few.similarity(first_texts(text, 4), video)
    np.testing.assert_allclose(some, whole[:4], rtol=0, atol=4e-5)


def test_an_evaluation_compares_whole_rows(retriever, features):
    """A tile of some videos would choose another second stage."""
    text, video = features
    chosen = retriever.with_options(rerantopk=2)
    caption_clip = np.arange(TEXTS) % VIDEOS
    tiles = SimilarityTiles(chosen, text, video, np.sort(caption_clip), tile=2)
    shapes = {tile.shape[1] for _, _, tile in tiles()}
    assert shapes == {VIDEOS}
    np.testing.assert_allclose(tiles.matrix(), chosen.similarity(text, video), rtol=0, atol=4e-5)


def test_the_loss_is_the_sum_of_its_terms(retriever, features):
    text, video = features
    chosen = retriever.with_options(strongpatch_weight=0.3, cdcl_patch_weight=0.5)
    loss, terms = chosen.loss(first_texts(text, VIDEOS), video)
    option = chosen.config.option
    assert float(terms["intra"]) == pytest.approx(
        float(terms["cdcr_video"] + terms["cdcr_frame"] + 0.5 * terms["cdcr_patch"]), rel=1e-6
    )
    contrastive = 0.8 * terms["weak"] + 0.2 * terms["strong"]
    assert float(terms["contrastive"]) == pytest.approx(float(contrastive), rel=1e-6)
    assert float(loss) == pytest.approx(
        float(contrastive + option("cdcl_loss_weight") * terms["intra"]), rel=1e-6
    )
    both = (terms["loss_t2v"] + terms["loss_v2t"]) / 2
    assert float(both) == pytest.approx(float(contrastive), rel=1e-6)
    scores = chosen.scores(first_texts(text, VIDEOS), video, train=True)
    np.testing.assert_allclose(terms["logits_tv"], scores["logits_tv"], rtol=1e-6)


def test_training_scores_differ_from_those_of_evaluation_off_the_diagonal(retriever, features):
    """There every video is pooled by its own text, here by the text it is compared with."""
    text, video = first_texts(features[0], VIDEOS), features[1]
    trained, evaluated = (retriever.scores(text, video, train=train) for train in (True, False))
    for name in ("sentence_video", "frame_weak", "patch_weak"):
        np.testing.assert_allclose(trained[name], evaluated[name], rtol=1e-5, atol=1e-5)
    strong = np.asarray(trained["frame_strong"]), np.asarray(evaluated["frame_strong"])
    np.testing.assert_allclose(np.diag(strong[0]), np.diag(strong[1]), rtol=1e-4, atol=1e-4)
    assert np.abs(strong[0] - strong[1]).max() > 0.1


def test_one_pair_has_no_correlation(retriever, features):
    """NaN, as in the original; a run needs two pairs a step."""
    text, video = first_texts(features[0], 1), jax.tree.map(lambda leaf: leaf[:1], features[1])
    loss, terms = retriever.loss(text, video)
    assert np.isnan(loss) and not np.isnan(terms["weak"])


def test_it_starts_as_clip_with_two_identities(tiny_retriever):
    clip = tiny_retriever("clip")
    sizes = {"temporal_layers": 2, "max_frames": 7}
    fresh = initialise_from_clip(clip, "eercf", jax.random.key(0), sizes=sizes)
    np.testing.assert_array_equal(fresh.params["gating"]["sentence_matrix"], np.eye(WIDTH))
    np.testing.assert_array_equal(fresh.params["gating"]["frame_matrix"], np.eye(7))
    text, temporal = clip.params["text"], fresh.params["aggregation"]
    np.testing.assert_array_equal(temporal["position_embedding"], text["position_embedding"])
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_array_equal(ours, theirs[:2]),
        temporal["transformer"]["blocks"],
        text["transformer"]["blocks"],
    )


@pytest.mark.parametrize("preset", CLIP_PRESETS)
def test_every_released_clip_can_be_gated(preset):
    """ViT-L's joint width is 768, where the original's cross config says 512."""
    clip = CLIP_PRESETS[preset]
    config = recipe_named("eercf").config(clip)
    retriever = abstract_retriever(config)
    width, patches = clip.embed_dim, clip.vision.patches
    assert retriever.params["gating"]["sentence_matrix"].shape == (width, width)

    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    text = TextFeatures(shape(4, width), shape(4, 32, width), shape(4, 32))
    rows = shape(4, 12, width)
    video = VideoFeatures(rows, rows, None, shape(4, 12, patches, width), shape(4, 12))
    loss, terms = jax.eval_shape(lambda r, *both: r.loss(*both), retriever, text, video)
    assert loss.shape == () and terms["logits_tv"].shape == (4, 4)
