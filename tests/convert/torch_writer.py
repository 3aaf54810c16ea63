"""Writes files in PyTorch's formats without PyTorch, tensor by tensor and so at any size.

    python tests/convert/torch_writer.py OUT.pt     # ViT-L/14's archive, random weights, 890 MB

A value is made of dicts, lists, tuples, numbers, text, arrays (NumPy's or LazyTensor), View
(several tensors over one storage), Script (a TorchScript module) and Raw (pickle instructions).
"""

from __future__ import annotations

import math
import pickle
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vtr_jax.convert.lazy_tensor import LazyTensor

_STORAGE_NAMES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class View:
    """A tensor over the elements of a flat array; the array is stored once for all its views."""

    base: np.ndarray
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Script:
    """A TorchScript module with its attributes."""

    class_name: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Raw:
    """Pickle instructions that leave one value on the stack."""

    code: bytes


class Encoder:
    """Writes a value as pickle instructions and collects the storages it needs."""

    def __init__(self, *, legacy: bool = False) -> None:
        self.legacy = legacy
        self.storages: list[Any] = []

    def pickle(self, value: Any) -> bytes:
        """The whole pickle of a value."""
        return b"\x80\x02" + self.encode(value) + b"."

    def encode(self, value: Any) -> bytes:
        """The instructions of one value."""
        if isinstance(value, Raw):
            return value.code
        if isinstance(value, dict):
            items = b"".join(self.encode(k) + self.encode(v) for k, v in value.items())
            return b"}(" + items + b"u"
        if isinstance(value, list):
            return b"](" + b"".join(map(self.encode, value)) + b"e"
        if isinstance(value, tuple):
            return b"(" + b"".join(map(self.encode, value)) + b"t"
        if isinstance(value, Script):
            module, _, name = value.class_name.rpartition(".")
            return global_name(module, name) + b")\x81" + self.encode(value.attributes) + b"b"
        if isinstance(value, np.ndarray | LazyTensor | View):
            return self._tensor(value)
        return pickle.dumps(value, 2)[2:-1]

    def _tensor(self, value: Any) -> bytes:
        if isinstance(value, View):
            base, offset, shape, strides = value.base, value.offset, value.shape, value.strides
        else:
            base, offset, shape = value, 0, tuple(value.shape)
            strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        arguments = (Raw(self.storage(base) + b"Q"), offset, shape, strides, False, Raw(ORDERED))
        return global_name("torch._utils", "_rebuild_tensor_v2") + self.encode(arguments) + b"R"

    def storage(self, base: Any) -> bytes:
        """The reference tuple to the storage of an array."""
        known = [index for index, other in enumerate(self.storages) if other is base]
        if not known:
            known = [len(self.storages)]
            self.storages.append(base)
        kind = Raw(global_name("torch", _STORAGE_NAMES[base.dtype.name]))
        reference = ("storage", kind, str(known[0]), "cpu", math.prod(base.shape))
        return self.encode((*reference, None) if self.legacy else reference)


def global_name(module: str, name: str) -> bytes:
    """The instruction that asks for a name of a module."""
    return f"c{module}\n{name}\n".encode()


ORDERED = global_name("collections", "OrderedDict") + b")R"


def write_torch_zip(
    path: Path,
    value: Any,
    *,
    script: bool = False,
    byteorder: bytes = b"little",
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """Write the zip form (or, with script, a TorchScript archive), one storage in memory."""
    encoder = Encoder()
    described = encoder.pickle(value)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", described)
        archive.writestr("archive/byteorder", byteorder)
        if script:
            archive.writestr("archive/constants.pkl", b"\x80\x02).")
        for key, base in enumerate(encoder.storages):
            with archive.open(f"archive/data/{key}", "w", force_zip64=True) as entry:
                entry.write(_bytes(base))
        archive.writestr("archive/version", b"3\n")


def write_torch_legacy(path: Path, value: Any, *, little_endian: bool = True) -> None:
    """Write the form from before PyTorch 1.6."""
    encoder = Encoder(legacy=True)
    described = encoder.pickle(value)
    machine = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}
    keys = [str(key) for key in range(len(encoder.storages))]
    with path.open("wb") as file:
        for part in (encoder.pickle(_MAGIC), encoder.pickle(1001), encoder.pickle(machine)):
            file.write(part)
        file.write(described)
        file.write(encoder.pickle(keys))
        for base in encoder.storages:
            file.write(math.prod(base.shape).to_bytes(8, "little"))
            file.write(_bytes(base))


def script_tree(state_dict: dict[str, Any]) -> Script:
    """The module tree whose attribute paths are the names of the state_dict."""
    root: dict[str, Any] = {}
    for name, tensor in state_dict.items():
        *parents, leaf = name.split(".")
        level = root
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = tensor
    return _script("Model", root)


def openai_shapes(
    *,
    embed_dim: int,
    resolution: int,
    patch: int,
    vision_width: int,
    vision_layers: int,
    text_width: int,
    text_layers: int,
    vocab: int = 49408,
    context: int = 77,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an OpenAI CLIP with two Transformer towers."""
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (context, text_width),
        "text_projection": (text_width, embed_dim),
        "logit_scale": (),
        "visual.class_embedding": (vision_width,),
        "visual.positional_embedding": ((resolution // patch) ** 2 + 1, vision_width),
        "visual.proj": (vision_width, embed_dim),
        "visual.conv1.weight": (vision_width, 3, patch, patch),
        "token_embedding.weight": (vocab, text_width),
    }
    for name, width in (
        ("visual.ln_pre", vision_width),
        ("visual.ln_post", vision_width),
        ("ln_final", text_width),
    ):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for tower, width, layers in (
        ("visual.transformer", vision_width, vision_layers),
        ("transformer", text_width, text_layers),
    ):
        for layer in range(layers):
            block = f"{tower}.resblocks.{layer}"
            shapes |= {
                f"{block}.attn.in_proj_weight": (3 * width, width),
                f"{block}.attn.in_proj_bias": (3 * width,),
            }
            for part, rows, columns in (
                ("attn.out_proj", width, width),
                ("mlp.c_fc", 4 * width, width),
                ("mlp.c_proj", width, 4 * width),
            ):
                shapes |= {
                    f"{block}.{part}.weight": (rows, columns),
                    f"{block}.{part}.bias": (rows,),
                }
            for part in ("ln_1", "ln_2"):
                shapes |= {f"{block}.{part}.weight": (width,), f"{block}.{part}.bias": (width,)}
    return shapes


def random_tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, LazyTensor]:
    """Random tensors of these shapes, made when they are read; float16 where OpenAI stores it."""
    return {name: _random_tensor(name, shape) for name, shape in shapes.items()}


def _random_tensor(name: str, shape: tuple[int, ...]) -> LazyTensor:
    half = any(part in name for part in ("attn.", "mlp.", "conv1", "proj"))
    dtype = np.dtype(np.float16 if half else np.float32)

    def load() -> np.ndarray:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        return np.asarray(0.02 * rng.standard_normal(shape, np.float32)).astype(dtype)

    return LazyTensor(dtype, shape, load)


def _script(name: str, level: dict[str, Any]) -> Script:
    attributes = {
        key: _script(f"{name}_{key}", item) if isinstance(item, dict) else item
        for key, item in level.items()
    }
    return Script(f"__torch__.{name}", attributes | {"training": False})


def _bytes(base: Any) -> bytes:
    array = base.load() if isinstance(base, LazyTensor) else base
    return np.ascontiguousarray(array).tobytes()


if __name__ == "__main__":
    vit_l14 = openai_shapes(
        embed_dim=768,
        resolution=224,
        patch=14,
        vision_width=1024,
        vision_layers=24,
        text_width=768,
        text_layers=12,
    )
    write_torch_zip(Path(sys.argv[1]), script_tree(random_tensors(vit_l14)), script=True)
