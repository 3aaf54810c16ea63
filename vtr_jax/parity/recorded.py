"""What a system records: which of its arrays is which of ours, and how its options are told."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtr_jax.parity.cases import Case
    from vtr_jax.parity.compare import Outputs

Arrays = Mapping[str, Any]

# What a careful float32 port keeps: it reaches about a tenth of these.
TOLERANCES: dict[str, float] = {
    "feature": 1e-5,  # absolute
    "inside a head": 5e-6,  # absolute
    "logits": 1e-4,  # of (max - min)
    "loss": 1e-5,  # relative
    "gradient norm": 1e-3,  # relative
    "gradient head": 1e-3,  # of the key's gradient norm
}


@dataclasses.dataclass(frozen=True)
class RecordedArray:
    """The kind of a recorded array, and how ours is computed from a run's Outputs.

    value None: recorded for the reader, not to be equalled. tolerance(case, recorded): where a
    case states its own, in the measure of the kind. rows(outputs): a mask of the leading
    dimensions, where a record holds more than means something; None compares everything.
    """

    kind: str
    value: Callable[[Outputs], Any] | None
    tolerance: Callable[[Case, Any], float] | None = None
    rows: Callable[[Outputs], Any] | None = None


class ArrayTable(Mapping[str, RecordedArray]):
    """Recorded names to arrays; a name may hold a number, written {}."""

    def __init__(self, rows: Mapping[str, RecordedArray]) -> None:
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> RecordedArray:
        if name in self._rows:
            return self._rows[name]
        number = re.search(r"\d+", name)
        row = self._rows.get(re.sub(r"\d+", "{}", name, count=1)) if number else None
        if number is None or row is None or row.value is None:
            raise KeyError(name)
        index, value = int(number[0]), row.value
        return dataclasses.replace(row, value=lambda outputs: value(outputs)[index])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


@dataclasses.dataclass(frozen=True)
class RecordedSystem:
    """How the recorded cases of one system are read.

    options(config): a retriever's options from a case's configuration. resolution(config): pixels
    a side of its frames. arrays: everything it records besides inputs and gradients.
    picks: names of the recorded samples (text, video) of a loss that draws, or None.
    state(case, arrays): the recipe's state as recorded; None keeps the retriever's own.
    inputs: further recorded arrays that are inputs. half_keys(case): original keys whose weights
    were rounded to float16, as a file of a GPU run holds them, where the record does not list them.
    """

    options: Callable[[Mapping[str, Any]], dict[str, Any]]
    resolution: Callable[[Mapping[str, Any]], int]
    arrays: ArrayTable
    picks: tuple[str, str] | None = None
    state: Callable[[Case, Arrays], dict[str, Any]] | None = None
    inputs: frozenset[str] = frozenset()
    half_keys: Callable[[Case], frozenset[str]] = lambda case: frozenset()


def similarity(outputs: Outputs) -> Any:
    """What evaluation ranks by."""
    return outputs.retriever.similarity(outputs.text, outputs.video)


def loss_term(name: str) -> Callable[[Outputs], Any]:
    """One of the loss's terms."""
    return lambda outputs: outputs.loss[1][name]


def total_loss(outputs: Outputs) -> Any:
    """The training loss."""
    return outputs.loss[0]


def sentence(outputs: Outputs) -> Any:
    """Text features at the end of the text."""
    return outputs.text.sentence


def frames(outputs: Outputs) -> Any:
    """Frame features before aggregation."""
    return outputs.video.frames


def temporal(outputs: Outputs) -> Any:
    """Frame features after aggregation."""
    return outputs.video.temporal


def own_modules(outputs: Outputs) -> dict[str, Any]:
    """The retriever's own modules, bound to its parameters."""
    from vtr_jax.models.recipes.recipe import bind_modules

    retriever = outputs.retriever
    specs = retriever.recipe.modules(retriever.config, retriever.runtime)
    return bind_modules(specs, retriever.params)


__all__ = [
    "TOLERANCES",
    "ArrayTable",
    "RecordedArray",
    "RecordedSystem",
    "frames",
    "loss_term",
    "own_modules",
    "sentence",
    "similarity",
    "temporal",
    "total_loss",
]
