"""The writer of synthetic checkpoint files, and the recorded ones."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def torch_writer() -> ModuleType:
    """tests/convert/torch_writer.py, which is also a script of its own."""
    name = "convert_torch_writer"
    source = Path(__file__).parent / "torch_writer.py"
    spec = importlib.util.spec_from_file_location(name, source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def checkpoint_files(golden_dir: Path) -> Path:
    """Folder with checkpoint files that the original libraries wrote."""
    folder = golden_dir / "files"
    if not folder.is_dir():
        pytest.skip(f"no checkpoint files at {folder}")
    return folder
