"""DRL and BackBone_tvr: what is refused, what the loss is made of, how the two relate."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from vtr_jax.convert.from_state_dict import retriever_from_state_dict, to_state_dict
from vtr_jax.models.interactions.channel_decorrelation import draw_picks
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import abstract_retriever

NO_CDCR = {"cdcr": 0, "agg_module": "None"}
WTI = {"interaction": "wti", "agg_module": "None"}
INTERACTIONS = ("dp", "ti", "wti", "xti")


@pytest.fixture(scope="module")
def encoded(tiny_retriever, tiny_batch):
    """Features of the tiny batch; the towers are equal in every recipe."""
    retriever = tiny_retriever("drl", **WTI)
    text = retriever.encode_text(tiny_batch["token_ids"], tiny_batch["token_mask"])
    return text, retriever.encode_video(tiny_batch["frames"], tiny_batch["frame_mask"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interaction": "mlp"}, "interaction mlp: the original builds it but cannot"),
        ({"interaction": "wi"}, "interaction: expected one of dp, ti, wti, xti, got 'wi'"),
        ({"wti_arch": 0}, "wti_arch: expected one of 1, 2, 3, got 0"),
        ({"wti_arch": 4}, "wti_arch: expected one of 1, 2, 3, got 4"),
        ({"cdcr": 4}, "cdcr: expected one of 0, 1, 2, 3, got 4"),
        ({"cdcr": True}, "cdcr: expected one of 0, 1, 2, 3, got True"),
        ({"interaction": "ti"}, "cdcr=3 weighs words and frames, and .* ti has no weights"),
        ({"agg_module": "tightTransf"}, "agg_module: expected one of None, .* got 'tightTransf'"),
        ({"cdcr_lambda": "0.1"}, "cdcr_lambda: expected a number, got '0.1'"),
        ({"linear_patch": "3d"}, "linear_patch=3d contradicts a 2d patch embedding"),
        ({"lstm_longest": 0}, "lstm_longest: expected a number of frames or None, got 0"),
    ],
)
def test_what_is_undefined_is_refused(options, words, tiny_clip):
    with pytest.raises(ValueError, match=words):
        recipe_named("drl").config(tiny_clip, options)


def test_eight_heads_have_to_divide_the_width(tiny_clip):
    narrow = dataclasses.replace(tiny_clip, text=dataclasses.replace(tiny_clip.text, embed_dim=20))
    with pytest.raises(ValueError, match="xti has 8 heads, which do not divide .* width 20"):
        recipe_named("drl").config(narrow, {"interaction": "xti"})


def test_options_of_another_interaction_do_not_matter(tiny_clip):
    for options in ({"interaction": "xti", "cdcr": 3}, {"interaction": "dp", "wti_arch": 0}):
        assert recipe_named("drl").config(tiny_clip, options)


@pytest.mark.parametrize("recipe", ["drl", "backbone_tvr"])
def test_a_3d_patch_embedding_works_although_the_original_has_none(recipe, tiny_clip):
    vision = dataclasses.replace(tiny_clip.vision, linear_patch="3d")
    three_d = dataclasses.replace(tiny_clip, vision=vision)
    known = recipe_named(recipe)
    config = known.config(three_d, {"linear_patch": "3d", "agg_module": "seqLSTM"})
    assert "patch_embedding_3d" in abstract_retriever(config).params["visual"]
    assert known.unused(config) == (
        "aggregation/position_embedding",
        "visual/patch_embedding/kernel",
    )


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_training_scores_are_scaled_and_rows_are_texts(interaction, tiny_retriever, encoded):
    retriever = tiny_retriever("drl", interaction=interaction, **NO_CDCR)
    text, video = encoded
    scores = retriever.scores(text, video)
    two = jax.tree.map(lambda leaf: leaf[:2], video)
    assert retriever.similarity(text, two).shape == (3, 2)
    np.testing.assert_array_equal(retriever.similarity(text, video), scores["logits_tv"])
    trained = retriever.scores(text, video, train=True)
    assert set(trained) == set(scores)
    scale = np.exp(2.0)
    for name, matrix in scores.items():
        np.testing.assert_allclose(trained[name], scale * matrix, rtol=1e-6, atol=1e-6)
    if interaction in ("ti", "wti"):
        np.testing.assert_allclose(
            scores["logits_tv"], (scores["t2v"] + scores["v2t"]) / 2, atol=1e-7
        )


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_reads_names_all_that_similarity_reads(interaction, tiny_retriever, encoded):
    retriever = tiny_retriever("drl", interaction=interaction, **NO_CDCR)
    text, video = encoded
    reads = retriever.recipe.reads(retriever.config)

    def without_the_rest(features, kept):
        changes = {
            field.name: getattr(features, field.name)[:, :0]  # as an evaluation empties them
            for field in dataclasses.fields(features)
            if field.name not in {*kept, "mask"} and getattr(features, field.name) is not None
        }
        return dataclasses.replace(features, **changes)

    np.testing.assert_array_equal(
        retriever.similarity(without_the_rest(text, reads), without_the_rest(video, reads)),
        retriever.similarity(text, video),
    )


@pytest.mark.parametrize("cdcr", [0, 2, 3])
def test_the_loss_is_contrast_and_decorrelation(cdcr, tiny_retriever, encoded):
    retriever = tiny_retriever("drl", **WTI, cdcr=cdcr, cdcr_lambda=0.5)
    loss, terms = retriever.loss(*encoded)
    expected = terms["contrastive"] + 0.5 * terms["cdcr"]
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert (float(terms["cdcr"]) > 0) == (cdcr > 0)
    np.testing.assert_array_equal(terms["logits_vt"], terms["logits_tv"].T)
    assert terms["state"] == {}


def test_drawn_words_and_frames_need_a_key_or_picks(tiny_retriever, encoded):
    retriever = tiny_retriever("drl", **WTI, cdcr=1)
    text, video = encoded
    with pytest.raises(ValueError, match=r"rng=.*picks=|rng or picks"):
        retriever.loss(text, video)
    key = jax.random.key(4)
    drawn = retriever.loss(text, video, rng=key)[0]
    picks = draw_picks(key, text.mask, video.mask)
    assert float(retriever.loss(text, video, picks=picks)[0]) == float(drawn)
    losses = {float(retriever.loss(text, video, rng=jax.random.key(i))[0]) for i in range(6)}
    assert len(losses) > 1


def test_decorrelation_of_dp_draws_nothing(tiny_retriever, encoded):
    losses = {
        float(tiny_retriever("drl", interaction="dp", agg_module="None", cdcr=n).loss(*encoded)[0])
        for n in (1, 3)
    }
    assert len(losses) == 1


def test_each_direction_of_xti_has_a_dropout_of_its_own(tiny_retriever, encoded):
    retriever = tiny_retriever("drl", interaction="xti", **NO_CDCR)
    quiet = retriever.loss(*encoded)[1]
    np.testing.assert_array_equal(quiet["logits_vt"], quiet["logits_tv"].T)
    terms = retriever.loss(*encoded, rng=jax.random.key(1))[1]
    assert np.abs(terms["logits_tv"] - quiet["logits_tv"]).max() > 1e-3
    assert np.abs(terms["logits_vt"] - terms["logits_tv"].T).max() > 1e-3
    again = retriever.with_runtime(cross_tile=2).loss(*encoded, rng=jax.random.key(1))[1]
    # Dropout belongs to the pair and not to its tile.
    np.testing.assert_allclose(again["logits_tv"], terms["logits_tv"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("interaction", ["ti", "wti", "xti"])
def test_scores_do_not_depend_on_the_tile(interaction, tiny_retriever, encoded):
    retriever = tiny_retriever("drl", interaction=interaction, **NO_CDCR)
    tiled = retriever.with_runtime(tile=2, cross_tile=2)
    np.testing.assert_allclose(
        tiled.similarity(*encoded), retriever.similarity(*encoded), rtol=1e-5, atol=1e-6
    )


def test_backbone_tvr_is_drl_with_two_layers_and_without_decorrelation(tiny_retriever, encoded):
    """Their files load into each other."""
    backbone = tiny_retriever("backbone_tvr", agg_module="None")
    state_dict = to_state_dict(backbone)
    heads = {"vision_heads": 2, "text_heads": 2}
    drl = retriever_from_state_dict(state_dict, "drl", cdcr=0, **heads)
    assert drl.config.option("wti_arch") == 2
    np.testing.assert_array_equal(drl.similarity(*encoded), backbone.similarity(*encoded))
    assert float(drl.loss(*encoded)[0]) == float(backbone.loss(*encoded)[0])
    back = retriever_from_state_dict(to_state_dict(drl), "backbone_tvr", **heads)
    jax.tree.map(np.testing.assert_array_equal, back.params, backbone.params)


def test_an_empty_clip_is_zero_in_backbone_tvr_and_nan_in_drl(tiny_retriever, encoded):
    text, video = encoded
    emptied = dataclasses.replace(video, mask=video.mask.at[1].set(0))
    backbone = np.asarray(
        tiny_retriever("backbone_tvr", agg_module="None").similarity(text, emptied)
    )
    assert (backbone[:, 1] == 0).all() and np.isfinite(backbone).all()
    for interaction in ("dp", "ti", "wti"):
        retriever = tiny_retriever("drl", interaction=interaction, **NO_CDCR)
        logits_tv = np.asarray(retriever.similarity(text, emptied))
        assert np.isnan(logits_tv[:, 1]).all() and np.isfinite(logits_tv[:, [0, 2]]).all()


@pytest.mark.parametrize("recipe", ["drl", "backbone_tvr"])
@pytest.mark.parametrize("spelling", ["None", "none", "meanP", None])
def test_every_spelling_of_no_aggregation_is_known(recipe, spelling, tiny_clip, tiny_retriever):
    """A command line turns --agg_module=None into the value None."""
    config = recipe_named(recipe).config(tiny_clip, {"agg_module": spelling})
    assert "aggregation" not in abstract_retriever(config).params
    state_dict = to_state_dict(tiny_retriever(recipe, agg_module="None"))
    heads = {"vision_heads": 2, "text_heads": 2}
    assert retriever_from_state_dict(state_dict, recipe, agg_module=spelling, **heads)


def test_names_tell_the_interaction_or_it_has_to_be_said(tiny_retriever):
    heads = {"vision_heads": 2, "text_heads": 2}
    dp = to_state_dict(tiny_retriever("drl", interaction="dp", **NO_CDCR))
    with pytest.raises(ValueError, match="do not tell which interaction it has: give dp or ti"):
        retriever_from_state_dict(dp, "drl", **heads)
    with pytest.raises(ValueError, match="interaction=wti contradicts its names.* dp or ti"):
        retriever_from_state_dict(dp, "drl", interaction="wti", **heads)
    assert retriever_from_state_dict(dp, "drl", interaction="ti", cdcr=2, **heads)
    wti = to_state_dict(tiny_retriever("drl", **WTI, wti_arch=3))
    assert retriever_from_state_dict(wti, "drl", **heads).config.option("wti_arch") == 3
    with pytest.raises(ValueError, match="wti_arch=2 contradicts its names, which say 3"):
        retriever_from_state_dict(wti, "drl", wti_arch=2, **heads)
    mlp = {**dp, "similarity_dense.0.weight": np.zeros((32, 64), np.float32)}
    with pytest.raises(ValueError, match="interaction mlp: the original builds it but cannot"):
        retriever_from_state_dict(mlp, "drl", **heads)
