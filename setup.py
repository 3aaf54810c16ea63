"""Installs vtr_jax and its `vtr` command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "vtr_jax/__init__.py").read_text())[1]

# Upper bounds exclude the first release that scripts/test_matrix.sh has not tried. Python 3.11 ends
# at older releases of some packages (jax 0.10.2, PyAV 18) than 3.12 and 3.13 (jax 0.12, PyAV 19).
JAX = ">=0.10.2,<0.13"

REQUIRED = [
    f"jax{JAX}",  # arrays, compilation, the mesh
    # NNX modules, the two towers and the heads; 0.13 is to change defaults of its graph mode.
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",  # gradient transformations
    "orbax-checkpoint>=0.12.8,<0.13",  # checkpoints that survive kills and mesh changes
    "ml_collections>=1.1.0,<2",  # typed configs, overridable from the command line
    "absl-py>=2.1,<3",  # flags of `vtr train`
    "numpy>=2.0,<2.6",  # arrays on the host: decoding, ranks, files
    "av>=15.0,<20",  # video decoding, FFmpeg inside the wheel
    "Pillow>=11.0,<14",  # resizing exactly as the original programs do
    "tokenizers>=0.22,<0.24",  # CLIP's byte pair encoding, tokenizer.json files
    "ftfy>=6.3,<7",  # the text repair that CLIP's tokenizer starts with
    "safetensors>=0.5,<0.9",  # Hugging Face weights
    "transformers>=5.0,<6",  # tokenizers and checkpoints in the Hugging Face format
    "tqdm>=4.66,<5",  # progress of preparing and training
    "matplotlib>=3.9,<4",  # curves of the visual report
]

# Frame store and input pipeline only; models, training step and conversion never import them.
DATA = [
    "tensorflow-cpu>=2.20,<2.22; platform_system != 'Darwin'",  # tf.data: decoding runs ahead
    "tensorflow>=2.20,<2.22; platform_system == 'Darwin'",  # tensorflow-cpu has no macOS wheels
    "tensorflow-datasets>=4.9.10,<4.10",  # the frame store's format
    # tensorflow-datasets 4.9.10 imports it without declaring it.
    "importlib_resources>=6.0,<8",
]

TEST = [
    "pytest>=9.0,<10",
    "hypothesis>=6.100,<7",  # properties over drawn inputs
    "ruff==0.17.5",  # lint and format; pinned, since a new one may judge otherwise
    "mypy==2.4.1",  # types; pinned for the same reason
    "pytest-xdist>=3.6,<4",  # one process per core: compiling is what takes the time
    "setuptools>=77,<85",  # tests/test_wheel.py builds the wheel without build isolation
]

setup(
    name="vtr_jax",
    version=VERSION,
    description="CLIP-based video-text retrieval in JAX: fine-tune, convert, evaluate, search",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["vtr_jax", "vtr_jax.*"]),
    package_data={"vtr_jax": ["py.typed", "data/clip_vocabulary/*"]},
    install_requires=REQUIRED,
    extras_require={
        "data": DATA,  # vtr prepare, train and evaluate
        "test": [*TEST, *DATA],
        "cuda12": [f"jax[cuda12]{JAX}"],  # NVIDIA GPUs, drivers from 525 on
        "cuda13": [f"jax[cuda13]{JAX}"],  # NVIDIA GPUs, drivers from 580 on
        "tpu": [f"jax[tpu]{JAX}"],  # TPUs
        # `vtr compile --topology=v5e:16x16` without a TPU: the libtpu that the installed jax names
        # for its own TPU extra. Not part of "test": 213 MB, 684 MB installed, and every program
        # that imports jax beside it looks for a TPU first.
        "compile": [f"jax[tpu]{JAX}"],
        "tensorboard": ["tensorboardX>=2.6,<3"],  # --config.tensorboard=True, without TensorFlow
        # Preparing on many machines; it takes protobuf and Pillow back to its own bounds.
        "beam": ["apache-beam>=2.77,<2.78", *DATA],
    },
    entry_points={"console_scripts": ["vtr = vtr_jax.cli:main"]},
)
