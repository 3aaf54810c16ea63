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
from vtr_jax.convert.huggingface_names import huggingface_names
from vtr_jax.convert.write_back import original_state_dict
from vtr_jax.convert.written_facts import facts_to_metadata
from vtr_jax.data.resize import INTERPOLATIONS
from vtr_jax.lock import LOCK_FILE, only_process
from vtr_jax.models.clip import ClipConfig
from vtr_jax.models.retriever import Retriever
from vtr_jax.preprocessing import Preprocessing

# transformers pools at the largest token id where config.json has this end-of-text id.
_LARGEST_ID_RULE = 2
_START_OF_TEXT = 49406
_README = """\
# CLIP written by vtr_jax

Load it with `transformers.CLIPModel.from_pretrained(FOLDER)`. `preprocessor_config.json` describes
the images; transformers rounds the offset of the center crop down, which can shift it by one pixel.
"""
_CLIP_TOKENIZER = """
The tokenizer is CLIP's own: `CLIPTokenizer.from_pretrained("openai/clip-vit-base-patch32")`, texts
padded to {max_words} tokens.
"""
_OTHER_TOKENIZER = """
The tokenizer is {name}, in `tokenizer.json`; texts are padded to {max_words} tokens.
"""


def write_huggingface(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    step: int | None = None,
) -> Mapping[str, tuple[int, ...]]:
    """Write a retriever's towers as a Hugging Face folder; return {name: shape}.

    The folder has config.json, model.safetensors, preprocessor_config.json, a README.md about the
    tokenizer, and tokenizer.json if it is not CLIP's own. It appears complete or not at all.

    Args:
        directory: What convert or train wrote.
        output: A new folder.
        step: Which checkpoint of a training run, None for the best.

    Raises:
        FileExistsError: The folder has something in it.
        FileNotFoundError: There is no retriever.
        ValueError: The towers are more than CLIP's, or pictures are padded.
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
            for name, text in texts.items():
                (partial / name).write_text(text, encoding="utf-8")
            retriever.preprocessing.write_tokenizer(partial)
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
            "hidden_act": text.activation,
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
            "hidden_act": vision.activation,
            "layer_norm_eps": vision.layer_norm_eps,
            **shared,
        },
    }


def preprocessor_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the preprocessor_config.json of CLIPImageProcessor for this preprocessing.

    Raises:
        ValueError: CLIPImageProcessor cannot pad pictures to squares.
    """
    if preprocessing.resize_mode == "longest":
        raise ValueError(
            "resize_mode: expected shortest or squash, found longest, which pads pictures to "
            "squares; transformers' CLIPImageProcessor cannot do that"
        )
    resolution = preprocessing.resolution
    side = preprocessing.resized_side or resolution
    shortest = preprocessing.resize_mode == "shortest"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side} if shortest else {"height": side, "width": side},
        "resample": INTERPOLATIONS.index(preprocessing.interpolation),
        "do_center_crop": shortest or side != resolution,
        "crop_size": {"height": resolution, "width": resolution},
        "do_rescale": True,
        "rescale_factor": preprocessing.rescale,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def _texts(retriever: Retriever) -> dict[str, str]:
    config, settings = retriever.config, retriever.preprocessing
    pictures = preprocessor_config(settings)
    own = isinstance(settings.tokenizer, str)
    note = _CLIP_TOKENIZER if own else _OTHER_TOKENIZER
    readme = _README + note.format(max_words=settings.max_words, name=settings.tokenizer)
    return {
        "config.json": json.dumps(huggingface_config(config.clip), indent=2) + "\n",
        "preprocessor_config.json": json.dumps(pictures, indent=2) + "\n",
        "README.md": readme,
    }
