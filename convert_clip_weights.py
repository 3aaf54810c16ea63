"""Convert CLIP weights for vtr_jax: python convert_clip_weights.py ViT-B-32.pt DIR [--recipe=...].

The same as `vtr convert`.
"""

from __future__ import annotations

import sys

from vtr_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
