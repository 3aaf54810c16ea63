"""Convert CLIP weights for vtr_jax: python convert_clip_weights.py ViT-B-32.pt DIR [--recipe=...].

The same as `vtr convert`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDED = ("numpy", "jax", "flax", "orbax", "safetensors")


def missing_packages() -> list[str]:
    """The packages that conversion needs and this Python does not have."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def main() -> int:
    """Run the command; one line that says what to install where that is what is missing."""
    missing = missing_packages()
    if missing:
        print(
            f"{sys.executable} has no {', '.join(missing)}; install vtr_jax and what it needs: "
            f"{sys.executable} -m pip install {HERE} (Python 3.11 or 3.12), or run this with the "
            "Python that has them",
            file=sys.stderr,
        )
        return 1
    from vtr_jax.cli import main as run_command

    return run_command(["convert", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
