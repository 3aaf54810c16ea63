"""What a retriever was trained on, by its run and those before it, is told with its scores."""

from __future__ import annotations

import json

import pytest

from vtr_jax.checkpoint import write_retriever
from vtr_jax.data.annotations import read_split
from vtr_jax.data.trained_clips import TRAINED_CLIPS_FILE, clips_trained_on, read_trained_clips
from vtr_jax.evaluation.command import EvaluationRequest, run_evaluation
from vtr_jax.training.run import Run
from vtr_jax.training.start import clips_before, starting_retriever


@pytest.fixture
def saved_run(tiny_config, tmp_path):
    """Makes a run with one checkpoint, which nothing has trained."""
    opened = []

    def make(name, changes=None):
        run = Run(tiny_config(changes), tmp_path / name)
        opened.append(run)
        run.checkpoints.save(1, run.state)
        run.checkpoints.finish()
        return run

    yield make
    for run in opened:
        run.checkpoints.close()


@pytest.fixture
def captions_with(tiny_dataset, tmp_path):
    """Writes the annotations of the tiny data set with one more row."""

    def write(row):
        path = tmp_path / "captions.csv"
        path.write_text(f"{tiny_dataset.captions_file.read_text()}{row}\n")
        return str(path)

    return write


@pytest.fixture(scope="module")
def validation(tiny_dataset):
    """The split `val` of the tiny data set."""
    return read_split("table", tiny_dataset.captions_file, "val")


def test_a_score_on_clips_of_the_run_is_warned_of(
    tiny_config, captions_with, saved_run, tmp_path, capsys
):
    saved_run("run")
    request = EvaluationRequest(
        checkpoint=str(tmp_path / "run"),
        dataset="table",
        annotations=captions_with("train_00003.mp4,seen in training,test"),
        store=tiny_config().data.store,
    )
    report = run_evaluation(request)
    warning = capsys.readouterr().err.strip()
    assert warning.startswith("WARNING: the retriever was trained on 1 of the 8 clips of test")
    assert warning.endswith(": train_00003") and "WARNING" not in report
    lines = report.splitlines()
    assert any(line.startswith("clips trained on") and line.endswith(" 1") for line in lines)


def test_clips_of_earlier_runs_count_too(captions_with, saved_run, tmp_path, validation):
    annotations = captions_with("val_00001.mp4,seen in the first run,train")
    saved_run("first", {"data.annotations": annotations, "data.validation": "none"})
    second = saved_run("second", {"init": str(tmp_path / "first")})
    (warning,) = second.warnings()
    assert "trained on 1 of the 5 clips of val" in warning and warning.endswith(": val_00001")
    assert second.validation_protocol()["clips_trained_on"] == 1
    saved_run("third", {"init": str(tmp_path / "second")})
    # Resumed where what it started from is gone.
    (tmp_path / "first").rename(tmp_path / "moved")
    Run(second.config, tmp_path / "second").checkpoints.close()
    for name in ("second", "third"):
        assert clips_trained_on(tmp_path / name, validation) == ["val_00001"]
    third = json.loads((tmp_path / "third" / TRAINED_CLIPS_FILE).read_text())
    assert third["complete"] and [len(split["clips"]) for split in third["splits"]] == [17, 16]


def test_what_nobody_knows_stays_unknown(tiny_config, saved_run, tmp_path, validation):
    retriever = starting_retriever(tiny_config())
    write_retriever(tmp_path / "converted", retriever.config, retriever.params)
    run = saved_run("run", {"init": str(tmp_path / "converted")})
    assert run.warnings() == [] and run.validation_protocol()["clips_trained_on"] is None
    assert clips_trained_on(tmp_path / "run", validation) is None
    train = run.data.train
    assert clips_trained_on(tmp_path / "run", train) == [clip.clip_id for clip in train.clips]


def test_a_run_from_the_seed_or_from_clip_knows_everything(
    saved_run, tiny_retriever, tmp_path, validation
):
    saved_run("run")
    assert clips_trained_on(tmp_path / "run", validation) == []
    towers = tiny_retriever("clip")
    write_retriever(tmp_path / "clip", towers.config, towers.params)
    assert clips_before(str(tmp_path / "clip")).among(validation) == []


@pytest.fixture
def of_an_earlier_version(tmp_path):
    """Makes the record of a run one that does not tell what the run started from."""

    def make(name):
        path = tmp_path / name / TRAINED_CLIPS_FILE
        own = json.loads(path.read_text())["splits"][-1]
        path.write_text(json.dumps(own))
        return path

    return make


def test_a_resumed_run_of_an_earlier_version_knows_what_it_started_from(
    captions_with, saved_run, of_an_earlier_version, tmp_path, validation
):
    annotations = captions_with("val_00001.mp4,seen in the first run,train")
    first = saved_run("first", {"data.annotations": annotations, "data.validation": "none"})
    second = saved_run("second", {"init": str(tmp_path / "first")})
    for run in (first, second):
        path = of_an_earlier_version(run.workdir.name)
        assert not read_trained_clips(run.workdir).complete
        Run(run.config, run.workdir).checkpoints.close()
        assert json.loads(path.read_text())["complete"]
    assert clips_trained_on(tmp_path / "second", validation) == ["val_00001"]
    path = of_an_earlier_version("second")
    # Where nobody remembers it, it stays unknown.
    (tmp_path / "first" / TRAINED_CLIPS_FILE).unlink()
    Run(second.config, tmp_path / "second").checkpoints.close()
    assert not json.loads(path.read_text())["complete"]


def test_a_damaged_record_stops_a_resume_until_it_is_removed(saved_run, tmp_path, validation):
    run = saved_run("run")
    path = tmp_path / "run" / TRAINED_CLIPS_FILE
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    message = rf"{path}: damaged, .*\(.*char \d+.*\); remove it, and the same `vtr train`"
    with pytest.raises(ValueError, match=message):
        Run(run.config, tmp_path / "run")
    path.unlink()
    Run(run.config, tmp_path / "run").checkpoints.close()
    assert path.read_text() == whole


def test_files_of_earlier_versions_and_damaged_ones(tmp_path, validation):
    path = tmp_path / TRAINED_CLIPS_FILE
    clip = ["val_00001", "val_00001.mp4", None, None, []]
    path.write_text(json.dumps({"dataset": "table", "clips": [clip]}))
    assert clips_trained_on(tmp_path, validation) == ["val_00001"]
    path.write_text(json.dumps({"dataset": "table", "clips": []}))
    assert clips_trained_on(tmp_path, validation) is None
    for content in ("{", "[]", '{"splits": [{}]}'):
        path.write_text(content)
        with pytest.raises(ValueError, match="trained_clips.json: damaged, .* writes it again"):
            clips_trained_on(tmp_path, validation)
