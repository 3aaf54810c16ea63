"""`vtr evaluate` from directory to report: as trained by default, overridden where asked."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from vtr_jax.checkpoint import load_retriever, write_retriever
from vtr_jax.data.annotations import read_split
from vtr_jax.data.frame_store.store import FrameStore
from vtr_jax.evaluation.command import EvaluationRequest, run_evaluation
from vtr_jax.evaluation.evaluate import retriever_sha256
from vtr_jax.evaluation.report import read_report


@pytest.fixture
def request_for(tiny_run, tiny_dataset, tiny_store, tmp_path):
    """Makes requests for the finished tiny run; the report goes to tmp_path/report."""
    request = EvaluationRequest(
        checkpoint=str(tiny_run),
        dataset="table",
        annotations=str(tiny_dataset.captions_file),
        store=str(tiny_store),
        output=str(tmp_path / "report"),
    )

    def build(**changes):
        return dataclasses.replace(request, **changes)

    return build


def evaluated(request):
    """(text, card, results) of a request with a report."""
    text = run_evaluation(request)
    return text, *read_report(request.output)


def test_a_run_is_evaluated_as_it_was_trained(request_for, tiny_run, tmp_path):
    text, card, results = evaluated(request_for())
    assert (card.split, card.clips, card.captions) == ("test", 7, 7)
    assert (card.max_words, card.frames, card.frame_choice) == (12, 4, "uniform, normal order")
    assert card.selection == "validation split"
    assert card.checkpoint_sha256 == retriever_sha256(load_retriever(tiny_run))
    assert results["t2v"]["queries"] == 7
    assert text == (tmp_path / "report" / "report.txt").read_text()
    assert text.splitlines()[1].startswith("text to video")


def test_settings_can_be_overridden(request_for):
    _, card, _ = evaluated(
        request_for(
            split="train",
            max_words=20,
            max_frames=2,
            slice_framepos=1,
            frame_order=0,
            ties="pessimistic",
            compute_dtype="bfloat16",
        )
    )
    assert (card.split, card.max_words, card.frames) == ("train", 20, 2)
    assert (card.frame_choice, card.ties) == ("tail, normal order", "pessimistic")
    assert card.compute_dtype == "bfloat16"


def test_a_chosen_step_is_not_a_selected_one(request_for, tiny_run):
    _, card, _ = evaluated(request_for(step=24))
    assert card.selection == "none"
    assert card.checkpoint_sha256 == retriever_sha256(load_retriever(tiny_run, step=24))
    with pytest.raises(FileNotFoundError, match=r"no weights of step 7; checkpoints there: \["):
        run_evaluation(request_for(step=7))


def test_missing_clips_are_refused_or_skipped_and_counted(request_for, tiny_dataset, tmp_path):
    captions = tmp_path / "captions.csv"
    captions.write_text(
        tiny_dataset.captions_file.read_text() + "gone.mp4,a clip nobody prepared,test\n"
    )
    request = request_for(annotations=str(captions))
    with pytest.raises(ValueError, match="1 of the 8 clips of table test .*: gone"):
        run_evaluation(request)
    assert not (tmp_path / "report").exists()
    text, card, results = evaluated(dataclasses.replace(request, skip_missing=True))
    assert (card.clips, card.clips_skipped) == (7, 1)
    assert "clips skipped" in text and results["v2t"]["queries"] == 7
    assert text.splitlines()[-1] == "Clips that were skipped: gone"
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written["skipped_clips"] == ["gone"]


def test_a_directory_that_no_run_made_has_the_retrievers_settings(request_for, tiny_run, tmp_path):
    retriever = load_retriever(tiny_run)
    write_retriever(tmp_path / "plain", retriever.config, retriever.params)
    _, card, same = evaluated(request_for(checkpoint=str(tmp_path / "plain")))
    assert (card.max_words, card.frames) == (12, 4)
    # Nothing beside the weights tells how they came about, and the card does not pretend to know.
    assert (card.selection, card.clips_trained_on) == ("unknown", None)
    assert "clips trained on     not known" in card.text()
    assert same == evaluated(request_for())[2]


def test_no_output_writes_nothing(request_for, tmp_path):
    text = run_evaluation(request_for(output=None))
    assert "text to video" in text and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"checkpoint": "nowhere"}, FileNotFoundError, "nowhere: not a retriever directory"),
        ({"store": "nowhere"}, FileNotFoundError, "nowhere: no finished frame store"),
        ({"annotations": "nowhere.csv"}, FileNotFoundError, "nowhere.csv"),
        ({"dataset": "msvdx"}, ValueError, "dataset is 'msvdx', expected one of"),
        ({"split": "dev"}, ValueError, r"no rows of split 'dev'; there are: train \(32 rows\)"),
        ({"ties": "twice"}, ValueError, "ties: expected one of"),
        ({"max_frames": 0}, ValueError, "max_frames: expected 1 or more"),
        ({"max_words": 2}, ValueError, "max_words is 2, expected at least 3"),
        ({"reader_options": {"train_list": "9k"}}, ValueError, "table has no option train_list"),
    ],
)
def test_what_does_not_fit_is_refused(request_for, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        run_evaluation(request_for(**changes))
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("below", ["", "/report"])
def test_a_report_in_place_of_a_file_is_refused_before_work(request_for, tmp_path, below):
    (tmp_path / "notes").write_text("kept")
    with pytest.raises(ValueError, match="notes is a file, expected a folder"):
        run_evaluation(request_for(output=f"{tmp_path}/notes{below}", checkpoint="nowhere"))
    assert (tmp_path / "notes").read_text() == "kept"


def test_frames_of_another_resolution_are_refused(request_for, tiny_retriever, tmp_path):
    retriever = tiny_retriever("clip4clip")
    write_retriever(tmp_path / "other", retriever.config, retriever.params)
    with pytest.raises(ValueError, match="frames of 32 pixels, this retriever reads 16"):
        run_evaluation(request_for(checkpoint=str(tmp_path / "other")))


def test_a_run_without_checkpoints_and_one_with_a_torn_record(request_for, tiny_run, tmp_path):
    young = tmp_path / "young"
    young.mkdir()
    for name in ("run.json", "retriever.json"):
        shutil.copy(tiny_run / name, young / name)
    with pytest.raises(FileNotFoundError, match="young: no weights; checkpoints there: none"):
        run_evaluation(request_for(checkpoint=str(young)))
    # Runs of earlier versions have their settings in run.json only.
    earlier = shutil.copytree(tiny_run, tmp_path / "earlier")
    description = json.loads((earlier / "retriever.json").read_text())
    del description["retriever"]["preprocessing"]
    (earlier / "retriever.json").write_text(json.dumps(description))
    (earlier / "run.json").write_text('{"data": ')
    with pytest.raises(ValueError, match="run.json: damaged"):
        run_evaluation(request_for(checkpoint=str(earlier)))


def test_a_damaged_record_ends_in_one_line_and_nothing_else(
    tiny_run, tiny_dataset, tiny_store, tmp_path
):
    """A process of its own: TensorFlow writes past Python's standard error, and at its end."""
    store = FrameStore.open(shutil.copytree(tiny_store, tmp_path / "store"))
    clip = read_split("table", tiny_dataset.captions_file, "test").clips[0].clip_id
    row = store.index_of(clip)
    shard = store.directory / str(store.index.shard_names[store.index.shards[row]])
    content = bytearray(shard.read_bytes())
    content[int(store.index.offsets[row]) + int(store.index.lengths[row]) // 2] ^= 1
    shard.write_bytes(content)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vtr_jax.cli", "evaluate", f"--checkpoint={tiny_run}"),
            *(f"--annotations={tiny_dataset.captions_file}", f"--store={store.directory}"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert f"record of clip '{clip}' is damaged; run the same `vtr prepare` again" in line
