"""Steps that are not applied: left out and counted, or the end of the run; always told."""

from __future__ import annotations

import math

import pytest

import vtr_jax.training.loop as loop
from vtr_jax.checkpoint import load_retriever
from vtr_jax.training.loop import DivergedError, train
from vtr_jax.training.progress import MAX_REFUSED_IN_A_ROW
from vtr_jax.training.run import Run
from vtr_jax.training.run_log import read_log


@pytest.fixture
def train_with(tiny_config, tmp_path, monkeypatch, as_step, capsys):
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

        monkeypatch.setattr(loop, "compile_train_step", lambda *_: as_step(fake_step))
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


LOWER = " and a lower optimizer.learning_rate; metrics.jsonl names the clips"
ANEW = f"start a new --workdir{LOWER}"
FROM_HERE = rf"tart a new --workdir, e.g. with --config.init=\S+{LOWER}"
SKIP = "Go on in this --workdir with --config.on_nonfinite=skip, or "
RAISE = "aise --config.spike_factor, in this --workdir too, or "
LOST = {"parameter_norm": math.inf}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (NOT_A_NUMBER, f"6: loss nan, gradient_norm inf, .* 1.0; none was saved .*{SKIP}{ANEW}"),
        (SPIKE, f"step 6: gradient_norm 123.5 is more than .*; none was .*{SKIP}r{RAISE}{ANEW}"),
        # Above every limit, which no limit helps against.
        (SPIKE | NOT_A_NUMBER, f"6: loss nan, gradient_norm inf, .*{SKIP}{ANEW}"),
    ],
)
def test_the_run_stops_unless_told_otherwise(train_with, tmp_path, bad, message):
    with pytest.raises(DivergedError, match=message):
        train_with({6: bad}, {})
    records = read_log(tmp_path / "run")
    assert records[-1]["kind"] == "refused" and len(records[-1]["clips"]) == 8
    assert records[-2]["step"] == 5


@pytest.mark.parametrize(
    ("bad", "advice"), [(NOT_A_NUMBER, f"S{FROM_HERE}"), (SPIKE, f"R{RAISE}s{FROM_HERE}")]
)
def test_a_run_that_only_skips_stops(train_with, bad, advice):
    """What is set already is not advised."""
    refused = dict.fromkeys(range(5, 33), bad)
    last, count = 5 + MAX_REFUSED_IN_A_ROW, MAX_REFUSED_IN_A_ROW + 1
    message = rf"step {last}: .* \({count} such steps in a row\); .* step 24 is kept\. {advice}"
    with pytest.raises(DivergedError, match=message):
        train_with(refused, {"on_nonfinite": "skip"})


@pytest.mark.parametrize("bad", [LOST | {"refused": False}, LOST | NOT_A_NUMBER])
def test_parameters_that_are_no_numbers_cannot_be_skipped(train_with, bad):
    """What is saved next would be lost, and a refused step leaves them as they are."""
    message = f"step 2: .* parameter_norm inf; none .* which skipping cannot mend: {ANEW}"
    with pytest.raises(DivergedError, match=message):
        train_with({2: bad}, {"on_nonfinite": "skip"})


@pytest.mark.parametrize("bad", [NOT_A_NUMBER, LOST | NOT_A_NUMBER])
def test_what_was_saved_is_where_to_go_on_from(train_with, tmp_path, bad):
    with pytest.raises(DivergedError) as raised:
        train_with({6: bad}, {"checkpoint_every": 4})
    message = str(raised.value)
    assert "the checkpoint of step 4 is kept" in message
    assert f"start a new --workdir, e.g. with --config.init={tmp_path / 'run'} and" in message
    repeat = "mend: repeat the command, to go on from the last good checkpoint, or start"
    assert (repeat in message) == ("parameter_norm" in bad)
    assert load_retriever(tmp_path / "run").config.recipe == "clip4clip"
