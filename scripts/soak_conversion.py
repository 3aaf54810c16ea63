"""Converts a synthetic archive of ViT-L/14's size and measures what that takes.

    python scripts/soak_conversion.py [FOLDER]

FOLDER (default: the system's temporary one) needs 2 GB; nothing is left in it. Exit code 1 if the
conversion failed, took more than 2.2 times the file's size in memory, or changed a weight.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import jax
import numpy as np

import vtr_jax
from vtr_jax.convert.lazy_tensor import LazyTensor

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_RATIO = 2.2
VIT_L14 = {
    "embed_dim": 768,
    "resolution": 224,
    "patch": 14,
    "vision_width": 1024,
    "vision_layers": 24,
    "text_width": 768,
    "text_layers": 12,
}


def load_writer() -> ModuleType:
    """tests/convert/torch_writer.py, which writes PyTorch's formats without PyTorch."""
    source = REPOSITORY / "tests" / "convert" / "torch_writer.py"
    spec = importlib.util.spec_from_file_location("torch_writer", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def convert(source: Path, directory: Path) -> tuple[int, int, float]:
    """Run the command in a process of its own: (exit code, peak resident bytes, seconds)."""
    started = time.perf_counter()
    script = REPOSITORY / "convert_clip_weights.py"
    process = subprocess.Popen([sys.executable, script, source, directory])
    _, status, usage = os.wait4(process.pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    seconds = time.perf_counter() - started
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * unit, seconds


def changed_weights(directory: Path, tensors: dict[str, LazyTensor]) -> list[str]:
    """Names of the weights, of three that lie in three ways, that differ from their source."""
    params = vtr_jax.load_retriever(directory).params
    ours: dict[str, jax.Array] = {
        "visual.proj": params["visual"]["projection"],
        "token_embedding.weight": params["text"]["token_embedding"]["embedding"],
        "visual.transformer.resblocks.17.mlp.c_fc.weight": params["visual"]["transformer"][
            "blocks"
        ]["mlp"]["fc"]["kernel"][17].T,
    }
    return [
        name
        for name, array in ours.items()
        if not np.array_equal(array, tensors[name].read().astype(np.float32))
    ]


def soak(folder: Path) -> int:
    """Write, convert, measure, compare; returns the exit code."""
    writer = load_writer()
    tensors = writer.random_tensors(writer.openai_shapes(**VIT_L14))
    source, directory = folder / "ViT-L-14-synthetic.pt", folder / "retriever"
    writer.write_torch_zip(source, writer.script_tree(tensors), script=True)
    code, peak, seconds = convert(source, directory)
    if code:
        print(f"the conversion failed with exit code {code}", file=sys.stderr)
        return 1
    size = source.stat().st_size
    ratio = peak / size
    changed = changed_weights(directory, tensors)
    print(f"file     {size / 1e6:,.0f} MB")
    print(f"peak     {peak / 1e6:,.0f} MB resident, {ratio:.2f} times the file")
    print(f"seconds  {seconds:.1f}")
    print(f"weights  {'differ: ' + ', '.join(changed) if changed else '3 of 3 equal the source'}")
    return int(ratio > MAX_RATIO or bool(changed))


def main() -> int:
    """Convert in a folder of its own; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", help="where 2 GB are free; nothing is left there")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as temporary:
        return soak(Path(temporary))


if __name__ == "__main__":
    sys.exit(main())
