"""What storing frames as JPEG changes: pixels, features and bytes, against lossless frames.

    python benchmarks/jpeg_effect.py VIDEO [VIDEO ...] [--checkpoint=DIR]

Without a checkpoint the features come from a ViT-B/32 with weights drawn from a seed. Prints one
JSON line a video and a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import numpy as np

from vtr_jax.checkpoint import load_retriever
from vtr_jax.data.frame_store.encoding import decode_frame, encode_frame
from vtr_jax.data.frame_store.settings import StoreSettings
from vtr_jax.data.video import sample_frames
from vtr_jax.models.clip import CLIP_PRESETS
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import Retriever, init_retriever


def effect_on(retriever: Retriever, path: Path) -> dict[str, float | str | int]:
    """Pixel and feature differences of one video's frames, and bytes a frame."""
    resolution = retriever.config.clip.vision.image_resolution
    frames = sample_frames(path, resolution=resolution).frames[:16]
    encoded = {}
    for encoding in ("jpeg", "png"):
        settings = StoreSettings(resolution=resolution, encoding=encoding)
        encoded[encoding] = [encode_frame(frame, settings) for frame in frames]
    stored = np.stack([decode_frame(frame) for frame in encoded["jpeg"]])
    mask = np.ones((1, len(frames)), np.int32)
    exact, changed = (
        np.asarray(retriever.encode_video(each[None], mask).frames[0]) for each in (frames, stored)
    )
    cosine = np.sum(exact * changed, -1) / (
        np.linalg.norm(exact, axis=-1) * np.linalg.norm(changed, axis=-1)
    )
    pixels = np.abs(frames.astype(int) - stored.astype(int))
    return {
        "video": path.name,
        "frames": len(frames),
        "jpeg_bytes": round(float(np.mean([len(frame) for frame in encoded["jpeg"]]))),
        "png_bytes": round(float(np.mean([len(frame) for frame in encoded["png"]]))),
        "pixel_mean": round(float(pixels.mean()), 2),
        "pixel_max": int(pixels.max()),
        "cosine_mean": round(float(cosine.mean()), 5),
        "cosine_min": round(float(cosine.min()), 5),
    }


def main() -> None:
    """Measure every video given and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--checkpoint")
    arguments = parser.parse_args()
    if arguments.checkpoint:
        retriever = load_retriever(arguments.checkpoint)
    else:
        config = recipe_named("clip").config(CLIP_PRESETS["ViT-B/32"])
        retriever = init_retriever(config, jax.random.key(0))
    rows = [effect_on(retriever, path) for path in arguments.videos]
    for row in rows:
        print(json.dumps(row))
    print("\n" + "  ".join(f"{name:>12}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>12.12}" for value in row.values()))


if __name__ == "__main__":
    main()
