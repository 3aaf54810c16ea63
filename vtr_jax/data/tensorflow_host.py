"""TensorFlow as a host library: record files and input pipeline, never an accelerator."""

from __future__ import annotations

import functools
import os
from typing import Any

from vtr_jax.extras import require_extra


@functools.cache
def import_tensorflow() -> Any:
    """The tensorflow module, with every accelerator hidden from it and its start-up log silenced.

    Memory of a GPU that TensorFlow sees is taken from JAX. Raises MissingExtra if TensorFlow is not
    installed, RuntimeError where it has been set up to use accelerators before.
    """
    require_extra("data")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # its start-up message passes the log level, and no kernel it is about is used here
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        if tf.config.get_visible_devices(kind):
            tf.config.set_visible_devices([], kind)
    return tf
