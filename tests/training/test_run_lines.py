"""What a finished run says of its result: the command that it prints works."""

from __future__ import annotations

import shlex
import shutil

import pytest

from vtr_jax.cli import main
from vtr_jax.training.run import Run
from vtr_jax.training.run_lines import last_lines


@pytest.fixture
def ending(tiny_config, tiny_dataset, tiny_run, tmp_path):
    """The last lines of a run on some splits alone, with the checkpoints of `tiny_run`."""

    def make(splits, changes):
        lines = tiny_dataset.captions_file.read_text().splitlines(keepends=True)
        kept = [line for line in lines[1:] if line.strip().endswith(splits)]
        path = tmp_path / "captions.csv"
        path.write_text("".join([lines[0], *kept]))
        workdir = tmp_path / "run"
        run = Run(tiny_config({"data.annotations": str(path), **changes}), workdir)
        run.checkpoints.close()
        shutil.copytree(tiny_run / "checkpoints", workdir / "checkpoints", dirs_exist_ok=True)
        return last_lines(run, 0).splitlines()[-1]

    return make


@pytest.mark.parametrize(
    ("splits", "shown"),
    [(("train", "val"), "--split=val"), (("train", "val", "test"), None)],
)
def test_the_command_that_is_printed_works(ending, capsys, splits, shown):
    line = ending(splits, {"data.skip_missing": True})
    begin, command = line.split(": ", 1)
    assert begin == "evaluate it with"
    words = shlex.split(command)
    assert [word for word in words if word.startswith("--split")] == ([shown] if shown else [])
    assert words[-1] == "--skip_missing"
    assert main(words[1:]) == 0
    assert "R@1" in capsys.readouterr().out


def test_where_nothing_is_left_to_evaluate_on_that_is_said(ending, tmp_path):
    line = ending(("train",), {"data.validation": "holdout", "data.holdout_clips": 4})
    assert line == (
        f"nothing is left to evaluate it on: {tmp_path}/captions.csv has neither a split test nor "
        f"val; on other videos: vtr evaluate --checkpoint={tmp_path}/run --annotations=FILE "
        "--store=STORE"
    )
