"""The chips of a TPU pod slice by its name, on a machine that has none."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import jax

# libtpu would ask Google's metadata server who it is, write logs in /tmp, and let one process a
# machine load it: right for a program that runs on chips, needless for one that compiles.
ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # of no consequence, but asked for
    "TPU_LOG_DIR": "disabled",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
# A v4 chip has two cores that a program sees as one; without being told, libtpu gives both.
OPTIONS: dict[str, dict[str, Any]] = {"v4": {"chip_config_name": "megacore"}}
# Where libtpu is missing; where it is not, it says itself what it knows.
GENERATIONS = ("v2", "v3", "v4", "v5e", "v5p", "v6e")


def topology_devices(name: str) -> Sequence[jax.Device]:
    """The chips of a slice such as v5e:16x16, in the order in which a mesh is laid over them.

    They can be compiled for, nothing else. Raises ValueError for a name that nobody knows, with
    libtpu's own words where it is installed, and naming the extra where it is missing.
    """
    generation = name.partition(":")[0]
    if importlib.util.find_spec("libtpu") is None:
        if generation not in GENERATIONS:
            raise ValueError(
                f"--topology={name}: {generation!r} is no TPU known here; expected "
                f"GENERATION:SHAPE with one of {', '.join(GENERATIONS)}, such as v5e:2x4 (another "
                "one is for libtpu to know: pip install 'vtr_jax[compile]')"
            )
        raise ValueError(
            f"--topology={name} needs libtpu, which is not installed: pip install "
            "'vtr_jax[compile]'; without --topology the devices of this machine are compiled for"
        )
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=name, **OPTIONS.get(generation, {})
        )
    except Exception as error:  # XLA's errors share no base class; libtpu's own words say most
        reason = " ".join(str(error).split())
        raise ValueError(
            f"--topology={name}: libtpu does not describe this slice; expected GENERATION:SHAPE "
            f"such as v5e:2x4, v5e:16x16 or v5p:4x4x8. libtpu says: {reason[:300]}"
        ) from error
    return described.devices
