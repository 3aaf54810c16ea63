"""The largest deviation from the original programs' recorded numbers, by system and kind.

    python benchmarks/parity_table.py [FOLDER]     (default: tests/parity/golden)

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

DEFAULT = Path(__file__).resolve().parents[1] / "tests/parity/golden"


def main(folder: Path) -> None:
    """Compare every model case below a folder and print the worst of each kind."""
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
        parts = ", ".join(f"{kind} {share:.2f}" for kind, share in kinds.items())
        print(f"{system:12}{cases[system]:6}  {parts}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT)
    main(parser.parse_args().folder)
