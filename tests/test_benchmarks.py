"""How benchmarks take turns and compare; what they measure is run by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SIDE = """
import sys
sys.path.insert(0, {benchmarks!r})
from interleaved import serve

answers = iter({answers})
serve({{"step": lambda: {{"seconds": next(answers)}}}})
"""


@pytest.fixture
def interleaved(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import interleaved

    return interleaved


def test_functions_take_turns_and_their_first_runs_do_not_count(interleaved):
    ran = []
    functions = [lambda: ran.append("a") or len(ran), lambda: ran.append("b") or len(ran)]
    runs = interleaved.functions_in_turns(functions, rounds=3)
    assert ran == ["a", "b"] * 4
    assert [[run.result for run in of_one] for of_one in runs] == [[3, 5, 7], [4, 6, 8]]
    assert all(run.seconds >= 0 and run.processor >= 0 for of_one in runs for run in of_one)


def test_programs_take_turns_and_are_compared_by_turn(interleaved, tmp_path):
    def side(name, answers):
        script = tmp_path / f"{name}.py"
        script.write_text(SIDE.format(benchmarks=str(BENCHMARKS), answers=answers))
        return interleaved.Side(name, script, [])

    with side("peer", [99.0, 4.0, 6.0, 8.0]) as peer, side("ours", [99.0, 2.0, 2.0, 2.0]) as ours:
        answers = interleaved.in_turns([peer, ours], "step", rounds=3)
    assert interleaved.median_seconds(answers["peer"]) == 6.0
    assert interleaved.ratio(answers["peer"], answers["ours"]) == 3.0


def test_a_program_that_ends_ends_the_benchmark(interleaved, tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match="peer ended with exit code 3, see above"):
        interleaved.Side("peer", script, [])


def own_commands():
    """Benchmarks by themselves: not what others import or start."""
    parts = {"interleaved.py", *(path.name for path in BENCHMARKS.glob("train_step_*.py"))}
    return sorted({path.name for path in BENCHMARKS.glob("*.py")} - parts)


@pytest.mark.parametrize("script", own_commands())
def test_every_benchmark_tells_how_it_is_called(script):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
