"""The README's way through one's own videos: CSV, convert, prepare, evaluate, five lines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import vtr_jax
from vtr_jax.cli import main

HERE = Path(__file__).parent
CAPTIONS = {
    "video7500.mp4": "a clip of a public data set",
    "syn_land_2997.mp4": "coloured shapes in landscape format",
    "syn_short_25.mp4": "a very short video of coloured shapes",
}


@pytest.fixture
def own_videos(shared_dir, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in CAPTIONS:
        shutil.copy(shared_dir / "videos" / name, videos / name)
    rows = [f'{name},"{caption}",test' for name, caption in CAPTIONS.items()]
    (tmp_path / "captions.csv").write_text("\n".join(["video,caption,split", *rows]) + "\n")
    return tmp_path


@pytest.fixture
def tiny_clip(tmp_path):
    source = HERE / "parity/golden/files/tiny-openai-clip.pt"
    assert main(["convert", str(source), str(tmp_path / "clip")]) == 0
    return tmp_path / "clip"


def test_three_real_files_prepared_encoded_and_scored(own_videos, tiny_clip, capsys):
    data = [f"--annotations={own_videos / 'captions.csv'}", f"--store={own_videos / 'store'}"]
    videos = f"--videos={own_videos / 'videos'}"
    prepare = ["prepare", *data, videos, "--splits=test", "--resolution=64", "--workers=1"]
    assert main(prepare) == 0
    assert "3 prepared" in capsys.readouterr().out
    output = own_videos / "report"
    arguments = ["evaluate", f"--checkpoint={tiny_clip}", *data, f"--output={output}"]
    assert main([*arguments, "--max_words=32", "--batch_size=2"]) == 0
    report = json.loads((output / "report.json").read_text())
    assert report["results"]["t2v"]["queries"] == 3
    assert report["results"]["t2v"]["R@5"] == 100.0
    assert report["protocol"]["clips"] == 3
    assert report["protocol"]["resolution"] == 64


def test_five_lines_of_the_readme(shared_dir, tiny_clip):
    retriever = vtr_jax.load_retriever(tiny_clip)
    resolution = retriever.config.clip.vision.image_resolution
    path = shared_dir / "videos" / "video7500.mp4"
    frames, frame_mask = vtr_jax.read_video(path, resolution=resolution)
    video = retriever.encode_video(frames[None], frame_mask[None])
    text = retriever.encode_text(*vtr_jax.tokenize(["a dog on the beach", "people dancing"]))
    logits_tv = retriever.similarity(text, video)
    assert logits_tv.shape == (2, 1)
    assert logits_tv[0, 0] != logits_tv[1, 0]
    assert np.isfinite(logits_tv).all()
