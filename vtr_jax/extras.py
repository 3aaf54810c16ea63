"""Optional packages: which extra of vtr_jax installs them, said before work starts."""

from __future__ import annotations

import importlib.util

# Extra -> its modules, and what they are for.
_EXTRAS = {
    "data": (
        ("tensorflow", "tensorflow_datasets"),
        "frame stores (vtr prepare, train and evaluate)",
    )
}


class MissingExtra(ImportError):
    """A package that an extra of vtr_jax installs is missing."""


def require_extra(extra: str) -> None:
    """Check that an extra is installed, without importing its packages.

    Raises:
        MissingExtra: one of them is missing; the message names it, its purpose and the extra.
    """
    modules, purpose = _EXTRAS[extra]
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"{missing[0]}: needed for {purpose}, not installed; pip install 'vtr_jax[{extra}]'"
        )
