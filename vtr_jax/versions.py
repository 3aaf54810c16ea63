"""What computed a number: packages, platform and device."""

from __future__ import annotations

import platform
from importlib import metadata

from vtr_jax import __version__

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def software_versions() -> dict[str, str]:
    """Versions of this package and of those that compute, the platform and the device kind."""
    import jax

    device = jax.devices()[0]
    return {
        "vtr_jax": __version__,
        **{name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": f"{jax.device_count()} x {device.platform} ({device.device_kind})",
    }
