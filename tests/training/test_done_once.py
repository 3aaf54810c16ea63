"""What a start, a resume and a validation compute only once, or not at all."""

from __future__ import annotations

import contextlib
import shutil

import numpy as np
import pytest

import vtr_jax.training.loop as loop
from vtr_jax.checkpoint import best_checkpoint_step, checkpoint_scores
from vtr_jax.data import preprocess
from vtr_jax.data.batch_plan import BatchPlan
from vtr_jax.evaluation import command, evaluate
from vtr_jax.evaluation.command import EvaluationRequest, run_evaluation
from vtr_jax.evaluation.nonfinite import Nonfinite, NonfiniteScores
from vtr_jax.training import run as run_module
from vtr_jax.training.loop import train
from vtr_jax.training.run_log import read_log


@pytest.fixture
def calls(monkeypatch):
    """Counts calls of functions: calls(module, name) returns the list of their arguments."""

    def count(module, name):
        seen, function = [], getattr(module, name)

        def counted(*arguments, **options):
            seen.append(arguments)
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, counted)
        return seen

    return count


def test_a_start_writes_a_card_and_hashes_no_parameters(tiny_config, tmp_path, calls):
    hashes, cards = calls(evaluate, "retriever_sha256"), calls(run_module, "protocol_card")
    with contextlib.ExitStack() as stack:
        loop._begin(tiny_config(), tmp_path / "run", stack)
    assert (len(hashes), len(cards)) == (0, 1)
    (protocol,) = (r for r in read_log(tmp_path / "run") if r["kind"] == "protocol")
    assert protocol["captions"] == 5 and "checkpoint_sha256" not in protocol


def test_a_resume_makes_no_card_and_hashes_no_parameters(tiny_run, tiny_config, tmp_path, calls):
    workdir = shutil.copytree(tiny_run, tmp_path / "run")
    hashes, cards = calls(evaluate, "retriever_sha256"), calls(run_module, "protocol_card")
    evaluations = calls(run_module, "evaluate_split")
    train(tiny_config(), workdir)
    assert (len(hashes), len(cards), len(evaluations)) == (0, 0, 0)


def test_the_batch_plan_is_made_once(tiny_config, tmp_path, monkeypatch):
    made, of = [], BatchPlan.of
    monkeypatch.setattr(
        BatchPlan, "of", lambda *arguments, **options: made.append(0) or of(*arguments, **options)
    )
    with contextlib.ExitStack() as stack:
        run, _ = loop._begin(tiny_config(), tmp_path / "run", stack)
        with contextlib.closing(run.batches(3)) as batches:
            assert batches.plan is run.plan
            clips = [run.data.train.clips[i].clip_id for i in next(batches)["clip_index"]]
        assert clips == run.clips_of_step(4)
    assert len(made) == 1


def test_an_evaluation_hashes_and_tokenizes_once(
    tiny_run, tiny_dataset, tiny_store, tmp_path, monkeypatch, calls
):
    hashes, encoded = calls(command, "retriever_sha256"), []
    for name in ("tokenize", "count_tokens"):
        function = getattr(preprocess, name)
        monkeypatch.setattr(
            preprocess,
            name,
            lambda texts, *rest, function=function: encoded.extend(texts) or function(texts, *rest),
        )
    request = EvaluationRequest(
        checkpoint=str(tiny_run),
        dataset="table",
        annotations=str(tiny_dataset.captions_file),
        store=str(tiny_store),
        max_words=32,
        output=str(tmp_path),
    )
    run_evaluation(request)
    assert len(hashes) == 1 and len(encoded) == 7


@pytest.mark.parametrize(("max_words", "cut"), [(4, 3), (5, 2), (6, 1), (7, 0)])
def test_only_full_rows_can_be_cut(max_words, cut):
    from vtr_jax.data.split import Split, VideoClip
    from vtr_jax.data.text import tokenize
    from vtr_jax.preprocessing import Preprocessing

    captions = ("a dog", "a dog runs", "a dog runs fast", "a dog runs fast today")
    clips = tuple(VideoClip(f"clip{n}", f"clip{n}.mp4") for n in range(4))
    split = Split("toy", "test", clips, captions, np.arange(4))
    mask = tokenize(captions, max_words)[1]
    assert evaluate._captions_cut(split, mask, Preprocessing(), max_words) == cut


@pytest.fixture
def broken_validation(monkeypatch):
    """Lets the validations with these numbers (from 0) find values that are not finite."""

    evaluate_split = run_module.evaluate_split

    def install(*broken):
        count = iter(range(100))

        def sometimes(retriever, store, split, *rest):
            if next(count) in broken:
                raise NonfiniteScores(Nonfinite((0, 2), (1,)), split)
            return evaluate_split(retriever, store, split, *rest)

        monkeypatch.setattr(run_module, "evaluate_split", sometimes)

    return install


def test_a_checkpoint_that_cannot_be_validated_is_never_the_best(
    tiny_config, tmp_path, broken_validation, capsys
):
    broken_validation(1)
    train(tiny_config({"keep_last": 5}), tmp_path / "run")
    log = read_log(tmp_path / "run")
    scored = [record["step"] for record in log if record["kind"] == "evaluation"]
    found = [record for record in log if record["kind"] == "nonfinite"]
    (step,) = (record["step"] for record in found)
    assert found == [{"kind": "nonfinite", "step": step, "captions": 2, "clips": 1}]
    assert step not in scored and checkpoint_scores(tmp_path / "run", step) == {}
    assert best_checkpoint_step(tmp_path / "run", "t2v R@1") in (scored or [step])
    warning = next(line for line in capsys.readouterr().err.splitlines() if "WARNING" in line)
    assert f"step {step} " in warning and "2 of 5 captions and 1 of 5 clips" in warning


def test_a_run_without_any_score_says_so(tiny_config, tmp_path, broken_validation, capsys):
    broken_validation(*range(10))
    train(tiny_config(), tmp_path / "run")
    assert not any(record["kind"] == "evaluation" for record in read_log(tmp_path / "run"))
    assert "no checkpoint has validation scores" in capsys.readouterr().out
    # The same command tries again, because the checkpoint has no scores.
    broken_validation()
    train(tiny_config(), tmp_path / "run")
    records = [
        r["kind"] for r in read_log(tmp_path / "run") if r["kind"] in ("evaluation", "nonfinite")
    ]
    assert records[-1] == "evaluation"
    assert "best by validation" in capsys.readouterr().out
