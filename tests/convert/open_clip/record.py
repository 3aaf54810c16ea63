"""Records tiny open_clip models: names, shapes, a configuration and what they compute.

Run where PyTorch and open_clip_torch are installed: python record.py FOLDER. Weights and inputs
are functions of names, so that only outputs are kept. The tests need neither library.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np

VISION = {"image_size": 16, "patch_size": 8, "width": 48, "layers": 2, "head_width": 12}
TEXT = {"context_length": 12, "vocab_size": 64, "width": 40, "heads": 2, "layers": 3}
CASES = {
    "gelu": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT},
    "quick_gelu": {"embed_dim": 32, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "custom_text": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": {**VISION, "norm_kwargs": {"eps": 1e-3}},
        "text_cfg": {**TEXT, "norm_kwargs": {"eps": 1e-3}, "pool_type": "eos", "eos_id": 7},
    },
}
REFUSED = {
    "attentional pooler": {
        "embed_dim": 32,
        "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 4},
        "text_cfg": TEXT,
    },
    "layer scale": {
        "embed_dim": 32,
        "vision_cfg": {**VISION, "ls_init_value": 1e-4},
        "text_cfg": TEXT,
    },
    "no first norm": {
        "embed_dim": 32,
        "vision_cfg": {**VISION, "no_ln_pre": True, "pool_type": "avg"},
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last"},
    },
    "wide MLP": {
        "embed_dim": 32,
        "vision_cfg": {**VISION, "mlp_ratio": 4.5},
        "text_cfg": TEXT,
    },
    "text class token": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, "embed_cls": True},
    },
}


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights that depend on their name alone."""
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    x = rng.standard_normal(shape).astype(np.float32)
    if name == "logit_scale":
        return np.full(shape, 2.5, np.float32)
    if len(shape) <= 1:
        return 0.1 * x + name.endswith("weight")
    return (0.7 * x / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def inputs() -> dict[str, np.ndarray]:
    """Pictures [3,3,16,16], already normalised, and token ids [4,12]; 63 ends a text, or 7."""
    images = np.random.RandomState(1).standard_normal((3, 3, 16, 16)).astype(np.float32)
    ids = np.zeros((4, 12), np.int64)
    for row, length in enumerate((12, 7, 4, 9)):
        ids[row, :length] = np.random.RandomState(2 + row).randint(8, 62, length)
        ids[row, 0], ids[row, length - 1] = 62, 63
        ids[row, length // 2] = 7
    return {"images": images, "token_ids": ids}


def _built(config: dict):  # noqa: ANN202
    from open_clip import CLIP, CustomTextCLIP

    options = dict(config)
    kind = CustomTextCLIP if options.pop("custom_text", False) else CLIP
    return kind(**options).eval()


def _shapes(model) -> dict[str, list[int]]:  # noqa: ANN001
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def main(folder: Path) -> None:
    """Write cases.json and outputs.npz."""
    import open_clip
    import torch

    outputs, cases = {}, {}
    for name, config in CASES.items():
        model = _built(config)
        shapes = _shapes(model)
        model.load_state_dict({k: torch.tensor(fill(k, tuple(s))) for k, s in shapes.items()})
        with torch.no_grad():
            images, token_ids = map(torch.tensor, inputs().values())
            image, text = model.encode_image(images), model.encode_text(token_ids)
            scores = model.logit_scale.exp() * (
                torch.nn.functional.normalize(text) @ torch.nn.functional.normalize(image).T
            )
        for key, value in {"image": image, "text": text, "logits": scores}.items():
            outputs[f"{name}/{key}"] = value.numpy()
        cases[name] = {"model_cfg": config, "shapes": shapes}
    refused = {
        name: {"model_cfg": config, "shapes": _shapes(_built(config))}
        for name, config in REFUSED.items()
    }
    versions = {"open_clip_torch": open_clip.__version__, "torch": torch.__version__}
    text = json.dumps({"versions": versions, "cases": cases, "refused": refused}, indent=1)
    (folder / "cases.json").write_text(text + "\n")
    np.savez_compressed(folder / "outputs.npz", **outputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
