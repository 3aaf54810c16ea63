"""Where tests find recorded numbers and shared data, and the compilation cache they share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with real annotations and videos; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("VTR_SHARED_DIR", REPOSITORY.parent / "shared"))
    if not (folder / "annotations").is_dir():
        pytest.skip(f"no shared data at {folder} (set VTR_SHARED_DIR)")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder with what the original programs computed."""
    folder = Path(os.environ.get("VTR_GOLDEN_DIR", REPOSITORY / "tests" / "parity" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden cases at {folder} (set VTR_GOLDEN_DIR)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _jax_settings():
    """Full float32 products, as every recorded number was compared with."""
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
