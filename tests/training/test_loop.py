"""Whole runs: they learn, they repeat bit by bit, they survive being stopped anywhere."""

from __future__ import annotations

import math
import re
import types

import jax
import numpy as np
import pytest

import vtr_jax.training.loop as loop
import vtr_jax.training.progress as progress
from vtr_jax.checkpoint import load_retriever
from vtr_jax.training.checkpoints import RunCheckpoints
from vtr_jax.training.loop import DivergedError, train
from vtr_jax.training.run import Run
from vtr_jax.training.run_log import LOG_FILE, read_log

LAST_STEP = 32


class Stopped(Exception):
    """What a test raises in the middle of a run."""


def checkpoint_steps(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def stop_before_step(monkeypatch, first, step):
    """Let the run that starts after step `first` fail before it computes `step`."""
    put_batch, count = loop.put_batch, iter(range(first + 1, 100))

    def stop(batch, mesh):
        if next(count) == step:
            raise Stopped
        return put_batch(batch, mesh)

    monkeypatch.setattr(loop, "put_batch", stop)


@pytest.fixture(scope="module")
def compiled_steps():
    return {}


@pytest.fixture
def one_compilation(compiled_steps, monkeypatch):
    """Runs with equal settings share a compiled step, as they would share a process."""
    compile_train_step = loop.compile_train_step

    def shared(settings, state, mesh):
        if not compiled_steps:
            compiled_steps["step"] = compile_train_step(settings, state, mesh)
        return compiled_steps["step"]

    monkeypatch.setattr(loop, "compile_train_step", shared)


def test_a_run_learns_its_training_pairs(tiny_run):
    losses = [record["loss"] for record in read_log(tiny_run) if record["kind"] == "train"]
    assert len(losses) == LAST_STEP
    # From the logarithm of the batch size, which is guessing, down.
    assert losses[0] > 0.9 * math.log(8)
    assert np.mean(losses[-4:]) < 0.9 * math.log(8)


def test_what_a_run_writes_down(tiny_run, tiny_config):
    records = read_log(tiny_run)
    assert records[0]["kind"] == "protocol" and records[0]["split"] == "val"
    train_records = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in train_records] == list(range(1, LAST_STEP + 1))
    assert train_records[0]["learning_rate"] == 0.0
    rates = [record["learning_rate"] for record in train_records]
    assert max(rates) == rates[4] and rates[4] < 1e-3
    assert all(r["clip_learning_rate"] == r["learning_rate"] for r in train_records)
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    assert [record["step"] for record in evaluations] == [8, 16, 24, 32]
    assert {"t2v R@1", "t2v MdR", "v2t R@10", "v2t queries"} <= evaluations[0].keys()
    # What no two runs share is in records of its own, one for every printed line.
    speeds = [record for record in records if record["kind"] == "speed"]
    assert [record["step"] for record in speeds] == [8, 16, 24, 32]
    assert all(r.keys() == {"kind", "step", "clips_per_second", "waiting_share"} for r in speeds)
    assert all(r["clips_per_second"] > 0 and 0 <= r["waiting_share"] < 1 for r in speeds)
    others = [record for record in records if record["kind"] != "speed"]
    assert not any("second" in name or "waiting" in name for r in others for name in r)


def test_the_last_checkpoints_and_the_best_are_kept(tiny_run):
    scores = {r["step"]: r["t2v R@1"] for r in read_log(tiny_run) if r["kind"] == "evaluation"}
    best = max(scores, key=lambda step: (scores[step], step))
    assert checkpoint_steps(tiny_run) == sorted({24, 32, best})


def test_the_same_settings_give_the_same_run(tiny_config, tiny_run, tmp_path, soak_kills):
    # Speed settings, and the folder it runs in, change nothing.
    state = train(tiny_config({"data.num_threads": 1, "log_every": 1}), tmp_path / "again")
    assert soak_kills.differences(tmp_path / "again", tiny_run) == []
    saved = soak_kills.saved_arrays(tiny_run, LAST_STEP)
    assert len(saved) > 100
    np.testing.assert_array_equal(
        state["params"]["text"]["projection"], saved["retriever/params/text/projection"]
    )


def test_a_run_stopped_three_times_is_the_run_that_was_not(
    tiny_config, tiny_run, tmp_path, monkeypatch, soak_kills, one_compilation, capsys
):
    config, workdir = tiny_config(), tmp_path / "run"
    # Before the first checkpoint, between two, right behind one.
    for resumed, stop in ((0, 3), (0, 15), (8, 25)):
        with monkeypatch.context() as patched, pytest.raises(Stopped):
            stop_before_step(patched, resumed, stop)
            train(config, workdir)
        assert ("from the start" if resumed == 0 else "after step 8") in capsys.readouterr().out
    assert checkpoint_steps(workdir)[-2:] == [16, 24]
    train(config, workdir)
    assert "resuming after step 24" in capsys.readouterr().out
    assert soak_kills.differences(workdir, tiny_run) == []


def assert_lines_for_a_person(lines):
    assert lines[0].endswith("4 steps in all, from the start")
    assert lines[1] == "1 x cpu, mesh {'data': 1, 'fsdp': 1, 'tensor': 1}, float32"
    assert lines[2] == "compiling the train step ..."
    assert re.fullmatch(r"compiled the train step in \d+\.\d s", lines[3])
    assert [line.split("  ")[0] for line in lines[4:6]] == ["step 2/4", "step 4/4"]
    assert lines[6].startswith("step 4  validation  t2v R@1 ") and "   v2t R@1 " in lines[6]


def assert_it_is_finished(lines, config, workdir, begin):
    assert lines[-2].startswith(f"{begin} at step 4; best by validation: step 4, t2v R@1 ")
    assert lines[-2].endswith(f", in {workdir}/checkpoints/4")
    assert lines[-1] == (
        f"evaluate it with: vtr evaluate --checkpoint={workdir} "
        f"--annotations={config.data.annotations} --store={config.data.store}"
    )


def test_a_finished_run_stays_as_it_is(tiny_config, tmp_path, capsys):
    config = tiny_config({"epochs": 1, "checkpoint_every": 3, "keep_last": 9, "log_every": 2})
    workdir = tmp_path / "run"
    first = train(config, workdir)
    lines = capsys.readouterr().out.splitlines()
    assert_lines_for_a_person(lines)
    assert_it_is_finished(lines, config, workdir, "finished")
    assert checkpoint_steps(workdir) == [3, 4]
    log = (workdir / LOG_FILE).read_text()
    again = train(config, workdir)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("4 steps in all, all of them done before: nothing is left to train")
    assert_it_is_finished(lines, config, workdir, "already finished")
    assert len(lines) == 4
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert (workdir / LOG_FILE).read_text() == log
    with pytest.raises(ValueError, match="epochs: 2 now, 1 in the run"):
        train(tiny_config({"epochs": 2}), workdir)


def test_a_poisoned_state_stops_the_run_and_keeps_the_last_good_checkpoint(
    tiny_config, tiny_run, tmp_path, monkeypatch, soak_kills, one_compilation
):
    config, workdir = tiny_config(), tmp_path / "run"
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_before_step(patched, 0, 11)
        train(config, workdir)
    resume = Run.resume

    def poisoned(run):
        step = resume(run)
        text = run.state["params"]["text"]
        text["projection"] = text["projection"].at[0, 0].set(np.nan)
        return step

    with monkeypatch.context() as patched:
        patched.setattr(Run, "resume", poisoned)
        message = r"step 9: loss nan, gradient_norm nan, .*; the checkpoint of step 8 is kept"
        with pytest.raises(DivergedError, match=message):
            train(config, workdir)
    assert checkpoint_steps(workdir) == [8]
    kept = load_retriever(workdir)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept.params))
    assert [r["step"] for r in read_log(workdir) if r["kind"] == "train"] == [*range(1, 9)]
    # Nothing of the accident is left: the run goes on from there.
    train(config, workdir)
    assert soak_kills.differences(workdir, tiny_run) == []


@pytest.mark.parametrize("name", ["loss", "gradient_norm", "parameter_norm"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_every_number_that_is_not_finite_is_noticed_before_it_is_saved(
    tiny_config, tmp_path, monkeypatch, as_step, name, value
):
    steps = iter(range(1, 100))

    def fake_step(state, batch, key):
        metrics = {"loss": 1.0, "gradient_norm": 1.0, "parameter_norm": 1.0, "logit_scale": 1.0}
        if next(steps) == 3:
            metrics[name] = value
        return state, metrics

    monkeypatch.setattr(loop, "compile_train_step", lambda *_: as_step(fake_step))
    monkeypatch.setattr(Run, "evaluate", lambda run: {})
    with pytest.raises(DivergedError, match=f"step 3: .*{name} {value}.*; none was saved before"):
        train(tiny_config({"log_every": 100}), tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run") == []


def test_nothing_is_compiled_after_the_first_evaluation(tiny_config, tmp_path, monkeypatch):
    compiled, counts = [], {}

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    add_scores = RunCheckpoints.add_scores

    def counting(checkpoints, step, scores):
        counts[step] = len(compiled)
        add_scores(checkpoints, step, scores)

    monkeypatch.setattr(RunCheckpoints, "add_scores", counting)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        # Five clips in batches of two: the last one is padded.
        train(tiny_config({"evaluation.batch_size": 2, "evaluation.tile": 3}), tmp_path / "run")
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert counts[8] > 3
    assert counts[8] == counts[16] == counts[LAST_STEP]


def test_speed_leaves_evaluation_out(tiny_config, monkeypatch):
    clock = iter([10.0, 110.0, 120.0])
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(perf_counter=clock.__next__))
    run = type("Run", (), {"config": tiny_config(), "schedule": staticmethod(lambda step: 1.0)})
    log = []
    writes = types.SimpleNamespace(write=lambda *record: log.append(record))
    measured = progress.Progress(run, log=writes, window_start=0.0)
    for step in (1, 2):
        measured.add(step, {"loss": np.float32(1)}, waited=4.0)
    with measured.pause():
        pass
    values = measured.window(2, {"loss": 1.0})
    # Two batches of eight in 20 of the 120 seconds; 100 went to evaluation.
    assert values["clips_per_second"] == pytest.approx(2 * 8 / 20)
    assert values["waiting_share"] == pytest.approx(8 / 20)
    names = ("clips_per_second", "waiting_share")
    assert log == [("speed", 2, {name: values[name] for name in names})]


def test_speed_leaves_compilation_out(tiny_config, monkeypatch, capsys):
    clock = iter([10.0, 11.0, 12.0, 112.0, 113.0, 116.0])
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(perf_counter=clock.__next__))
    run = type("Run", (), {"config": tiny_config(), "schedule": staticmethod(lambda step: 1.0)})
    measured = progress.Progress(run, types.SimpleNamespace(write=lambda *record: None), steps=9)
    measured.begin_window()
    with measured.compiling():
        pass
    measured.add(1, {"loss": np.float32(1)}, waited=0.0)
    assert capsys.readouterr().out.splitlines()[1] == "compiled the train step in 102.0 s"
    # One batch of eight in 6 of the 106 seconds.
    assert measured.window(1, {"loss": 1.0})["clips_per_second"] == pytest.approx(8 / 6)


def test_the_step_is_compiled_ahead_and_not_once_more(tiny_config, tmp_path, monkeypatch):
    compiled, counts = [], []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    def stop(*arguments):
        counts.append(len(compiled))
        raise Stopped

    monkeypatch.setattr(progress, "say", lambda text: counts.append(len(compiled)))
    monkeypatch.setattr(progress.Progress, "add", stop)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with pytest.raises(Stopped):
            train(tiny_config(), tmp_path / "run")
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    before, behind, run_once = counts
    assert before < behind == run_once


def test_the_first_step_runs_when_it_has_been_compiled(tiny_config, tmp_path, monkeypatch):
    events = []

    class Step:
        """A jitted function that computes nothing."""

        def lower(self, *arguments):
            return types.SimpleNamespace(compile=lambda: events.append("compile"))

        def __call__(self, *arguments):
            events.append("run")
            raise Stopped

    monkeypatch.setattr(loop, "compile_train_step", lambda *_: Step())
    monkeypatch.setattr(progress, "say", lambda text: events.append(text.split(" in ")[0]))
    with pytest.raises(Stopped):
        train(tiny_config(), tmp_path / "run")
    said = ["compiling the train step ...", "compile", "compiled the train step"]
    assert events == [*said, "run"]


def test_skipped_clips_are_told(tiny_config, tiny_dataset, tmp_path, monkeypatch, capsys):
    captions = tmp_path / "captions.csv"
    captions.write_text(
        tiny_dataset.captions_file.read_text() + "gone.mp4,a clip without frames,train\n"
    )
    stop_before_step(monkeypatch, 0, 1)
    config = tiny_config({"data.annotations": str(captions), "data.skip_missing": True})
    with pytest.raises(Stopped):
        train(config, tmp_path / "run")
    out = capsys.readouterr().out
    assert "clip4clip: 16 clips, 32 captions; 4 steps an epoch" in out
    assert "1 clips of train are not in the store, skipped: gone" in out
