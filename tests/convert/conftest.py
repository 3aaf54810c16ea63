"""The writer of synthetic checkpoint files, the recorded ones, and every kind of retriever."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

AGGREGATIONS = ("None", "seqLSTM", "seqTransf")

# Options under which a system has every parameter that it can have, some more than once.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "clip": [{}],
    "clip4clip": [
        *({"sim_header": head} for head in ("meanP", "seqLSTM", "seqTransf", "tightTransf")),
        *({"sim_header": head, "linear_patch": "3d"} for head in ("meanP", "seqTransf")),
    ],
    "drl": [
        *({"interaction": "wti", "wti_arch": n, "agg_module": "None"} for n in (1, 2, 3)),
        *({"interaction": "dp", "cdcr": 0, "agg_module": name} for name in AGGREGATIONS),
        {"interaction": "ti", "cdcr": 0, "agg_module": "seqTransf"},
        *({"interaction": "xti", "agg_module": name} for name in AGGREGATIONS),
    ],
    "backbone_tvr": [{"agg_module": name} for name in AGGREGATIONS],
    "emcl": [{"agg_module": name} for name in AGGREGATIONS],
    "eercf": [{}, {"linear_patch": "3d"}],
    "internvideo": [
        {"interaction": "no"},
        *({"interaction": "wti", "wti_arch": n} for n in (1, 2, 3)),
    ],
}


def _variant(recipe: str, options: dict[str, Any]) -> Any:
    name = "-".join([recipe, *(str(value) for value in options.values())])
    return pytest.param((recipe, options), id=name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`variant`: (recipe, options) of every system."""
    if "variant" in metafunc.fixturenames:
        variants = [_variant(name, options) for name, some in VARIANTS.items() for options in some]
        metafunc.parametrize("variant", variants)


@pytest.fixture(scope="session")
def variants() -> dict[str, list[dict[str, Any]]]:
    """The options that `variant` goes through, by recipe."""
    return VARIANTS


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
    folders = sorted(path for path in golden_dir.rglob("files") if path.is_dir())
    if not folders:
        pytest.skip(f"no folder of checkpoint files below {golden_dir}")
    return folders[0]
