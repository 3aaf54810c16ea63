"""The largest deviation from the original programs' recorded numbers, by system and kind.

    python benchmarks/parity_table.py [FOLDER]     (default: tests/parity/golden)
    python benchmarks/parity_table.py --readme     also fill README's table of recipes

Prints one JSON line a system and a table; a deviation of 1 is just within the tolerance.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import jax

from vtr_jax.parity.cases import find_cases, load_case
from vtr_jax.parity.compare import compare_case
from vtr_jax.parity.kinds import kind_of

REPOSITORY = Path(__file__).resolve().parents[1]
DEFAULT = REPOSITORY / "tests/parity/golden"
README = REPOSITORY / "README.md"
COLUMN = "largest deviation"
WORDS = {
    "feature": "features",
    "inside a head": "inside the heads",
    "logits": "logits",
    "loss": "losses",
    "gradient norm": "gradient norms",
    "gradient head": "gradients",
}


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Compare every model case below a folder and print the worst of each kind, by system."""
    jax.config.update("jax_default_matmul_precision", "highest")
    worst: dict[str, dict[str, float]] = defaultdict(dict)
    cases: dict[str, int] = defaultdict(int)
    for path in find_cases(folder):
        if kind_of(path) != "model":
            continue
        case = load_case(path)
        cases[case.system] += 1
        for each in compare_case(case):
            share = each.deviation / each.tolerance
            worst[case.system][each.kind] = max(worst[case.system].get(each.kind, 0.0), share)
    for system, kinds in worst.items():
        print(json.dumps({"system": system, "cases": cases[system], "worst": kinds}))
    print(f"\n{'system':12}{'cases':>6}  largest deviation, 1 = just allowed")
    for system, kinds in worst.items():
        print(f"{system:12}{cases[system]:6}  {in_words(kinds)}")
    return worst


def in_words(kinds: dict[str, float]) -> str:
    """The worst of each kind, as one line; gradients that are zero in exact arithmetic left out."""
    shown = {WORDS[kind]: share for kind, share in kinds.items() if kind in WORDS}
    return ", ".join(f"{words} {share:.2f}" for words, share in shown.items())


def filled(text: str, worst: dict[str, dict[str, float]]) -> str:
    """README's text with the last column of its table of recipes filled in.

    Systems that were not compared keep what stands there. Raises ValueError without that table.
    """
    lines = text.split("\n")
    heads = [i for i, line in enumerate(lines) if line.startswith("| recipe |") and COLUMN in line]
    if len(heads) != 1:
        raise ValueError(f"expected one table of recipes with a column {COLUMN!r}, found {heads}")
    for number in range(heads[0] + 2, len(lines)):
        if not lines[number].startswith("| "):
            break
        cells = lines[number].split(" | ")
        system = cells[0].strip("| `")
        if system in worst:
            lines[number] = " | ".join([*cells[:-1], f"{in_words(worst[system])} |"])
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument("--readme", action="store_true", help="fill README's table of recipes")
    arguments = parser.parse_args()
    deviations = measure(arguments.folder)
    if arguments.readme:
        README.write_text(filled(README.read_text(), deviations))
