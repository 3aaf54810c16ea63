"""CLIP-based video-text retrieval in JAX: fine-tune, convert, evaluate and search.

Names are imported when first used, so that `import vtr_jax` is quick and needs no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "load_retriever": "vtr_jax.checkpoint",
    "convert_checkpoint": "vtr_jax.convert.convert_checkpoint",
    "retriever_from_state_dict": "vtr_jax.convert.from_state_dict",
    "to_state_dict": "vtr_jax.convert.from_state_dict",
    "tokenize": "vtr_jax.data.text",
    "read_video": "vtr_jax.data.video",
    "Retriever": "vtr_jax.models.retriever",
    "TextFeatures": "vtr_jax.models.features",
    "VideoFeatures": "vtr_jax.models.features",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vtr_jax' has no attribute {name!r}; it has {__all__}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
