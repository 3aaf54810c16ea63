"""EMCL-Net: what makes it itself, beside the recorded numbers of the original."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vtr_jax.checkpoint import load_retriever, write_retriever
from vtr_jax.models.interactions.emcl_head import emcl_logits, pair_rows
from vtr_jax.models.interactions.expectation_maximisation import EmSettings, emcl
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.recipes.emcl import fresh_mu
from vtr_jax.models.torch_normal import torch_normal

SETTINGS = EmSettings(stages=4, lamd=1.0, beta=2.0, momentum=0.9)


@pytest.fixture(scope="module")
def retriever(tiny_retriever):
    return tiny_retriever("emcl", agg_module="None", mini_batch=2)


@pytest.fixture(scope="module")
def features(retriever, tiny_batch):
    frames, frame_mask, token_ids, token_mask = (
        tiny_batch[name] for name in ("frames", "frame_mask", "token_ids", "token_mask")
    )
    return retriever.encode_text(token_ids, token_mask), retriever.encode_video(frames, frame_mask)


def test_factors_give_what_the_written_out_rows_give():
    random = np.random.default_rng(1)
    sentence = jnp.asarray(random.normal(size=(3, 16)), jnp.float32)
    frames = jnp.asarray(random.normal(size=(4, 5, 16)), jnp.float32)
    mask = jnp.asarray([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    mu = jnp.asarray(random.normal(size=8), jnp.float32)
    rows = pair_rows(sentence, frames, mask, temp=3.0)
    logits, moved = emcl_logits(rows, mu, SETTINGS)
    pooled = jnp.einsum("tvf,vfd->tvd", rows.weights_tvf, frames).reshape(12, 16)
    out, moved_dense = emcl(jnp.concatenate([pooled, sentence]), mu, SETTINGS)
    out = out / jnp.linalg.norm(out, axis=1, keepdims=True)
    dense = jnp.einsum("td,tvd->tv", out[12:], out[:12].reshape(3, 4, 16))
    # Two orders of float32 sums through four EM stages.
    np.testing.assert_allclose(logits, dense, atol=5e-6)
    np.testing.assert_allclose(moved, moved_dense, atol=1e-6)


def test_bases_move_in_training_and_nowhere_else(retriever, features):
    _, terms = retriever.loss(*features)
    assert np.abs(terms["state"]["mu"] - retriever.state["mu"]).max() > 0
    after = retriever.with_state(terms["state"])
    assert np.abs(after.similarity(*features) - retriever.similarity(*features)).max() > 0
    np.testing.assert_array_equal(retriever.state["mu"], fresh_mu(0, 32))


def test_a_pairs_score_depends_on_its_block_alone(retriever, features):
    text, video = features
    whole = retriever.similarity(text, video)
    first = jax.tree.map(lambda leaf: leaf[:2], (text, video))
    np.testing.assert_allclose(whole[:2, :2], retriever.similarity(*first), atol=2e-6)
    together = retriever.scores(text, video, train=True)["logits_tv"]
    assert np.abs(together - whole).max() > 1e-4


def test_state_is_saved_and_restored(retriever, tmp_path):
    moved = {"mu": jnp.linspace(-1, 1, 32)[None, :]}
    write_retriever(tmp_path / "r", retriever.config, retriever.params, state=moved)
    np.testing.assert_array_equal(load_retriever(tmp_path / "r").state["mu"], moved["mu"])


def test_the_patch_embedding_has_no_gradient(retriever, tiny_batch):
    def loss(r):
        text = r.encode_text(tiny_batch["token_ids"], tiny_batch["token_mask"])
        video = r.encode_video(tiny_batch["frames"], tiny_batch["frame_mask"])
        return r.loss(text, video)[0]

    visual = jax.grad(loss)(retriever).params["visual"]
    assert not np.any(visual["patch_embedding"]["kernel"])
    assert np.any(visual["class_embedding"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"centerK": 0}, "centerK: expected a whole number of 1 or more, got 0"),
        ({"stage_num": 2.5}, "stage_num: expected a whole number"),
        ({"lamd": 0}, "lamd: expected a positive number, got 0"),
        ({"momentum": 1.5}, "momentum: expected a number from 0 to 1"),
        ({"beta": "much"}, "beta: expected a number"),
        ({"mu": -1}, "mu: expected a seed of 0 or more"),
        ({"mu": [1.0, 2.0]}, "mu: expected centerK=32 values, got 2"),
        ({"agg_module": "tight"}, "agg_module: expected one of"),
    ],
)
def test_impossible_options_are_refused(tiny_clip, options, words):
    with pytest.raises(ValueError, match=words):
        recipe_named("emcl").config(tiny_clip, options)


def test_bases_may_be_given(tiny_clip):
    values = np.linspace(0, 1, 4, dtype=np.float32)[None, :]
    config = recipe_named("emcl").config(tiny_clip, {"centerK": 4, "mu": values})
    state = recipe_named("emcl").state(config, jax.random.key(0))
    np.testing.assert_allclose(state["mu"], values)
    assert hash(config) == hash(
        recipe_named("emcl").config(tiny_clip, {"centerK": 4, "mu": values.tolist()[0]})
    )


@pytest.mark.parametrize("count", [1, 7, 16, 21, 40])
def test_torch_normal_repeats_its_seed(count):
    drawn = torch_normal(3, count)
    assert drawn.dtype == np.float32
    assert drawn.shape == (count,)
    np.testing.assert_array_equal(drawn, torch_normal(3, count))
    assert np.abs(torch_normal(4, count) - drawn).max() > 0
    with pytest.raises(ValueError, match="seed: expected 0 or more"):
        torch_normal(-1, count)


def test_bases_of_another_number_are_refused(retriever, features):
    other = retriever.with_state({"mu": jnp.ones((1, 8))})
    with pytest.raises(ValueError, match=r"state mu: expected shape \(1, 32\) .* got \(1, 8\)"):
        other.similarity(*features)
