"""Steps that are not applied: left out and counted, or the end of the run; always told."""

from __future__ import annotations

import math

import pytest

import vtr_jax.training.loop as loop
from vtr_jax.training.loop import DivergedError, train
from vtr_jax.training.progress import MAX_REFUSED_IN_A_ROW
from vtr_jax.training.run import Run
from vtr_jax.training.run_log import read_log


@pytest.fixture
def train_with(tiny_config, tmp_path, monkeypatch, capsys):
    """Trains with a step that changes nothing and refuses some; returns what it printed."""
    monkeypatch.setattr(Run, "evaluate", lambda run: {})

    def run(refused, changes):
        steps, in_all = iter(range(1, 100)), []

        def fake_step(state, batch, key):
            step = next(steps)
            metrics = {"loss": 1.0, "gradient_norm": 1.0, "parameter_norm": 1.0, "logit_scale": 1.0}
            if step in refused:
                in_all.append(step)
                metrics |= refused[step]
            return state, {"refused": step in refused, "refused_in_all": len(in_all), **metrics}

        monkeypatch.setattr(loop, "compile_train_step", lambda *_: fake_step)
        train(tiny_config({"log_every": 4, **changes}), tmp_path / "run")
        return capsys.readouterr().out

    return run


NOT_A_NUMBER = {"loss": math.nan, "gradient_norm": math.inf}
SPIKE = {"gradient_norm": 123.45, "spike": True}


def test_skipped_steps_are_counted_and_their_clips_named(train_with, tmp_path, tiny_config):
    out = train_with({3: NOT_A_NUMBER, 7: SPIKE}, {"on_nonfinite": "skip", "spike_factor": 5.0})
    first, second = (r for r in read_log(tmp_path / "run") if r["kind"] == "refused")
    assert first["found"] == "step 3: loss nan, gradient_norm inf, parameter_norm 1.0"
    assert second["found"] == (
        "step 7: gradient_norm 123.5 is more than spike_factor 5 times the running median"
    )
    assert len(set(first["clips"])) == 8 and all("train_" in clip for clip in first["clips"])
    assert "2 in all; clips " + ", ".join(second["clips"][:5]) in out
    records = [r for r in read_log(tmp_path / "run") if r["kind"] == "train"]
    assert len(records) == 32 and records[2]["loss"] is None
    # The schedule counts the updates that were applied: it waits for a skipped one.
    assert records[3]["learning_rate"] == records[2]["learning_rate"] > 0
    assert [records[i]["refused_in_all"] for i in (1, 2, 6)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (NOT_A_NUMBER, "step 6: loss nan, gradient_norm inf, parameter_norm 1.0; none was saved"),
        (SPIKE, "step 6: gradient_norm 123.5 is more than .*; none was .* on_nonfinite=skip"),
    ],
)
def test_the_run_stops_unless_told_otherwise(train_with, tmp_path, bad, message):
    with pytest.raises(DivergedError, match=message):
        train_with({6: bad}, {})
    records = read_log(tmp_path / "run")
    assert records[-1]["kind"] == "refused" and len(records[-1]["clips"]) == 8
    assert records[-2]["step"] == 5


def test_a_run_that_only_skips_stops(train_with):
    refused = dict.fromkeys(range(5, 33), NOT_A_NUMBER)
    last, count = 5 + MAX_REFUSED_IN_A_ROW, MAX_REFUSED_IN_A_ROW + 1
    with pytest.raises(DivergedError, match=rf"step {last}: .* \({count} such steps in a row\)"):
        train_with(refused, {"on_nonfinite": "skip"})


def test_parameters_that_are_no_numbers_cannot_be_skipped(train_with):
    """Nothing was refused, and yet what is saved next would be lost."""
    with pytest.raises(DivergedError, match="step 2: .* parameter_norm inf"):
        train_with({2: {"refused": False, "parameter_norm": math.inf}}, {"on_nonfinite": "skip"})
