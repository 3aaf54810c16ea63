"""A retriever's two towers as a Hugging Face folder that transformers' CLIPModel loads strictly.

write_huggingface("clip-b32", "clip-b32-hf")

In the program: `transformers.CLIPModel.from_pretrained("clip-b32-hf")`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from vtr_jax.checkpoint import check_new_directory, load_retriever
from vtr_jax.convert.huggingface_config import ACTIVATIONS
from vtr_jax.convert.huggingface_names import huggingface_names
from vtr_jax.convert.image_settings import huggingface_processor
from vtr_jax.convert.write_back import original_state_dict
from vtr_jax.convert.written_facts import facts_to_metadata
from vtr_jax.data.tokenizer_file import TokenizerFile
from vtr_jax.lock import LOCK_FILE, only_process
from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.retriever import Retriever

# transformers pools at the largest token id where config.json has this end-of-text id.
_LARGEST_ID_RULE = 2
_START_OF_TEXT = 49406
_README = """\
# CLIP written by vtr_jax

Load it with `transformers.CLIPModel.from_pretrained(FOLDER)`. `preprocessor_config.json` describes
the images. transformers rounds the offset of the center crop down, which can shift it by a pixel.

"""
_CLIP_TOKENIZER = """\
The tokenizer is CLIP's own, as in `openai/clip-vit-base-patch32`:
`transformers.CLIPTokenizer.from_pretrained("openai/clip-vit-base-patch32")`, texts padded to
{max_words} tokens.
"""
_OWN_TOKENIZER = "The tokenizer is `tokenizer.json`; texts are padded to {max_words} tokens.\n"


def write_huggingface(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    step: int | None = None,
) -> Mapping[str, tuple[int, ...]]:
    """Write a retriever's towers as a Hugging Face folder; return {name: shape}.

    The folder has config.json, model.safetensors, preprocessor_config.json and a README.md about
    the tokenizer. It appears complete or not at all.

    Args:
        directory: What convert or train wrote.
        output: A new folder.
        step: Which checkpoint of a training run, None for the best.

    Raises:
        FileExistsError: The folder has something in it.
        FileNotFoundError: There is no retriever.
        ValueError: The towers are more than CLIP's.
        BlockingIOError: Another process writes the same folder.
    """
    from safetensors.numpy import save_file

    target = check_new_directory(output)
    retriever = load_retriever(directory, step=step)
    try:
        tensors = huggingface_names(original_state_dict(retriever, "clip"))
        texts = _texts(retriever)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from error
    # safetensors writes the memory as it lies; ascontiguousarray would give scalars an axis.
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial"
    with only_process(partial, f"writing {target}"):
        try:
            metadata = facts_to_metadata(retriever.config, "clip")
            save_file(tensors, partial / "model.safetensors", metadata=metadata)
            retriever.preprocessing.write_tokenizer(partial)
            for name, text in texts.items():
                (partial / name).write_text(text, encoding="utf-8")
            (partial / LOCK_FILE).unlink()
            if target.exists():
                target.rmdir()
            partial.replace(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return {name: array.shape for name, array in tensors.items()}


def huggingface_config(clip: ClipConfig) -> dict[str, Any]:
    """Return the config.json of a CLIPModel with these towers."""
    vision, text = clip.vision, clip.text
    if text.end_of_text_id == _LARGEST_ID_RULE:
        raise ValueError(
            f"texts are pooled at token {_LARGEST_ID_RULE}, and transformers takes "
            f"eos_token_id={_LARGEST_ID_RULE} to mean the largest token id: CLIPModel would give "
            "other scores; use --to=clip"
        )
    end = _LARGEST_ID_RULE if text.end_of_text_id is None else text.end_of_text_id
    shared = {"projection_dim": clip.embed_dim, "attention_dropout": 0.0, "initializer_factor": 1.0}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": clip.embed_dim,
        "logit_scale_init_value": 2.6592,
        "dtype": "float32",
        "text_config": {
            "model_type": "clip_text_model",
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.context_length,
            "vocab_size": text.vocab_size,
            "hidden_act": _hidden_act(text.activation),
            "layer_norm_eps": text.layer_norm_eps,
            "bos_token_id": min(_START_OF_TEXT, text.vocab_size - 2),
            "eos_token_id": end,
            **shared,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": vision.width,
            "intermediate_size": 4 * vision.width,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "image_size": vision.image_resolution,
            "patch_size": vision.patch_size,
            "num_channels": 3,
            "hidden_act": _hidden_act(vision.activation),
            "layer_norm_eps": vision.layer_norm_eps,
            **shared,
        },
    }


def _hidden_act(activation: str) -> str:
    """What transformers calls an activation; the tanh approximation has several names there."""
    names = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    return activation if activation in ACTIVATIONS else names[activation]


def _texts(retriever: Retriever) -> dict[str, str]:
    clip = retriever.config.clip
    processor = huggingface_processor(retriever.preprocessing)
    tokenizer = retriever.preprocessing.tokenizer
    note, own = _CLIP_TOKENIZER, {}
    if isinstance(tokenizer, TokenizerFile):
        note = _OWN_TOKENIZER
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": tokenizer.pad_token}
        own = {"tokenizer_config.json": json.dumps(settings, indent=2) + "\n"}
    return {
        **own,
        "config.json": json.dumps(huggingface_config(clip), indent=2) + "\n",
        "preprocessor_config.json": json.dumps(processor, indent=2) + "\n",
        "README.md": _README + note.format(max_words=clip.text.context_length),
    }
