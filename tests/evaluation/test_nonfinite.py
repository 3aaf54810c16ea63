"""Values that are not finite are found, named, and never ranked unless allowed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vtr_jax import cli
from vtr_jax.checkpoint import load_retriever, write_retriever
from vtr_jax.data.split import Split, VideoClip
from vtr_jax.data.text import tokenize
from vtr_jax.evaluation.nonfinite import Nonfinite, NonfiniteScores, find_nonfinite
from vtr_jax.evaluation.normalisation import NORMALISATIONS, MatrixTiles, count_both_ways
from vtr_jax.evaluation.report import JSON_FILE, TEXT_FILE, read_report
from vtr_jax.models.clip import fold_token_ids
from vtr_jax.models.features import TextFeatures, VideoFeatures

CLIPS = 6
ONE, SEVERAL = np.arange(CLIPS), np.repeat(np.arange(CLIPS), [1, 2, 3, 1, 1, 2])
BAD = (np.nan, np.inf, -np.inf)


def features(texts):
    rng = np.random.default_rng(texts)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    text_mask = np.array([[1, 1, 0]] * texts, np.int32)
    video_mask = np.array([[1, 0]] * CLIPS, np.int32)
    return (
        TextFeatures(normal(texts, 4), normal(texts, 3, 5), text_mask),
        VideoFeatures(
            normal(CLIPS, 2, 4), normal(CLIPS, 0, 4), None, normal(CLIPS, 2, 3, 4), video_mask
        ),
    )


def found_in(text, video, logits_tv, caption_clip, normalisation="none"):
    tiles = MatrixTiles(logits_tv, caption_clip, 4)
    with np.errstate(all="ignore"):
        counters = count_both_ways(tiles, normalisation).values()
    return find_nonfinite(text, video, tiles, counters if normalisation != "none" else ())


def scores_of(relation):
    return np.random.default_rng(3).normal(size=(len(relation), CLIPS)).astype(np.float32)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("relation", [ONE, SEVERAL], ids=["one", "several"])
def test_finite_values_are_not_reported(relation, normalisation):
    logits_tv = 1e4 * scores_of(relation)
    found = found_in(*features(len(relation)), logits_tv, relation, normalisation)
    assert found == Nonfinite() and not found


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize(
    ("field", "place", "captions", "clips"),
    [
        ("sentence", (2, 1), (2,), ()),
        ("tokens", (3, 1, 0), (3,), ()),
        ("tokens", (3, 2, 0), (), ()),  # padding
        ("frames", (1, 0, 3), (), (1,)),
        ("frames", (1, 1, 3), (), ()),  # padding
        ("patches", (4, 0, 2, 1), (), (4,)),
        ("patches", (4, 1, 2, 1), (), ()),  # padding
    ],
)
def test_features_are_found_apart_from_padding(value, field, place, captions, clips):
    text, video = features(CLIPS)
    getattr(text if field in ("sentence", "tokens") else video, field)[place] = value
    found = found_in(text, video, scores_of(ONE), ONE)
    assert found == Nonfinite(captions, clips)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("relation", [ONE, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize(
    ("cells", "captions", "clips"),
    [
        (np.s_[2, :], (2,), ()),
        (np.s_[:, 3], (), (3,)),
        (np.s_[1, 4], (1,), (4,)),
        (np.s_[0:2, 1:3], (0, 1), (1, 2)),
        (np.s_[:, :], None, None),
    ],
)
def test_scores_are_attributed(relation, cells, captions, clips, value):
    """A caption or clip without a finite score explains them; any other score counts for both."""
    logits_tv = scores_of(relation)
    logits_tv[cells] = value
    found = found_in(*features(len(relation)), logits_tv, relation)
    everything = tuple(range(len(relation))), tuple(range(CLIPS))
    assert (found.captions, found.clips) == (everything if captions is None else (captions, clips))


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("value", BAD)
def test_any_nonfinite_score_is_reported(value, normalisation):
    rng = np.random.default_rng(0)
    for relation in (ONE, SEVERAL):
        for _ in range(20):
            logits_tv = scores_of(relation)
            row, column = rng.integers(len(relation)), rng.integers(CLIPS)
            logits_tv[row, column] = value
            found = found_in(*features(len(relation)), logits_tv, relation, normalisation)
            assert (found.captions, found.clips) == ((row,), (column,))
            assert bool(found.normalized_clips) == (normalisation != "none")


def test_scores_that_only_normalization_spoils_are_reported():
    logits_tv = scores_of(ONE)
    tiles = MatrixTiles(logits_tv, ONE, 4)
    counters = count_both_ways(tiles, "dual_softmax")
    counters["t2v"].nonfinite_of_clip[3] = CLIPS
    counters["t2v"].nonfinite_of_text[:] = 1
    found = find_nonfinite(*features(CLIPS), tiles, counters.values())
    assert found == Nonfinite(normalized_clips=(3,))


def test_the_sentence_counts_all_and_names_some():
    split = Split(
        "toy",
        "test",
        tuple(VideoClip(f"clip{i}", f"clip{i}.mp4") for i in range(5)),
        tuple(f"caption {i}" for i in range(5)),
        np.arange(5),
    )
    found = Nonfinite((0, 1, 2, 4), (3,))
    text = str(NonfiniteScores(found, split))
    assert "4 of 5 captions and 1 of 5 clips of toy test" in text
    assert "'caption 0'" in text and "'caption 4'" not in text and "clip3" in text
    assert "\n" not in text and "--allow_nonfinite" in text
    assert found.to_json(split)["captions"][3] == {
        "index": 4,
        "caption": "caption 4",
        "clip": "clip4",
    }
    assert found.to_json(split)["clips"] == ["clip3"]


@pytest.fixture
def overflowing(tiny_run, tiny_dataset, tmp_path):
    """Arguments of an evaluation whose weights are finite, but overflow on one word.

    Returns them with the captions that have the word, and those of the split.
    """
    from vtr_jax.data.annotations import read_split

    split = read_split("table", tiny_dataset.captions_file, "test")
    retriever = load_retriever(tiny_run)
    params = dict(retriever.params)
    table = np.array(params["text"]["token_embedding"]["embedding"])
    token_ids = np.asarray(fold_token_ids(tokenize(split.captions, 12)[0], len(table)))
    words = [word for word in np.unique(token_ids[:, 1:4]) if word]
    has_word = {word: (token_ids == word).any(axis=1) for word in words}
    word = next(word for word, rows in has_word.items() if not rows.all())
    table[word] = 3e38
    params["text"] = {**params["text"], "token_embedding": {"embedding": table}}
    write_retriever(tmp_path / "broken", retriever.config, params)
    concerned = [split.captions[row] for row in np.flatnonzero(has_word[word])]
    return concerned, split


@pytest.fixture
def evaluate(overflowing, tiny_dataset, tiny_store, tmp_path, capsys):
    """Runs `vtr evaluate` in this process: exit code and standard error."""

    def run(*more):
        code = cli.main(
            [
                *("evaluate", f"--checkpoint={tmp_path / 'broken'}", f"--store={tiny_store}"),
                *(f"--annotations={tiny_dataset.captions_file}", "--max_words=12"),
                *("--max_frames=4", f"--output={tmp_path / 'report'}", *more),
            ]
        )
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("normalisation", ["none", "dual_softmax"])
def test_a_caption_that_overflows_ends_the_evaluation(
    evaluate, overflowing, tmp_path, normalisation
):
    concerned, split = overflowing
    code, error = evaluate(f"--normalisation={normalisation}")
    assert code == 1
    (line,) = [line for line in error.splitlines() if line.startswith("vtr evaluate:")]
    assert repr(concerned[0]) in line
    report = json.loads((tmp_path / "report" / JSON_FILE).read_text())
    named = [each["caption"] for each in report["nonfinite"]["captions"]]
    assert named == concerned and report["results"] == {}
    assert len(report["nonfinite"]["normalized_captions"]) == (0 if normalisation == "none" else 7)
    assert "R@1" not in (tmp_path / "report" / TEXT_FILE).read_text()
    with pytest.raises(ValueError, match="allow_nonfinite"):
        read_report(tmp_path / "report")


def test_they_are_ranked_and_reported_if_allowed(evaluate, overflowing, tmp_path):
    concerned, split = overflowing
    code, _ = evaluate("--allow_nonfinite")
    assert code == 0
    _, results = read_report(tmp_path / "report")
    assert results["t2v"]["queries"] == len(split.captions)
    report = json.loads((tmp_path / "report" / JSON_FILE).read_text())
    assert [each["caption"] for each in report["nonfinite"]["captions"]] == concerned
    assert report["nonfinite"]["clips"] == []
    assert repr(concerned[0]) in (tmp_path / "report" / TEXT_FILE).read_text()
