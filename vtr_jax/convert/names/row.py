"""One row of a name table: the original's key, our path, and how its axes are permuted.

`{}` in a key stands for the layer index; such parameters are stacked along a leading layer axis
on our side.
"""

from __future__ import annotations

import dataclasses

LINEAR = (1, 0)  # (out, in) to (in, out)
CONV2D = (2, 3, 1, 0)  # (out, channel, row, column) to (row, column, channel, out)
CONV3D = (2, 3, 4, 1, 0)  # (out, channel, time, row, column) to (time, row, column, channel, out)


@dataclasses.dataclass(frozen=True)
class Row:
    """One parameter: its key in the original, its path here, and the permutation of its axes.

    axes: the original's axes in our order; empty where they agree.
    """

    original: str
    ours: str
    axes: tuple[int, ...] = ()

    @property
    def stacked(self) -> bool:
        """Whether the original has one such parameter a layer."""
        return "{}" in self.original

    def prefixed(self, prefix: str) -> Row:
        """The row of the same parameter under a prefix of the original's key."""
        return dataclasses.replace(self, original=prefix + self.original)


@dataclasses.dataclass(frozen=True)
class NameTable:
    """All rows a system may have; those whose path a retriever lacks do not apply to it.

    clip_prefix: what stands before CLIP's own keys. ignored: keys that carry nothing.
    """

    rows: tuple[Row, ...]
    clip_prefix: str = ""
    ignored: tuple[str, ...] = ()


def block_rows(original: str, ours: str) -> tuple[Row, ...]:
    """The rows of a stack of residual attention blocks, `original` holding `{}`."""
    parts = (
        ("attn.in_proj_weight", "attn/qkv/kernel", LINEAR),
        ("attn.in_proj_bias", "attn/qkv/bias", ()),
        ("attn.out_proj.weight", "attn/out/kernel", LINEAR),
        ("attn.out_proj.bias", "attn/out/bias", ()),
        ("ln_1.weight", "ln_1/scale", ()),
        ("ln_1.bias", "ln_1/bias", ()),
        ("mlp.c_fc.weight", "mlp/fc/kernel", LINEAR),
        ("mlp.c_fc.bias", "mlp/fc/bias", ()),
        ("mlp.c_proj.weight", "mlp/proj/kernel", LINEAR),
        ("mlp.c_proj.bias", "mlp/proj/bias", ()),
        ("ln_2.weight", "ln_2/scale", ()),
        ("ln_2.bias", "ln_2/bias", ()),
    )
    return tuple(
        Row(f"{original}.{theirs}", f"{ours}/{path}", axes) for theirs, path, axes in parts
    )
