"""The public interface of a retriever: inputs, masks, batching, gradients, compilation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr

from vtr_jax.convert.from_state_dict import to_state_dict
from vtr_jax.data.pixels import PIXEL_MEAN, PIXEL_STD
from vtr_jax.models.features import TextFeatures, VideoFeatures
from vtr_jax.models.retriever import Retriever, init_retriever, normalised_frames

MEAN_P = {"sim_header": "meanP"}
SEQ_TRANSF = {"sim_header": "seqTransf"}
SEQ_TRANSF_3D = {"sim_header": "seqTransf", "linear_patch": "3d"}
RECIPES = [("clip", {}), ("clip4clip", MEAN_P), ("clip4clip", SEQ_TRANSF)]


def encode(retriever, batch):
    text = retriever.encode_text(batch["token_ids"], batch["token_mask"])
    video = retriever.encode_video(batch["frames"], batch["frame_mask"])
    return text, video


def logits_of(retriever, batch):
    return np.asarray(retriever.similarity(*encode(retriever, batch)))


@pytest.mark.parametrize(("recipe", "options"), RECIPES)
def test_features_and_scores_have_the_promised_form(recipe, options, tiny_retriever, tiny_batch):
    retriever = tiny_retriever(recipe, **options)
    text, video = encode(retriever, tiny_batch)
    assert text.sentence.shape == (3, 32)
    assert text.tokens.shape == (3, 8, 32)
    assert video.frames.shape == video.temporal.shape == (3, 3, 32)
    assert video.pooled is None
    assert (video.patches is None) == (recipe != "clip")
    np.testing.assert_array_equal(text.mask, tiny_batch["token_mask"])
    np.testing.assert_array_equal(video.mask, tiny_batch["frame_mask"])
    logits_tv = retriever.similarity(text, video)
    assert logits_tv.shape == (3, 3)
    for array in (text.sentence, text.tokens, video.frames, video.temporal, logits_tv):
        assert array.dtype == jnp.float32
        assert np.isfinite(array).all()
    np.testing.assert_array_equal(retriever.scores(text, video)["logits_tv"], logits_tv)
    assert (options == SEQ_TRANSF) != np.array_equal(video.frames, video.temporal)


def test_uint8_and_normalised_frames_give_equal_results(tiny_retriever, tiny_batch):
    retriever, mask = tiny_retriever(), tiny_batch["frame_mask"]
    pixels = tiny_batch["frames"]
    from_pixels = retriever.encode_video(pixels, mask)
    floats = (pixels.astype(np.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
    from_floats = retriever.encode_video(floats, mask)
    # Padded frames included: both are zero after normalising.
    np.testing.assert_allclose(from_pixels.frames, from_floats.frames, atol=1e-5)
    np.testing.assert_allclose(from_pixels.patches, from_floats.patches, atol=1e-5)


def test_masked_frames_are_zero_after_normalising(tiny_batch):
    mask = jnp.asarray(tiny_batch["frame_mask"])
    frames = np.asarray(normalised_frames(jnp.asarray(tiny_batch["frames"]), mask))
    assert not frames[np.asarray(mask) == 0].any()
    expected = (tiny_batch["frames"] / 255 - PIXEL_MEAN) / PIXEL_STD
    np.testing.assert_allclose(frames[0], expected[0], atol=1e-6)
    black = normalised_frames(jnp.zeros((1, 1, 2, 2, 3), jnp.uint8), jnp.ones((1, 1)))
    assert black.max() < -1


def test_what_a_masked_frame_shows_reaches_nothing(tiny_retriever, tiny_batch):
    shown = np.where(tiny_batch["frame_mask"][:, :, None, None, None] > 0, tiny_batch["frames"], 99)
    changed = {**tiny_batch, "frames": shown.astype(np.uint8)}
    retriever = tiny_retriever("clip4clip", **SEQ_TRANSF_3D)
    np.testing.assert_array_equal(logits_of(retriever, tiny_batch), logits_of(retriever, changed))


@pytest.mark.parametrize("options", [MEAN_P, SEQ_TRANSF])
def test_padded_frames_do_not_change_the_similarity(options, tiny_retriever, tiny_batch):
    retriever = tiny_retriever("clip4clip", **options)
    padded = {
        **tiny_batch,
        "frames": np.pad(tiny_batch["frames"], ((0, 0), (0, 2), (0, 0), (0, 0), (0, 0))),
        "frame_mask": np.pad(tiny_batch["frame_mask"], ((0, 0), (0, 2))),
    }
    np.testing.assert_allclose(
        logits_of(retriever, tiny_batch), logits_of(retriever, padded), atol=1e-4
    )


def test_padded_tokens_do_not_change_the_sentence(tiny_retriever, tiny_batch):
    retriever = tiny_retriever()
    longer = np.pad(tiny_batch["token_ids"], ((0, 0), (0, 4)))
    text = retriever.encode_text(tiny_batch["token_ids"], tiny_batch["token_mask"])
    more = retriever.encode_text(longer, (longer != 0).astype(np.int32))
    np.testing.assert_allclose(text.sentence, more.sentence, atol=1e-5)
    np.testing.assert_allclose(text.tokens, more.tokens[:, :8], atol=1e-5)


def test_results_do_not_depend_on_batching(tiny_retriever, tiny_batch):
    retriever = tiny_retriever("clip4clip", **SEQ_TRANSF)
    text, video = encode(retriever, tiny_batch)
    one_by_one = [
        encode(retriever, {name: array[i : i + 1] for name, array in tiny_batch.items()})
        for i in range(3)
    ]
    for i, (one_text, one_video) in enumerate(one_by_one):
        np.testing.assert_allclose(one_text.sentence[0], text.sentence[i], atol=1e-5)
        np.testing.assert_allclose(one_video.temporal[0], video.temporal[i], atol=1e-5)
    logits = np.asarray(retriever.similarity(text, video))
    tile = retriever.similarity(*one_by_one[1])
    np.testing.assert_allclose(tile[0, 0], logits[1, 1], atol=1e-4)


def test_a_clip_without_frames_is_a_column_of_nan_and_nothing_else_is(tiny_retriever, tiny_batch):
    mask = tiny_batch["frame_mask"].copy()
    mask[2] = 0
    for options in (MEAN_P, SEQ_TRANSF):
        retriever = tiny_retriever("clip4clip", **options)
        logits = logits_of(retriever, {**tiny_batch, "frame_mask": mask})
        assert np.isnan(logits[:, 2]).all()
        np.testing.assert_allclose(
            logits[:, :2], logits_of(retriever, tiny_batch)[:, :2], atol=1e-5
        )


def test_bfloat16_gives_float32_near_float32(tiny_retriever, tiny_batch):
    """bfloat16 has 8 bits, so each rounding is off by up to 0.4 %.

    Some thirty roundings in a row come to one or two per cent of the largest number; a wrong
    mask, norm or activation shows as a difference as large as the numbers themselves.
    """
    retriever = tiny_retriever("clip4clip", **SEQ_TRANSF)
    half = retriever.with_runtime(compute_dtype="bfloat16")
    for ours, exact in zip(encode(half, tiny_batch), encode(retriever, tiny_batch), strict=True):
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
            assert a.dtype == b.dtype
            assert np.abs(a - b).max() <= 0.03 * np.abs(b).max()
    difference = np.abs(logits_of(half, tiny_batch) - logits_of(retriever, tiny_batch)).max()
    assert 1e-4 < difference < 0.3
    assert jax.tree.leaves(half.params)[0].dtype == jnp.float32


def test_remat_reaches_every_stack(tiny_retriever, tiny_batch):
    """That it changes no number is tested on the stack itself."""

    def recomputed(retriever):
        return str(jax.make_jaxpr(encode)(retriever, tiny_batch)).count("prevent_cse=False")

    retriever = tiny_retriever("clip4clip", **SEQ_TRANSF)
    # Norms and activations are recomputed in any case.
    assert recomputed(retriever.with_runtime(remat=True)) == recomputed(retriever) + 3


def test_activation_changes_the_features(tiny_retriever, tiny_batch):
    quick = encode(tiny_retriever(), tiny_batch)
    exact = encode(tiny_retriever(activation="gelu"), tiny_batch)
    for one, other in ((quick[0].sentence, exact[0].sentence), (quick[1].frames, exact[1].frames)):
        assert 1e-4 < np.abs(one - other).max() < 1


@pytest.fixture(scope="module")
def gradients(tiny_retriever, tiny_batch):
    """Of the loss, for a recipe with every part built so far and a key that is never used."""

    @jax.jit
    @jax.grad
    def gradient(retriever, batch):
        return retriever.loss(*encode(retriever, batch))[0]

    return gradient(tiny_retriever("clip4clip", **SEQ_TRANSF_3D), tiny_batch)


def test_gradient_of_a_retriever_is_a_retriever(gradients, tiny_retriever):
    retriever = tiny_retriever("clip4clip", **SEQ_TRANSF_3D)
    assert isinstance(gradients, Retriever)
    assert gradients.config == retriever.config
    shapes = jax.tree.map(lambda leaf: leaf.shape, gradients.params)
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, retriever.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_gradients_are_named_by_the_original_keys(gradients, tiny_retriever):
    named = to_state_dict(gradients)
    assert set(named) == set(to_state_dict(tiny_retriever("clip4clip", **SEQ_TRANSF_3D)))
    unused = named.pop("clip.visual.conv1.weight")
    assert unused.shape == (32, 3, 8, 8)
    assert not unused.any()
    assert [key for key, gradient in named.items() if not gradient.any()] == []


def test_gradient_is_the_slope_of_the_loss(gradients, tiny_retriever, tiny_batch):
    retriever, slope = tiny_retriever("clip4clip", **SEQ_TRANSF_3D), jax.device_get(gradients)

    def loss_at(step):
        moved = jax.tree.map(lambda p, g: np.asarray(p) + step * g, retriever, slope)
        return float(moved.loss(*encode(moved, tiny_batch))[0])

    length = sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(slope))
    step = 0.01 / length
    np.testing.assert_allclose((loss_at(step) - loss_at(-step)) / (2 * step), length, rtol=0.02)


def test_loss_says_its_terms(tiny_retriever, tiny_batch):
    retriever = tiny_retriever("clip4clip", **SEQ_TRANSF)
    text, video = encode(retriever, tiny_batch)
    loss, terms = retriever.loss(text, video)
    names = {"logits_tv", "logits_vt", "loss_t2v", "loss_v2t", "contrastive", "cdcr", "state"}
    assert set(terms) == names
    # Jitted and eager arithmetic may round the mean's last bit differently.
    np.testing.assert_allclose(loss, (terms["loss_t2v"] + terms["loss_v2t"]) / 2, rtol=3e-7)
    np.testing.assert_array_equal(terms["logits_vt"], terms["logits_tv"].T)
    for scores in (retriever.scores(text, video), retriever.scores(text, video, train=True)):
        np.testing.assert_allclose(terms["logits_tv"], scores["logits_tv"], atol=1e-5)
    assert terms["state"] == retriever.state


def test_a_retriever_is_a_pytree(tiny_retriever):
    retriever = tiny_retriever("clip4clip", **SEQ_TRANSF)
    leaves, tree = jax.tree.flatten(retriever)
    again = jax.tree.unflatten(tree, leaves)
    assert again.config == retriever.config
    assert again.runtime == retriever.runtime
    assert all(a is b for a, b in zip(leaves, jax.tree.leaves(again), strict=True))
    placed = jax.device_put(retriever, jax.devices()[0])
    assert isinstance(placed, Retriever)
    doubled = jax.jit(lambda r: jax.tree.map(lambda leaf: 2 * leaf, r))(retriever)
    np.testing.assert_allclose(doubled.params["logit_scale"], 4.0)
    assert doubled.with_state({"mu": 1}).state == {"mu": 1}
    assert doubled.state == {}


def constants_in(program) -> int:
    """Elements of the largest constant inside a traced program, nested ones included."""
    sizes = [np.size(constant) for constant in program.consts]
    for equation in program.jaxpr.eqns:
        inner = [p for p in equation.params.values() if isinstance(p, ClosedJaxpr)]
        sizes += [constants_in(part) for part in inner]
    return max(sizes, default=0)


def test_weights_are_arguments_of_the_program_and_not_constants(tiny_retriever, tiny_batch):
    def similarity(retriever, batch):
        return retriever.similarity(*encode(retriever, batch))

    retriever = tiny_retriever("clip4clip", **SEQ_TRANSF)
    smallest_matrix = 32 * 32
    assert constants_in(jax.make_jaxpr(similarity)(retriever, tiny_batch)) < smallest_matrix
    captured = jax.make_jaxpr(lambda batch: similarity(retriever, batch))(tiny_batch)
    assert constants_in(captured) >= smallest_matrix  # so the measure sees them


def test_fresh_parameters_follow_the_key(tiny_retriever):
    config = tiny_retriever().config
    first, same, other = (init_retriever(config, jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first.params, same.params)
    assert not np.allclose(first.params["text"]["projection"], other.params["text"]["projection"])
    np.testing.assert_allclose(first.params["logit_scale"], np.log(1 / 0.07), atol=1e-4)
    kernel = np.asarray(first.params["visual"]["transformer"]["blocks"]["attn"]["qkv"]["kernel"])
    assert not np.allclose(kernel[0], kernel[1])  # layers are drawn apart


@pytest.mark.parametrize(
    ("ids", "mask", "words"),
    [
        ((8,), (8,), r"token_ids: expected \[batch, tokens\], got shape \(8,\)"),
        ((2, 8), (2, 7), r"token_mask: expected the shape of token_ids \(2, 8\), got \(2, 7\)"),
        ((2, 13), (2, 13), "13 tokens a caption, but this text tower has 12 positions"),
    ],
)
def test_captions_of_the_wrong_form_are_refused(ids, mask, words, tiny_retriever):
    with pytest.raises(ValueError, match=words):
        tiny_retriever().encode_text(np.zeros(ids, np.int32), np.zeros(mask, np.int32))


@pytest.mark.parametrize(
    ("frames", "mask", "dtype", "words"),
    [
        ((3, 16, 16, 3), (3,), np.uint8, r"one clip needs a batch axis: frames\[None\]"),
        ((1, 3, 16, 8, 3), (1, 3), np.uint8, r"\[batch, frames, 16, 16, 3\], got shape"),
        ((1, 3, 3, 16, 16), (1, 3), np.float32, r"expected \[batch, frames, 16, 16, 3\]"),
        ((1, 3, 16, 16, 3), (1, 3), np.int32, "uint8 pixels or normalised floats, got dtype int32"),
        ((1, 3, 16, 16, 3), (1, 2), np.uint8, r"frame_mask: .* = \(1, 3\), got \(1, 2\)"),
    ],
)
def test_frames_of_the_wrong_form_are_refused(frames, mask, dtype, words, tiny_retriever):
    with pytest.raises(ValueError, match=words):
        tiny_retriever().encode_video(np.zeros(frames, dtype), np.ones(mask, np.int32))


def test_swapped_or_foreign_features_are_refused(tiny_retriever):
    text = TextFeatures(*(np.ones((1, 2)) for _ in range(3)))
    video = VideoFeatures(*(np.ones((1, 2)) for _ in range(5)))
    retriever = tiny_retriever()
    for compare in (retriever.similarity, retriever.scores, retriever.loss):
        with pytest.raises(ValueError, match="got VideoFeatures, then TextFeatures: they are swap"):
            compare(video, text)
        with pytest.raises(
            ValueError, match=r"expected \(text, video\): .*; got ndarray, then Vid"
        ):
            compare(text.sentence, video)


def test_features_are_pytrees():
    text = TextFeatures(jnp.ones(2), jnp.ones(3), jnp.ones(4))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, text)
    assert isinstance(doubled, TextFeatures)
    np.testing.assert_array_equal(doubled.tokens, 2 * np.ones(3))


def test_a_loss_needs_pairs(tiny_retriever, tiny_batch):
    retriever = tiny_retriever("drl", interaction="ti", cdcr=1)
    text, video = encode(retriever, tiny_batch)
    fewer = jax.tree.map(lambda leaf: leaf[:2], video)
    with pytest.raises(ValueError, match="got 3 texts and 2 videos"):
        retriever.loss(text, fewer, picks=(np.zeros(3, int), np.zeros(3, int)))
    with pytest.raises(ValueError, match=r"expected video_index of shape \(3,\), got \(1,\)"):
        retriever.loss(text, video, picks=(np.zeros(3, int), np.zeros(1, int)))
    with pytest.raises(ValueError, match=r"text_index must lie in 0\.\.7, got \[0, 99, 0\]"):
        retriever.loss(text, video, picks=(np.array([0, 99, 0]), np.zeros(3, int)))
    with pytest.raises(ValueError, match="draws samples: pass rng"):
        retriever.loss(text, video)
