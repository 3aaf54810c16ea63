"""Checkpoints rebuilt from public reports, each with the outcome that a user needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vtr_jax
from vtr_jax.convert.convert_checkpoint import convert_checkpoint
from vtr_jax.convert.write_back import write_back


@pytest.fixture(scope="session")
def cases(shared_dir: Path) -> Path:
    folder = shared_dir / "cases" / "checkpoints"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    return folder


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("deepspeed/mp_rank_00_model_states.pt", "quick_gelu"),
        ("numpy_state/last.pt", "quick_gelu"),
        ("prefixes/orig_mod.pt", "quick_gelu"),
        ("prefixes/averaged_model.pt", "quick_gelu"),
        ("prefixes/lightning.ckpt", "quick_gelu"),
        ("timm_repo", "quick_gelu"),
        ("variant", "gelu"),
        ("variant/model.fp16.safetensors", "gelu"),
        ("epoch_beside", "gelu"),
        ("epoch_beside/epoch_32.pt", "gelu"),
        ("open_clip_epoch", "gelu"),
        ("open_clip_epoch/epoch_3.pt", "gelu"),
        ("roundtrip_gelu", "gelu"),
    ],
)
def test_healthy_files_convert(name: str, activation: str, cases: Path, tmp_path: Path):
    report = convert_checkpoint(cases / name, tmp_path / "r", None)
    assert report.config.clip.vision.activation == activation
    assert report.config.recipe == "clip"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deepspeed/zero3_without_set.pt", "zero_to_fp32"),
        ("nan_weights/one_nan_row.safetensors", r"clip\.token_embedding\.weight \(64 values\)"),
        ("xclip/pytorch_model.bin.3", "X-CLIP"),
        ("longclip/longclip.pt", "LongCLIP"),
        ("lfs_pointer", "git lfs pull"),
        ("lfs_pointer/model.safetensors", "git lfs pull"),
    ],
)
def test_other_files_are_named(name: str, words: str, cases: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=words) as error:
        convert_checkpoint(cases / name, tmp_path / "r", None)
    assert "ignore_unknown" not in str(error.value)
    assert not (tmp_path / "r").exists()


def test_a_training_file_of_open_clip_gives_its_features(cases: Path, tmp_path: Path):
    expected = np.load(cases / "open_clip_epoch" / "expected.npz")
    convert_checkpoint(cases / "open_clip_epoch" / "epoch_3.pt", tmp_path / "r", None)
    retriever = vtr_jax.load_retriever(tmp_path / "r")
    token_ids = expected["ids"].astype(np.int32)
    text = retriever.encode_text(token_ids, np.ones_like(token_ids)).sentence
    np.testing.assert_allclose(text, expected["text"], atol=1e-4)
    frames = np.moveaxis(expected["image"], 1, -1)[:, None]
    video = retriever.encode_video(frames, np.ones((len(frames), 1), np.int32)).frames[:, 0]
    np.testing.assert_allclose(video, expected["img"], atol=1e-4)


def test_what_was_read_survives_writing_back(cases: Path, tmp_path: Path):
    first = convert_checkpoint(cases / "roundtrip_gelu", tmp_path / "r", None)
    write_back(tmp_path / "r", tmp_path / "o.safetensors", "clip")
    again = convert_checkpoint(tmp_path / "o.safetensors", tmp_path / "again", None)
    assert again.config == first.config
    assert again.assumed == first.assumed
