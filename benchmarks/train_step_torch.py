"""PyTorch's side of benchmarks/train_step.py: transformers' CLIP, mean pooling, AdamW.

It gets what helps it: pixels already normalised and on the device, scaled_dot_product_attention,
the fused AdamW; in bfloat16 autocast; with --torch_compile its compiler.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from interleaved import bind_to_cores, serve
from torch.nn import functional
from train_step_settings import (
    END_OF_TEXT,
    START_OF_TEXT,
    add_arguments,
    make_batch,
    repeated,
    timed,
)
from transformers import CLIPConfig, CLIPModel

# width, layers, heads of the vision tower; patch; joint width, which is also the text's
SIZES = {
    "ViT-B/32": (768, 12, 12, 32, 512),
    "ViT-B/16": (768, 12, 12, 16, 512),
    "ViT-L/14": (1024, 24, 16, 14, 768),
}
RESOLUTION = 224
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_model(name: str) -> Any:
    """A CLIP of a released one's sizes with random weights."""
    width, layers, heads, patch, joint = SIZES[name]
    text = {
        "hidden_size": joint,
        "intermediate_size": 4 * joint,
        "num_attention_heads": joint // 64,
        "projection_dim": joint,
        "bos_token_id": START_OF_TEXT,
        "eos_token_id": END_OF_TEXT,
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "patch_size": patch,
        "projection_dim": joint,
    }
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=joint)
    return CLIPModel._from_config(config, attn_implementation="sdpa")


def features(model: CLIPModel, batch: dict[str, torch.Tensor]) -> tuple[Any, Any]:
    """Sentences [B,D] and frames [B,F,D]."""
    clips, frames = batch["frame_mask"].shape
    vision = model.vision_model(batch["pixels"]).pooler_output
    # Under the causal mask padding changes nothing before the end of text; without a mask of its
    # own attention is quicker.
    text = model.text_model(batch["token_ids"]).pooler_output
    frames_bfd = model.visual_projection(vision).reshape(clips, frames, -1)
    return model.text_projection(text), frames_bfd


def loss_of(model: CLIPModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Symmetric cross-entropy of captions and mean-pooled clips."""
    sentence_bd, frames_bfd = features(model, batch)
    mask = batch["frame_mask"].float()[..., None]
    frames_bfd = functional.normalize(frames_bfd.float(), dim=-1) * mask
    video_bd = functional.normalize(frames_bfd.sum(1) / mask.sum(1), dim=-1)
    sentence_bd = functional.normalize(sentence_bd.float(), dim=-1)
    logits = model.logit_scale.exp() * sentence_bd @ video_bd.T
    target = torch.arange(len(logits), device=logits.device)
    return (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2


def peak_measurement(device: str, dtype: torch.dtype) -> Callable[[], dict[str, Any]]:
    """FLOP/s of a large matrix product."""
    size = 8192 if device == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)

    def peak() -> dict[str, Any]:
        synchronise(device)
        start = time.perf_counter()
        repeated(lambda: a @ a, 10)
        synchronise(device)
        seconds = (time.perf_counter() - start) / 10
        return {"seconds": seconds, "flops": 2 * size**3 / seconds}

    return peak


def synchronise(device: str) -> None:
    """Wait until the device has done all that it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Build the model, keep its weights for the other side, then measure when told."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--weights", required=True, help="folder to save the model in")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bind_to_cores(arguments.threads)
    torch.set_num_threads(arguments.threads)
    model = clip_model(arguments.model)
    model.save_pretrained(arguments.weights)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-7, weight_decay=0.2, fused=True)
    batch = {
        name: torch.as_tensor(value).to(device)
        for name, value in make_batch(arguments, RESOLUTION).items()
    }
    pixels = (
        batch.pop("frames").flatten(0, 1).float() / 255 - torch.tensor(PIXEL_MEAN, device=device)
    ) / torch.tensor(PIXEL_STD, device=device)
    batch["pixels"] = pixels.permute(0, 3, 1, 2).contiguous()
    half = torch.bfloat16 if arguments.dtype == "bfloat16" else torch.float32
    loss_function = torch.compile(loss_of) if arguments.torch_compile else loss_of
    encode = torch.compile(features) if arguments.torch_compile else features
    cast = torch.autocast(device, dtype=half, enabled=half is torch.bfloat16)

    def one_step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with cast:
            loss = loss_function(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6052)
        return loss.detach()

    def one_encode() -> torch.Tensor:
        with torch.no_grad(), cast:
            return encode(model, batch)[1].float().sum()

    serve(
        {
            "encode": timed(one_encode, arguments.steps),
            "loss": lambda: {"seconds": 0.0, "value": float(one_step())},
            "step": timed(one_step, arguments.steps),
            "peak": peak_measurement(device, half),
        }
    )


if __name__ == "__main__":
    main()
