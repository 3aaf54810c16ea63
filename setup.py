"""Installs vtr_jax and its `vtr` command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "vtr_jax/__init__.py").read_text())[1]

# Every name says what it is for; what can be spared at run time is an extra below.
REQUIRED = [
    # Arrays, compilation, the mesh. 0.10.2 is the newest for Python 3.11, and what every recorded
    # number was compared on.
    "jax>=0.10.2,<0.11",
    # NNX modules, the two towers and the heads; 0.13 is to change defaults of its graph mode.
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8",  # gradient transformations
    "orbax-checkpoint>=0.12.8",  # checkpoints that survive kills and mesh changes
    "ml_collections>=1.1.0",  # typed configs, overridable from the command line
    "absl-py>=2.1",  # flags of `vtr train`
    "numpy>=2.0",  # arrays on the host: decoding, ranks, files
    "av>=15.0",  # video decoding, FFmpeg inside the wheel
    "Pillow>=11.0",  # resizing exactly as the original programs do
    "instant-clip-tokenizer>=0.1.1",  # CLIP's tokens, vocabulary inside the wheel
    "ftfy>=6.3",  # the text repair that CLIP's tokeniser starts with
    "safetensors>=0.5",  # Hugging Face weights
    "transformers>=5.0",  # tokenisers and checkpoints in the Hugging Face format
    "tqdm>=4.66",  # how far preparing and training are
    "matplotlib>=3.9",  # curves of the visual report
    # Frame store and input pipeline only; models, training step and conversion never import them.
    "tensorflow-cpu>=2.20; platform_system != 'Darwin'",  # tf.data: decoding runs ahead
    "tensorflow>=2.20; platform_system == 'Darwin'",  # tensorflow-cpu has no macOS wheels
    "tensorflow-datasets>=4.9.10",  # the frame store's format
    "importlib_resources>=6.0",  # tensorflow-datasets 4.9.10 imports it without saying so
]

TEST = [
    "pytest>=9.0",
    "hypothesis>=6.100",  # properties over drawn inputs
    "ruff==0.17.5",  # lint and format; pinned, since a new one may judge otherwise
    "mypy==2.4.1",  # types; pinned for the same reason
    "pytest-xdist>=3.6",  # one process a core: compiling is what takes the time
]

setup(
    name="vtr_jax",
    version=VERSION,
    description="CLIP-based video-text retrieval in JAX: fine-tune, convert, evaluate, search",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["vtr_jax", "vtr_jax.*"]),
    install_requires=REQUIRED,
    extras_require={
        "test": TEST,
        "cuda12": ["jax[cuda12]>=0.10.2,<0.11"],  # NVIDIA GPUs
        "tpu": ["jax[tpu]>=0.10.2,<0.11"],  # TPUs
        # `vtr compile --topology=v5e:16x16` without a TPU. The release of libtpu that jax 0.10.2
        # names for its own TPU extra; not part of "test": 213 MB, 684 MB installed, and every
        # program that imports jax beside it looks for a TPU first.
        "compile": ["libtpu==0.0.42.*"],
        "tensorboard": ["tensorboardX>=2.6"],  # --config.tensorboard=True, without TensorFlow
        # Preparing on many machines; it takes protobuf and Pillow back to its own bounds.
        "beam": ["apache-beam>=2.77"],
    },
    entry_points={"console_scripts": ["vtr = vtr_jax.cli:main"]},
)
