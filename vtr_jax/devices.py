"""The devices that JAX computes on, checked before a command starts its work."""

from __future__ import annotations

import os


def require_devices() -> None:
    """Let JAX find its devices now.

    Raises:
        ValueError: JAX_PLATFORMS asks for a platform that this installation does not have.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        # JAX raises an AssertionError without text if the plugin for "cuda" is not installed.
        found = " ".join(str(error).split()) or "none: the plugin is not installed"
        raise ValueError(
            f"JAX_PLATFORMS={asked}: expected a device of this platform, found {found}; for NVIDIA "
            "GPUs pip install 'vtr_jax[cuda12]' or 'vtr_jax[cuda13]', for TPUs 'vtr_jax[tpu]'; or "
            "unset JAX_PLATFORMS"
        ) from error
