"""Where tests find recorded numbers and shared data, small retrievers, kept compilations."""

from __future__ import annotations

import dataclasses
import functools
import gc
import itertools
import os
import types
import zlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
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
    """Full float32 products, as every recorded number was compared with, and kept compilations.

    VTR_TEST_CACHE names the folder of compiled programs, empty for none. Each worker has one of
    its own, because a program that is half written by another one cannot be read.
    """
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    cache = os.environ.get("VTR_TEST_CACHE", str(REPOSITORY / ".cache" / "jax-tests"))
    if cache:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, worker))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


_TESTS_RUN = itertools.count(1)


@pytest.fixture(autouse=True)
def _few_memory_mappings():
    """Drops compiled programs before Linux's limit of mappings for a process is reached.

    Each program that XLA compiles for the CPU holds a few mappings for good; past the limit
    (vm.max_map_count, 65,530 by default) the next compilation ends in a segmentation fault.
    """
    import jax

    yield
    mappings = Path("/proc/self/maps")
    if next(_TESTS_RUN) % 10 or not mappings.exists():
        return
    if mappings.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def tiny_clip():
    """The smallest CLIP in which nothing is trivial: two heads, several layers, four patches."""
    from vtr_jax.models.clip import clip_config

    return clip_config(
        embed_dim=32,
        image_resolution=16,
        patch_size=8,
        vision_width=32,
        vision_layers=2,
        vision_heads=2,
        text_width=32,
        text_layers=3,
        text_heads=2,
        context_length=12,
        vocab_size=64,
    )


def random_leaf(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Parameters that depend on their path alone, so that recipes share equal towers."""
    if path == "logit_scale":
        return np.array(2.0, np.float32)
    normal = np.random.default_rng(zlib.crc32(path.encode())).standard_normal(shape)
    spread = shape[-2] ** -0.5 if len(shape) > 2 else 0.3
    return (spread * normal + path.endswith("scale")).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_retriever(tiny_clip):
    """Makes small retrievers with random parameters: tiny_retriever("clip4clip", sizes, ...)."""
    import jax

    from vtr_jax.models.recipes import recipe_named
    from vtr_jax.models.retriever import Retriever, abstract_retriever, initial_state

    @functools.cache
    def make(recipe="clip", *, activation="quick_gelu", **options) -> Retriever:
        linear_patch = options.get("linear_patch", "2d")
        towers = dataclasses.replace(
            tiny_clip,
            vision=dataclasses.replace(
                tiny_clip.vision, linear_patch=linear_patch, activation=activation
            ),
            text=dataclasses.replace(tiny_clip.text, activation=activation),
        )
        sizes = {"temporal_layers": 2} if options.get("sim_header") == "seqTransf" else {}
        if recipe == "eercf":  # which fixes the number of frames, here to the tiny batch's
            sizes = {"temporal_layers": 2, "max_frames": 3}
        config = recipe_named(recipe).config(towers, options, sizes)
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.device_put(
                random_leaf(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape)
            ),
            abstract_retriever(config).params,
        )
        return Retriever(params, initial_state(config, jax.random.key(0)), config)

    return make


@pytest.fixture(scope="session")
def tiny_batch():
    """Three captions and three clips of 3, 2 and 1 frames for tiny_retriever, as NumPy arrays."""
    rng = np.random.default_rng(0)
    token_ids = np.zeros((3, 8), np.int32)
    for row, length in enumerate((8, 5, 3)):
        token_ids[row, :length] = [62, *rng.integers(1, 62, length - 2), 63]
    return {
        "token_ids": token_ids,
        "token_mask": (token_ids != 0).astype(np.int32),
        "frames": rng.integers(0, 256, (3, 3, 16, 16, 3), np.uint8),
        "frame_mask": np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], np.int32),
    }


@pytest.fixture(scope="session")
def checkpoint_file(tiny_retriever, tmp_path_factory) -> Path:
    """tiny_retriever("clip") under OpenAI's names; its two heads are not told by any shape."""
    from safetensors.numpy import save_file

    from vtr_jax.convert.from_state_dict import to_state_dict

    path = tmp_path_factory.mktemp("checkpoint") / "tiny-clip.safetensors"
    save_file(to_state_dict(tiny_retriever("clip")), path)
    return path


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory) -> Any:
    """A rendered SyntheticDataset: 16 clips to train on (two captions each), 5 val, 7 test."""
    from vtr_jax.data.synthetic import render_dataset

    folder = tmp_path_factory.mktemp("tiny") / "data"
    return render_dataset(
        folder, 16, seed=3, num_val=5, num_test=7, direction_pairs=1, video_size=48
    )


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory, tiny_dataset) -> Path:
    """A frame store of all its clips, 9 frames of 32 pixels each; tests must not change it."""
    from vtr_jax.data.annotations import read_split
    from vtr_jax.data.frame_store import prepare

    folder = tmp_path_factory.mktemp("tiny") / "store"
    splits = [read_split("table", tiny_dataset.captions_file, n) for n in ("train", "val", "test")]
    prepare(splits, tiny_dataset.videos_dir, folder, framerate=4, resolution=32, workers=1)
    return folder


@pytest.fixture(scope="session")
def tiny_config(tiny_dataset, tiny_store) -> Callable[..., Any]:
    """Settings of a run on the tiny data set: towers of one layer, 32 steps, all parameters.

    Called with changes as a dict of flat names; the same settings share one compiled step.
    """
    from vtr_jax.training.command import read_config

    settings = {
        "data.annotations": str(tiny_dataset.captions_file),
        "data.store": str(tiny_store),
        "clip.vision_layers": 1,
        "clip.text_layers": 1,
        "epochs": 8,
        "eval_every": 8,
        "batch_size": 8,
        "log_every": 8,
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 1e-3,
        "optimizer.coef_lr": 1.0,
        "optimizer.freeze_layer_num": -1,
    }

    def build(changes: dict[str, Any] | None = None, variant: str = "smoke") -> Any:
        config = read_config(f"clip4clip:{variant}")
        config.update_from_flattened_dict(settings | (changes or {}))
        return config

    return build


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_config) -> Path:
    """The workdir of a finished run of `tiny_config()`; tests must not change it."""
    from vtr_jax.training.loop import train

    workdir = tmp_path_factory.mktemp("tiny") / "run"
    train(tiny_config(), workdir)
    return workdir


def compiled_already(step: Callable[..., Any]) -> Callable[..., Any]:
    """A training step that needs no compilation, with the method that asks for one."""
    step.lower = lambda *arguments: types.SimpleNamespace(compile=lambda: None)  # type: ignore[attr-defined]
    return step


@pytest.fixture(scope="session")
def as_step() -> Callable[..., Any]:
    """Makes a plain function stand for the jitted step."""
    return compiled_already


QUICK_COMPILATION = {"xla_backend_optimization_level": 0}
# jaxlib 0.12 has no fusion emitters to switch off, and rejects an option it does not know.
if metadata.version("jaxlib").startswith("0.10."):
    QUICK_COMPILATION["xla_cpu_use_fusion_emitters"] = False


@pytest.fixture(scope="session")
def quick_compilation() -> dict[str, Any]:
    """XLA's options for a quarter of the time to compile."""
    return QUICK_COMPILATION


@pytest.fixture(scope="session")
def quickly_compiled() -> Callable[..., Any]:
    """Wraps a jitted function so that XLA optimises little: a quarter of the time to compile."""

    def wrap(jitted: Any) -> Callable[..., Any]:
        compiled: list[Any] = []

        def call(*arguments: Any) -> Any:
            if not compiled:
                compiled.append(jitted.lower(*arguments).compile(QUICK_COMPILATION))
            return compiled[0](*arguments)

        return compiled_already(call)

    return wrap
