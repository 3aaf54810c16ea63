"""Files, folders and state dicts that are recognized and rejected by name, and what to do instead.

Each gets one sentence: what it is, and which command or file helps.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vtr_jax.convert.lazy_tensor import LazyTensor

_TEXT = frozenset(string.printable.encode())
_LFS = b"version https://git-lfs"
_SIGNATURES = (
    (_LFS, "a Git LFS pointer, not the file itself; fetch it with git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras or TensorFlow weights)"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"GGUF", "a GGUF file (llama.cpp); give the PyTorch or safetensors weights it was made from"),
    (b"\x1f\x8b", "a gzip file; unpack it"),
    (b"BZh", "a bzip2 file; unpack it"),
    (b"\xfd7zXZ\0", "an xz file; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file; unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
)
_SUFFIXES = {
    ".onnx": "an ONNX model",
    ".msgpack": "Flax weights (msgpack)",
    ".h5": "Keras or TensorFlow weights",
    ".pb": "a TensorFlow graph",
    ".tflite": "a TensorFlow Lite model",
    ".gguf": "a GGUF file (llama.cpp)",
    ".distcp": "one part of a distributed checkpoint",
    ".engine": "a TensorRT engine",
    ".mlmodel": "a Core ML model",
}
_GIVE_OTHERS = "give the PyTorch or safetensors weights of the same model"
_MERGE_DCP = (
    "merge it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER OUT.pt"
)
_MERGE_ZERO = "merge them first: python zero_to_fp32.py CHECKPOINT_FOLDER OUT"


def file_kind(start: bytes, path: Path) -> str | None:
    """Return what a file is that cannot be read, with what to do; None if it may be a checkpoint.

    Args:
        start: The first bytes of the file, at least 512 if there are so many.
        path: Its name counts only for kinds without a signature.
    """
    for signature, words in _SIGNATURES:
        if start.startswith(signature):
            return words
    if start.lstrip()[:1] == b"<":
        return "a web page or XML; the download probably failed, download the file itself"
    if start[257:262] == b"ustar":
        return "a tar archive; unpack it"
    if path.suffix == ".distcp":
        return f"{_SUFFIXES['.distcp']}; give its folder to PyTorch and {_MERGE_DCP}"
    # ONNX and TensorFlow files are protocol buffers, which have no signature.
    if path.suffix in _SUFFIXES:
        return f"{_SUFFIXES[path.suffix]}; {_GIVE_OTHERS}"
    if start[:1] == b"\x08" and re.search(rb"pytorch|onnx|tf2onnx", start[:64]):
        return f"{_SUFFIXES['.onnx']}; {_GIVE_OTHERS}"
    return None


def unknown_kind(start: bytes) -> str:
    """Describe a file that is neither a checkpoint nor of a kind with a signature."""
    if start[:1] == b"\x80":
        return "a plain Python pickle, not written by torch.save (nothing in it was executed)"
    if start[:1] in (b"{", b"["):
        return "a JSON file; give the weight file or the folder with both"
    if all(byte in _TEXT for byte in start):
        return "a text file"
    return "no file of a known form, or a damaged or cut-off one"


def archive_kind(names: Iterable[str]) -> str | None:
    """Return what a zip archive without a PyTorch checkpoint is, None if nothing is known."""
    names = list(names)
    weights = [name for name in names if re.search(r"\.(safetensors|pt|pth|bin|ckpt)$", name)]
    if weights:
        return f"an archive with {weights[0][:100]!r} in it; unpack it and give that file"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz); save the weights with safetensors.numpy.save_file"
    if any(name.endswith("model.weights.h5") for name in names):
        return f"a Keras model; {_GIVE_OTHERS}"
    if any("/code/" in name or name.endswith(".py") for name in names):
        return "TorchScript code without parameters; expected a CLIP model"
    return None


def lfs_pointer(text: bytes) -> bool:
    """Whether these are the first bytes of a Git LFS pointer."""
    return text.startswith(_LFS)


def refuse_folder(folder: Path) -> None:
    """Raise ValueError for a folder of a known kind that is no checkpoint to convert."""
    names = {entry.name for entry in folder.iterdir()}
    reason = None
    if "retriever.json" in names:
        reason = (
            "a retriever directory of vtr_jax already; train or evaluate it, or write it back "
            "with --to=NAME"
        )
    elif ".metadata" in names or any(name.endswith(".distcp") for name in names):
        reason = f"a distributed checkpoint of PyTorch (DCP) in parts; {_MERGE_DCP}"
    elif any(re.search(r"zero_pp_rank_\d+_mp_rank_\d+", name) for name in names):
        reason = f"a DeepSpeed ZeRO checkpoint in parts; {_MERGE_ZERO}"
    elif "adapter_config.json" in names and not _full_weights(names):
        reason = (
            "a PEFT adapter, which has only the changes to a model; merge it first: "
            "model.merge_and_unload().save_pretrained(OUT)"
        )
    if reason is not None:
        raise ValueError(f"{folder}: this is {reason}")


def _full_weights(names: set[str]) -> bool:
    return any(re.match(r"(open_clip_)?(model|pytorch_model)[^/]*\.(s|b)", name) for name in names)


def refuse_parts(value: Any) -> None:
    """Raise ValueError for one part of a DeepSpeed checkpoint, from the object in the file."""
    if not isinstance(value, dict):
        return
    optimizer = value.get("optimizer_state_dict")
    zero = isinstance(optimizer, dict) and (
        "zero_stage" in optimizer or "partition_count" in optimizer
    )
    if zero and "module" not in value:
        raise ValueError(f"one part of a DeepSpeed ZeRO optimizer state; {_MERGE_ZERO}")
    parts = value.get("mp_world_size", 1)
    if "ds_version" in value and isinstance(parts, int) and parts > 1:
        raise ValueError(
            f"one of {parts} parts of a model-parallel DeepSpeed checkpoint; merge them with the "
            "program that wrote them, and save the state_dict"
        )
    module = value.get("module")
    if "param_shapes" in value and isinstance(module, dict):
        tensors = [item for item in module.values() if isinstance(item, LazyTensor)]
        if not tensors or all(0 in item.shape for item in tensors):
            raise ValueError(
                "the weights of this DeepSpeed ZeRO-3 checkpoint are in the parts next to it "
                f"(zero_pp_rank_*), this file has only their shapes; {_MERGE_ZERO}"
            )


_STORED_FORMS = (
    (
        r".*\.?(lora_(A|B|down|up|embedding_[AB])|base_layer|lora_magnitude_vector|modules_to_save)"
        r"(\..*)?",
        "LoRA layers, which are added to a model",
        "merge them first (PEFT: model.merge_and_unload()) and save the result",
    ),
    (
        r".*\.(qweight|qzeros|g_idx)",
        "weights quantized by GPTQ or AWQ",
        "give the model they were made from, in float16 or float32",
    ),
    (
        r".*\.(SCB|weight_format|absmax|quant_map|quant_state\..*|nested_absmax)",
        "weights quantized by bitsandbytes",
        "give the model they were made from, in float16 or float32",
    ),
    (
        r".*\.(_packed_params|weight_scale|weight_zero_point|input_scale)(\..*)?",
        "quantized weights",
        "give the model they were made from, in float16 or float32",
    ),
)

# Programs whose files resemble CLIP's or CLIP4Clip's: (name, patterns of its own parameters, how
# many of the patterns must be there). Other rules score them, so dropping these parameters would
# make another model of them.
_RELATIVES = (
    (
        "X-CLIP",
        (r"local_mat_weight", r"word_logit_weight", r"(word|frame)_mat_weight2?"),
        2,
    ),
    ("X-Pool", (r"pool_frames\..*",), 1),
    ("HBI", (r"banzhaf(model|teacher)\d?\..*", r"[tv]_(ctm|block)\d\..*"), 1),
    ("TS2-Net", (r"visual_token_selector\..*",), 1),
    (
        "CLIP-ViP",
        (r"vision_model\.embeddings\.(added_cls|temporal_embedding)", r"visual\.added_cls"),
        1,
    ),
    (
        "LongCLIP",
        (r"positional_embedding_res", r"text_model\.embeddings\.position_embedding_res(\..*)?"),
        1,
    ),
    (
        "AlphaCLIP",
        (
            r"visual\.conv1_alpha\.weight",
            r"vision_model\.embeddings\.patch_embedding_alpha\.weight",
        ),
        1,
    ),
    ("CenterCLIP", (r".*\.(cluster_embed|cluster_frame_embed|cls_multiplier)", r".*\.spg"), 1),
    ("X-CLIP (Microsoft's, for recognition)", (r"prompts_generator\..*", r"mit\..*"), 2),
    ("a CLIP with learned prompts", (r"prompt_learner\..*", r".*\.(ctx|VPT\w*)"), 1),
    (
        "a CLIP with learned prompts",
        (r".*prompt_?(embed\w*|proj|dropout|norm)\b.*", r".*prompts?\b.*"),
        2,
    ),
    (
        "a model with prototypes (ProST or a relative)",
        (r"(word|phrase)_prototype_weight\..*", r"(frame|patch|object|event)_prototype_weight\..*"),
        2,
    ),
)


def refuse_stored_forms(tensors: Mapping[str, Any]) -> None:
    """Raise ValueError for LoRA layers and quantized weights, by their names."""
    for pattern, what, advice in _STORED_FORMS:
        name = next((name for name in tensors if re.fullmatch(pattern, name)), None)
        if name is not None:
            raise ValueError(f"{name[:150]} belongs to {what}; {advice}")


def refuse_relatives(tensors: Mapping[str, Any], what: str) -> None:
    """Raise ValueError for a program that is related to the supported ones, by its names."""
    for program, patterns, needed in _RELATIVES:
        found = [
            next((name for name in tensors if re.fullmatch(rf"(?:.*\.)?{pattern}", name)), None)
            for pattern in patterns
        ]
        marks = [name for name in found if name is not None]
        if len(marks) >= needed:
            raise ValueError(
                f"{what}: this is {program} ({', '.join(marks)}), which cannot be converted: it "
                "scores by these parameters, and without them it would be another model"
            )
