"""An NNX module seen as a hashable description plus a plain nested dict of arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from vtr_jax.models.runtime import Runtime

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ModuleSpec:
    """Which NNX module, of which sizes, computed how.

    The description is hashable, so that jitted functions take it as a static argument and
    two retrievers with the same tower share one compilation.
    """

    kind: Callable[..., nnx.Module]
    config: Any
    runtime: Runtime

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        """The module with freshly drawn parameters."""
        return self.kind(self.config, self.runtime, rngs=rngs)

    def init(self, key: jax.Array) -> Params:
        """Freshly drawn parameters as a nested dict."""
        return _init(self, key)

    def abstract(self) -> Params:
        """Nested dict of ShapeDtypeStruct; nothing is allocated."""
        return _split(self)[1]

    def bind(self, params: Params) -> Any:
        """The module with these parameters, to be called."""
        return nnx.merge(_split(self)[0], params)


@functools.partial(jax.jit, static_argnums=0)
def _init(spec: ModuleSpec, key: jax.Array) -> Params:
    return nnx.to_pure_dict(nnx.state(spec.build(nnx.Rngs(key))))


@functools.lru_cache(maxsize=256)
def _split(spec: ModuleSpec) -> tuple[Any, Params]:
    graphdef, state = nnx.split(nnx.eval_shape(lambda: spec.build(nnx.Rngs(0))))
    return graphdef, nnx.to_pure_dict(state)
