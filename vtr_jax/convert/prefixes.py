"""Prefixes that training wrappers put into parameter names, and how to remove them.

Data-parallel training, torch.compile, FSDP, activation checkpointing, Lightning, weight averaging
and PEFT wrap the model in a module of their own, in any order and number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from vtr_jax.convert.lazy_tensor import LazyTensor
from vtr_jax.convert.merge import is_internvideo

Tensors = dict[str, LazyTensor]

# Wrappers around any submodule, so that these segments can stand anywhere in a name.
_INNER = re.compile(
    r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_fpw_module"
    r"|_forward_module)\."
    r"|(?<=\.)module\."
)
# Wrappers around the complete model: removed from the front if every name begins with them.
_OUTER = frozenset(
    {
        *("module", "model", "net", "network", "backbone", "base_model", "student", "teacher"),
        *("clip_model", "ema_model", "averaged_model", "wrapped_model", "_model", "encoder"),
    }
)
# What training keeps next to the model: counters, losses, metrics.
_ASIDE = re.compile(
    r"(.*\.)?n_averaged|(criterion|loss\w*|metrics?|(train|val|valid|test)_\w+|queue\w*)(\..*)?"
)
# CLIP's parameters by OpenAI's and Hugging Face's names; what stands before them is a prefix.
_MARKERS = (
    "vision_model.embeddings.class_embedding",
    "text_model.embeddings.token_embedding.weight",
    "visual.class_embedding",
    "text.token_embedding.weight",
    "token_embedding.weight",
)
# A trained retriever has CLIP under this prefix, next to its own parameters.
_SYSTEM = "clip."


def without_wrappers(tensors: Tensors) -> tuple[Tensors, tuple[str, ...]]:
    """Remove the prefixes of training wrappers from all names.

    Returns:
        The tensors under their new names, and notes that say what was removed.

    Raises:
        ValueError: Two names become one.
    """
    notes = []
    aside = [name for name in tensors if _ASIDE.fullmatch(name)]
    if aside and len(aside) < len(tensors):
        notes.append(f"ignored what training keeps next to the model: {', '.join(aside[:4])}")
        tensors = {name: item for name, item in tensors.items() if name not in aside}
    found = Counter(match[0] for name in tensors for match in _INNER.finditer(name))
    if found:
        notes.append(f"removed training wrappers from the names: {', '.join(sorted(found))}")
        tensors = _renamed(tensors, {name: _INNER.sub("", name) for name in tensors})
    prefix = ""
    while (first := _shared_segment(tensors, prefix)) in _OUTER:
        prefix += f"{first}."
    if prefix:
        notes.append(f"removed the prefix {prefix!r} from every name")
        tensors = {name.removeprefix(prefix): item for name, item in tensors.items()}
    return tensors, tuple(notes)


def take_prefix(tensors: Tensors, prefix: str) -> tuple[Tensors, tuple[str, ...]]:
    """Return the tensors whose names begin with the prefix, without it, and notes.

    Raises:
        ValueError: No name begins with the prefix; the message lists the prefixes there are.
    """
    prefix = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
    taken = {
        name.removeprefix(prefix): item for name, item in tensors.items() if name.startswith(prefix)
    }
    if not taken:
        raise ValueError(
            f"prefix: expected one that its names begin with, got {prefix!r}; names begin with "
            f"{', '.join(_prefixes(tensors))}"
        )
    others = [name for name in tensors if not name.startswith(prefix)]
    notes = [f"took the {len(taken)} names that begin with {prefix!r}"]
    if others:
        shown = ", ".join(others[:4])
        notes.append(f"ignored {len(others)} names without that prefix: {shown}")
    return taken, tuple(notes)


def require_one_model(tensors: Mapping[str, LazyTensor]) -> None:
    """Raise ValueError that asks for --prefix if CLIP lies under an unknown prefix, or several."""
    if is_internvideo(tensors):  # it has a second model, which retrieval does not read
        return
    prefixes = clip_prefixes(tensors)
    huggingface = any(name.endswith(_MARKERS[:2]) for name in tensors)
    if not prefixes or {"", _SYSTEM} & set(prefixes) or (huggingface and len(prefixes) == 1):
        return
    which = f"{len(prefixes)} models" if len(prefixes) > 1 else "a model"
    others = [name for name in tensors if not name.startswith(tuple(prefixes))]
    loss = (
        f"; this leaves out {len(others)} other names ({', '.join(others[:3])}), which is right "
        "only if no score depends on them"
    )
    raise ValueError(
        f"expected CLIP's names, found {which} under the prefix {' and '.join(prefixes)}; "
        f"choose it with --prefix={prefixes[0]}{loss if others else ''}"
    )


def clip_prefixes(names: Iterable[str]) -> list[str]:
    """Return what stands before CLIP's own names, in the order of the file; "" for nothing."""
    prefixes: dict[str, None] = {}
    for name in names:
        marker = next((marker for marker in _MARKERS if name.endswith(marker)), None)
        before = None if marker is None else name.removesuffix(marker)
        if before is not None and (not before or before.endswith(".")):
            prefixes[before] = None
    return list(prefixes)


def _renamed(tensors: Tensors, names: Mapping[str, str]) -> Tensors:
    renamed = {names[name]: item for name, item in tensors.items()}
    if len(renamed) != len(tensors):
        twice = [name for name, count in Counter(names.values()).items() if count > 1]
        raise ValueError(
            f"without the prefixes of training wrappers, {len(twice)} names are there twice "
            f"({', '.join(twice[:3])}); choose one of the models with --prefix=NAME."
        )
    return renamed


def _shared_segment(tensors: Tensors, prefix: str) -> str | None:
    """The segment that follows the prefix in every name, None if they differ."""
    segments = set()
    for name in tensors:
        segment, dot, _rest = name[len(prefix) :].partition(".")
        segments.add(segment if dot else None)
        if len(segments) > 1:
            return None
    return segments.pop() if segments else None


def _prefixes(tensors: Tensors, limit: int = 8) -> list[str]:
    """The prefixes a caller can choose: those before CLIP's names, and all first segments."""
    segments = {name.partition(".")[0] + "." for name in tensors if "." in name}
    found = [prefix for prefix in clip_prefixes(tensors) if prefix]
    return list(dict.fromkeys([*found, *sorted(segments)]))[:limit] or ["no prefix"]
