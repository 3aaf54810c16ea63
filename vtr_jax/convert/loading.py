"""How a checkpoint is put together before it is converted: merged with CLIP, or incomplete.

The options are spelt as InternVideo's flags where it has them; what its non-strict loading does
without a word is an option of its own, and reported.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtr_jax.convert.checkpoint_file import open_checkpoint
from vtr_jax.convert.huggingface_names import openai_names
from vtr_jax.convert.incomplete import expected_of, with_fresh, without_unknown
from vtr_jax.convert.merge import is_internvideo, merge_with_clip, pretrained_names
from vtr_jax.convert.names import NAME_TABLES
from vtr_jax.models.recipes import RetrieverConfig

Loaded = tuple[dict[str, Any], tuple[str, ...]]


_SWITCHES = (
    "mergeclip",
    "merge_projection",
    "allow_missing",
    "ignore_unknown",
    "allow_nonfinite",
)


@dataclasses.dataclass(frozen=True)
class LoadingOptions:
    """What becomes of a checkpoint's tensors before they are parameters.

    mergeclip: merge with the CLIP in the file pretrained_clip_name, mergeweight being CLIP's
    share (None: 0.5). merge_projection: merge the video projection and its norm too, which
    InternVideo means to and does not. allow_missing: draw what the file lacks. ignore_unknown:
    leave out what the model does not have. allow_nonfinite: keep NaN and infinite values. entry,
    prefix: which of several models in the file, see open_checkpoint. image_resolution: interpolate
    the position embeddings to frames of that size, in pixels. Raises ValueError for other values,
    and for options that need mergeclip.
    """

    pretrained_clip_name: str | None = None
    mergeclip: bool = False
    mergeweight: float | None = None
    merge_projection: bool = False
    allow_missing: bool = False
    ignore_unknown: bool = False
    allow_nonfinite: bool = False
    entry: str | None = None
    prefix: str | None = None
    image_resolution: int | None = None

    def __post_init__(self) -> None:
        for name in _SWITCHES:
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ValueError(f"{name}: expected True or False, got {value!r}")
        size = self.image_resolution
        if size is not None and (type(size) is not int or size < 1):
            raise ValueError(f"image_resolution: expected a number of pixels, got {size!r}")
        if self.mergeclip and self.pretrained_clip_name is None:
            raise ValueError("mergeclip: needs the CLIP's file, pretrained_clip_name=ViT-L-14.pt")
        if self.mergeclip:
            return
        for name in ("pretrained_clip_name", "mergeweight", "merge_projection"):
            if getattr(self, name) is not getattr(type(self), name):
                raise ValueError(f"{name}: is read with mergeclip=True only")


def take_loading_options(options: Mapping[str, Any]) -> tuple[LoadingOptions, dict[str, Any]]:
    """Loading options and all others, apart; errors as LoadingOptions."""
    names = {field.name for field in dataclasses.fields(LoadingOptions)}
    loading = LoadingOptions(**{name: options[name] for name in options if name in names})
    return loading, {name: options[name] for name in options if name not in names}


def with_model_names(tensors: Mapping[str, Any], recipe: str) -> Loaded:
    """An InternVideo file's tensors under its model's names; any other file's as they are.

    Returns them and notes; ValueError as pretrained_names.
    """
    if recipe == "internvideo" and is_internvideo(tensors):
        return pretrained_names(tensors)
    return dict(tensors), ()


def put_together(
    tensors: Mapping[str, Any], config: RetrieverConfig, options: LoadingOptions, seed: int
) -> Loaded:
    """The tensors as the options want them, and notes that say what was done.

    tensors: by the names of the model that config describes. Raises ValueError where a merge is
    asked for another recipe than internvideo or cannot be done, and as open_checkpoint.
    """
    loaded: dict[str, Any] = dict(tensors)
    notes: tuple[str, ...] = ()
    if options.mergeclip:
        loaded, notes = _merged(loaded, config, options)
    if options.ignore_unknown:
        loaded, more = without_unknown(loaded, config)
        notes = (*notes, *more)
    if options.allow_missing:
        loaded, more = with_fresh(loaded, config, seed)
        notes = (*notes, *more)
    return loaded, notes


def options_that_help(
    tensors: Mapping[str, Any], config: RetrieverConfig, options: LoadingOptions
) -> str:
    """The options that would make up for missing or unknown names, to end an error; else ""."""
    helpful = []
    known = {*expected_of(config), *NAME_TABLES[config.recipe].ignored}
    unknown = {name: tensor for name, tensor in tensors.items() if name not in known}
    if not options.allow_missing and any(name not in tensors for name in expected_of(config)):
        helpful.append("allow_missing=True draws what is missing")
    # Without its scoring head a file is another model, so that is not a hint to give.
    if not options.ignore_unknown and unknown and not any(map(_may_score, unknown)):
        helpful.append("ignore_unknown=True leaves out what is unexpected")
    return f" ({', '.join(helpful)})" if helpful else ""


# Names that no retrieval score depends on: counters and buffers, decoders of captions, losses.
_UNSCORED = re.compile(
    r"(.*\.)?(position_ids|num_batches_tracked|attn_mask|causal_mask|\w*steps?|\w*epoch)"
    r"|(clip\.)?(text_decoder|decoder|predictor|mlm_head|criterion|loss\w*|queue\w*)(\..*)?"
)


def _may_score(name: str) -> bool:
    return _UNSCORED.fullmatch(name) is None


def _merged(tensors: dict[str, Any], config: RetrieverConfig, options: LoadingOptions) -> Loaded:
    if config.recipe != "internvideo":
        raise ValueError(f"mergeclip: InternVideo merges with CLIP, {config.recipe} does not")
    assert options.pretrained_clip_name is not None
    clip = openai_names(open_checkpoint(Path(options.pretrained_clip_name)))
    weight = 0.5 if options.mergeweight is None else options.mergeweight
    try:
        merged, notes = merge_with_clip(
            tensors, clip.tensors, expected_of(config), weight, options.merge_projection
        )
    except ValueError as error:
        raise ValueError(f"{clip.path}: {error}") from error
    source = f"merged with {clip.path.absolute().name}, sha256 {clip.sha256[:16]}..."
    return merged, (source, *notes)
