"""The `vtr` command: what it says, what it refuses, how it ends."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vtr_jax
import vtr_jax.cli as cli
from vtr_jax.cli import COMMANDS, main, parse_options
from vtr_jax.evaluation.metrics import TIE_RULES
from vtr_jax.evaluation.report import read_report
from vtr_jax.training.command import installed_recipes, read_config
from vtr_jax.training.command_help import USUAL_SETTINGS, recipe_lines
from vtr_jax.training.stop_request import Interrupted

SMOKE = "--config=clip4clip:smoke"


@pytest.fixture
def last_line(capsys):
    """Runs a command; returns its exit code and the last line of standard error."""

    def run(*arguments):
        code = main(list(arguments))
        lines = capsys.readouterr().err.strip().splitlines()
        return code, lines[-1] if lines else ""

    return run


@pytest.fixture
def data(tiny_dataset, tiny_store):
    """The data arguments of evaluate and prepare."""
    return [f"--annotations={tiny_dataset.captions_file}", f"--store={tiny_store}"]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"], []])
def test_usage_names_every_command(arguments, capsys):
    assert main(arguments) == (0 if arguments else 2)
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vtr_jax {vtr_jax.__version__}\n"


def test_unknown_commands_are_refused(last_line):
    code, line = last_line("trian")
    known = ", ".join(COMMANDS)
    assert (code, line) == (2, f"vtr: no command 'trian'; expected {known}; did you mean train?")
    assert last_line("wash") == (2, f"vtr: no command 'wash'; expected {known}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: vtr {name}")
    assert " ".join((COMMANDS[name].__doc__ or "").split()) in " ".join(out.split())


def test_help_lists_the_rules_for_ties(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    out = "".join(capsys.readouterr().out.split())
    assert all(rule in out for rule in TIE_RULES)


def test_options_are_read_as_numbers_and_words():
    arguments = ["--a=3", "--b=0.5", "--c=False", "--d=None", "--e=9k", "--f=x=y", "--g="]
    assert parse_options(arguments) == {
        "a": 3,
        "b": 0.5,
        "c": False,
        "d": None,
        "e": "9k",
        "f": "x=y",
        "g": "",
    }
    for argument in ("plain", "--flag", "--=3", "-a=3", "--no-name=3"):
        with pytest.raises(ValueError, match=f"argument '{argument}': expected --name=value"):
            parse_options([argument])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("batch_size: expected 1"), 1, "vtr train: batch_size: expected 1"),
        (FileNotFoundError("x.csv: no such file"), 1, "vtr train: x.csv: no such file"),
        (ArithmeticError("step 3: loss nan"), 1, "vtr train: step 3: loss nan"),
        (KeyboardInterrupt(), 130, "vtr train: interrupted"),
    ],
)
def test_errors_end_in_one_line_and_a_code(monkeypatch, last_line, error, code, line):
    def fail(arguments):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "train", fail)
    assert last_line("train") == (code, line)


@pytest.mark.parametrize(
    ("error", "code"), [(Interrupted(75), 75), (KeyboardInterrupt(), 130), (BrokenPipeError(), 141)]
)
def test_a_process_that_was_interrupted_does_not_clear_up(monkeypatch, error, code):
    # JAX that was interrupted in the middle of a trace ends in a segmentation fault then.
    def fail(arguments):
        raise error

    class Ended(Exception):
        pass

    def end(code):
        raise Ended(code)

    monkeypatch.setitem(cli.COMMANDS, "evaluate", fail)
    monkeypatch.setattr(cli, "_nobody_reads_on", lambda: True)
    monkeypatch.setattr(sys, "argv", ["vtr", "evaluate"])
    monkeypatch.setattr(cli.os, "_exit", end)
    with pytest.raises(Ended, match=str(code)):
        main()


@pytest.mark.parametrize("arguments", [["--help"], ["check-data", "--annotations={}"]])
def test_a_closed_pipe_ends_the_command_without_a_word(tiny_dataset, arguments):
    filled = [argument.format(tiny_dataset.captions_file) for argument in arguments]
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "vtr_jax.cli", *filled]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_output_is_named():
    command = [sys.executable, "-m", "vtr_jax.cli", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    message = "vtr: standard output: [Errno 28] No space left on device\n"
    assert (done.returncode, done.stderr) == (1, message)


def test_an_error_that_cannot_be_told_is_no_matter_of_the_output(monkeypatch, capsys):
    def fail(arguments):
        raise OSError(errno.ENOSPC, "No space left on device")  # of the standard error

    class Ended(Exception):
        pass

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(cli, "main", fail)
    monkeypatch.setattr(cli.os, "_exit", end)
    with pytest.raises(Ended, match="1"):
        cli._program(["evaluate"])
    assert capsys.readouterr() == ("", "")


def test_unforeseen_errors_keep_their_traceback_and_end_in_one_line(monkeypatch, capsys):
    def fail(arguments):
        raise AttributeError("a mistake\n  of ours")

    monkeypatch.setitem(cli.COMMANDS, "train", fail)
    assert main(["train"]) == 1
    *traceback, last = capsys.readouterr().err.splitlines()
    assert traceback[0].startswith("Traceback") and any("in fail" in line for line in traceback)
    assert last == "error: vtr train: AttributeError: a mistake of ours"
    assert not any(line.startswith("error:") for line in traceback)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            [SMOKE, "--config.batchsize=3"],
            "vtr train: --config.batchsize: no such setting; did you mean --config.batch_size?",
        ),
        (
            [SMOKE, "--config.data.store"],
            "vtr train: argument '--config.data.store': expected --config.name=value",
        ),
        (
            [SMOKE.replace("smoke", "webvid")],
            "vtr train: variant 'webvid': expected DATASET or DATASET-HEAD with DATASET one of "
            "msrvtt, ",
        ),
        (
            ["--config=nowhere.py"],
            "vtr train: nowhere.py: no such recipe or file; installed: backbone_tvr, clip4clip, ",
        ),
        (
            ["--config=clip4clop:msrvtt"],
            "vtr train: clip4clop: no such recipe or file; did you mean clip4clip?",
        ),
        (
            [SMOKE],
            "vtr train: data.annotations: give the annotation file or folder: "
            "--config.data.annotations=PATH",
        ),
        (
            [SMOKE, "--config.optimizer.learning_rate=fast"],
            "vtr train: --config.optimizer.learning_rate: expected a number, found 'fast'; "
            "for example --config.optimizer.learning_rate=0.0001",
        ),
        (
            [SMOKE, "--config.batch_size=two"],
            "vtr train: --config.batch_size: expected a whole number, found 'two'; "
            "for example --config.batch_size=4",
        ),
        (
            [SMOKE, "--config.remat=maybe"],
            "vtr train: --config.remat: expected True or False, found 'maybe'; "
            "for example --config.remat=False",
        ),
    ],
)
def test_train_refuses_in_one_clear_line(last_line, tmp_path, arguments, line):
    code, last = last_line("train", *arguments, f"--workdir={tmp_path / 'run'}")
    assert code == 1 and last.startswith(line)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["train", SMOKE], "--workdir"),
        (["train", "--workdir=x"], "--config"),
        (["evaluate", "--store=x", "--annotations=y"], "--checkpoint"),
        (["evaluate", "--checkpoint=x", "--annotations=y"], "--store"),
        (["prepare", "--store=x", "--annotations=y"], "--videos"),
    ],
)
def test_what_must_be_given_is_named(arguments, missing, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == f"vtr {arguments[0]}: error: the following arguments are required: {missing}"


def test_train_hands_its_settings_over(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(
        "vtr_jax.training.loop.train", lambda config, workdir: seen.update(c=config, w=workdir)
    )
    # Read from what main was given, not from the arguments of the process around it.
    monkeypatch.setattr(sys, "argv", ["other", "--config.epochs=77"])
    arguments = ["--config.seed=7", f"--workdir={tmp_path}", SMOKE, "--config.data.max_frames=3"]
    assert main(["train", *arguments]) == 0
    assert (seen["c"].seed, seen["c"].data.max_frames, seen["c"].epochs) == (7, 3, 2)
    assert seen["w"] == tmp_path


def test_evaluate_prints_and_writes(tiny_run, data, tmp_path, capsys):
    output = tmp_path / "report"
    arguments = [f"--checkpoint={tiny_run}", f"--output={output}", "--batch_size=4"]
    assert main(["evaluate", *arguments, *data]) == 0
    out = capsys.readouterr().out
    card, results = read_report(output)
    assert card.split == "test" and card.selection == "validation split"
    assert results["t2v"]["queries"] == 7
    assert out.strip() == (output / "report.txt").read_text().strip()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--split=dev"], "no rows of split 'dev'"),
        (["--ties=twice"], "ties: expected one of once, "),
        (["--step=5"], "no weights of step 5; checkpoints there: "),
        (["--train_list=9k"], "table has no option train_list"),
        (["--train_list=9k", "--train_list=7k"], "--train_list: given twice, as 9k and as 7k"),
        (["surplus"], "argument 'surplus': expected --name=value"),
    ],
)
def test_evaluate_refuses_in_one_clear_line(tiny_run, data, last_line, extra, message):
    code, line = last_line("evaluate", f"--checkpoint={tiny_run}", *data, *extra)
    assert code == 1 and line.startswith("vtr evaluate: ") and message in line


@pytest.mark.parametrize(
    ("command", "argument", "end"),
    [
        ("prepare", "--resoluton=64", "--resoluton: no such option; did you mean --resolution?"),
        ("prepare", "--verfy", "expected --name=value; did you mean --verify?"),
        ("evaluate", "--max_word=12", "--max_word: no such option; did you mean --max_words?"),
        ("evaluate", "--skip_mising", "expected --name=value; did you mean --skip_missing?"),
        ("check-data", "--video=DIR", "--video: no such option; did you mean --videos?"),
    ],
)
def test_misspelt_options_name_the_nearest_of_the_command(last_line, command, argument, end):
    given = {
        "prepare": ["--videos=v", "--store=s"],
        "evaluate": ["--checkpoint=c", "--store=s"],
        "check-data": [],
    }
    code, line = last_line(command, "--annotations=a.csv", *given[command], argument)
    assert code == 1 and line.startswith(f"vtr {command}: ") and line.endswith(end)


@pytest.mark.parametrize("name", ["source", "directory"])
def test_options_that_mean_something_else_are_refused(last_line, name):
    code, line = last_line("convert", "FILE", "OUT", f"--{name}=3")
    assert code == 1 and line.startswith(f"vtr convert: --{name}: not an option here")


def test_train_help_names_recipe_files_and_real_settings(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    assert all(f"\n  {name}\n" in out for name in installed_recipes())
    settings = re.findall(r"^  (--config\.\S+=\S+) ", out, re.MULTILINE)
    assert len(settings) == len(USUAL_SETTINGS)
    read_config("clip4clip", settings)


def test_recipe_files_are_described_where_they_are(tmp_path):
    (tmp_path / "mine.py").write_text('"""Mine.\n\nNo.\n\nThe variant is\na or b."""')
    lines = [line.strip() for line in recipe_lines({"mine": tmp_path / "mine.py"})]
    assert lines == ["mine", "Mine.", "The variant is a or b.", f"files: {tmp_path}"]


def test_prepare_makes_a_store_and_finds_it_again(tiny_dataset, tmp_path, capsys):
    store = tmp_path / "store"
    arguments = [
        f"--annotations={tiny_dataset.captions_file}",
        f"--videos={tiny_dataset.videos_dir}",
        f"--store={store}",
        "--splits=val",
        "--resolution=16",
        "--workers=1",
    ]
    assert main(["prepare", *arguments]) == 0
    assert "5 prepared" in capsys.readouterr().out
    assert json.loads((store / "dataset_info.json").read_text())["splits"]
    assert main(["prepare", *arguments]) == 0
    assert "5 already done, 0 prepared" in capsys.readouterr().out


def test_prepare_refuses_in_one_clear_line(tiny_dataset, tmp_path, last_line):
    base = ["prepare", f"--annotations={tiny_dataset.captions_file}", f"--store={tmp_path / 's'}"]
    code, line = last_line(*base, f"--videos={tmp_path / 'nowhere'}")
    assert code == 1 and "nowhere: no such folder" in line
    code, line = last_line(*base, f"--videos={tiny_dataset.videos_dir}", "--splits=train,dev")
    assert code == 1 and "no rows of split 'dev'" in line


def test_the_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "vtr_jax.cli", "train", SMOKE, f"--workdir={tmp_path / 'x'}"]
    done = subprocess.run([*command, "--config.epoch=3"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.strip().endswith("no such setting; did you mean --config.epochs?")


def test_the_command_line_waits_for_nothing_heavy():
    program = (
        "import sys, vtr_jax.cli, vtr_jax.training.loop; "
        "heavy = ('tensorflow', 'tensorflow_datasets', 'av', 'matplotlib', 'orbax.checkpoint', "
        "'transformers'); print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
