"""Every setting of a training run with its default; recipes in configs/ overlay it."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
from ml_collections import ConfigDict

from vtr_jax.data.augmentation import NO_AUGMENTATION, RandAugment
from vtr_jax.data.batch_plan import CAPTION_MODES
from vtr_jax.evaluation.evaluate import FRAME_CHOICES, FRAME_ORDERS
from vtr_jax.evaluation.metrics import RECALL_LEVELS
from vtr_jax.models.clip import CLIP_PRESETS, ClipConfig, clip_config
from vtr_jax.models.runtime import (
    ATTENTIONS,
    Runtime,
    check_attention_device,
    check_compute_device,
)
from vtr_jax.sharding import nearest_valid
from vtr_jax.training.run_data import SELECTION_OF_VALIDATION

# Lowest value of whole numbers, with the reason where it is no plain sense.
_LEAST = {
    "seed": 0,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "micro_batch_size": 0,
    "epochs": 1,
    "tile": 1,
    "cross_tile": 1,
    "optimizer.freeze_layer_num": -1,
    "data.max_words": 3,
    "data.max_frames": 1,
    "data.num_threads": 0,
    "data.holdout_clips": 1,
    "evaluation.batch_size": 1,
    "evaluation.tile": 1,
    "eval_every": 0,
    "checkpoint_every": 0,
    "keep_last": 1,
    "log_every": 1,
}
_WHY = {
    "batch_size": "; the contrastive loss of a single pair is always 0",
    "data.max_words": "; the start and the end of a caption are two of them",
}
# (lowest, highest, whether the highest itself is allowed) of real numbers; infinite: no bound.
_RANGES = {
    "ema_decay": (0.0, 1.0, False),
    "spike_factor": (0.0, math.inf, False),
    "optimizer.learning_rate": (0.0, math.inf, False),
    "optimizer.coef_lr": (0.0, math.inf, False),
    "optimizer.weight_decay": (0.0, math.inf, False),
    "optimizer.warmup_proportion": (0.0, 1.0, True),
    "optimizer.b1": (0.0, 1.0, False),
    "optimizer.b2": (0.0, 1.0, False),
    "optimizer.eps": (0.0, math.inf, False),
    "optimizer.max_grad_norm": (0.0, math.inf, False),
}
_NOT_ZERO = ("optimizer.learning_rate", "optimizer.eps", "optimizer.max_grad_norm")
_CHOICES = {
    "compute_dtype": ("auto", "float32", "bfloat16", "float16"),
    "attention": ATTENTIONS,
    "on_nonfinite": ("stop", "skip"),
    "optimizer.name": ("bert_adam", "adamw"),
    "data.caption_mode": CAPTION_MODES,
    "data.slice_framepos": tuple(FRAME_CHOICES),
    "data.train_frame_order": tuple(FRAME_ORDERS),
    "data.eval_frame_order": tuple(FRAME_ORDERS),
    "data.validation": tuple(SELECTION_OF_VALIDATION),
    # Where higher is better, so that the best checkpoint is the one with the most of it.
    "evaluation.metric": tuple(f"{way} R@{k}" for way in ("t2v", "v2t") for k in RECALL_LEVELS),
}

_SIZE_NAMES = (
    "embed_dim",
    "image_resolution",
    "patch_size",
    "vision_width",
    "vision_layers",
    "text_width",
    "text_layers",
    "context_length",
    "vocab_size",
    "activation",
)


def clip_sizes(preset: str) -> ConfigDict:
    """The sizes of a released CLIP, to be changed at will; ValueError for an unknown name."""
    if preset not in CLIP_PRESETS:
        raise ValueError(f"expected one of {', '.join(CLIP_PRESETS)}, got {preset!r}")
    clip = CLIP_PRESETS[preset]
    return ConfigDict(
        {
            "embed_dim": clip.embed_dim,
            "image_resolution": clip.vision.image_resolution,
            "patch_size": clip.vision.patch_size,
            "vision_width": clip.vision.width,
            "vision_layers": clip.vision.layers,
            "text_width": clip.text.width,
            "text_layers": clip.text.layers,
            "context_length": clip.text.context_length,
            "vocab_size": clip.text.vocab_size,
            "activation": clip.vision.activation,
        }
    )


def _optimizer_settings() -> ConfigDict:
    return ConfigDict(
        {
            "name": "bert_adam",  # or adamw
            "learning_rate": 1e-4,  # of what the recipe adds to CLIP
            "coef_lr": 1e-3,  # times this for CLIP itself
            "weight_decay": 0.2,
            "decay_norms": True,  # as the originals; False spares LayerNorm gains, logit_scale
            "warmup_proportion": 0.1,
            "b1": 0.9,
            "b2": 0.98,
            "eps": 1e-6,
            "max_grad_norm": 1.0,
            "freeze_layer_num": 0,  # -1 nothing, 0 embeddings and stems, n also the first n blocks
            "freeze_nothing_in_3d": False,  # True: the original's mistake with a 3d patch embedding
            "train_video_projection": False,  # True: internvideo's freeze spares it, as was meant
        }
    )


def _data_settings() -> ConfigDict:
    return ConfigDict(
        {
            "dataset": "table",
            "annotations": "",
            "store": "",
            "options": ConfigDict(),  # of the annotation reader
            "validation": "val",  # val, test (as the originals), holdout, or none
            "holdout_clips": 500,
            "max_words": 32,
            "max_frames": 12,
            "slice_framepos": 2,  # 0 head, 1 tail, 2 uniform
            "train_frame_order": 0,  # 0 normal, 1 reversed, 2 shuffled
            "eval_frame_order": 0,
            "caption_mode": "every_caption",  # or random_caption: each clip once an epoch
            "allow_repeated_clips": False,  # True: a clip may be its own negative, as originally
            "augmentation": NO_AUGMENTATION,  # or rand-m7-n4-mstd0.5-inc1, as EMCL, BackBone_tvr
            "skip_missing": False,  # True: train on the clips that the store has
            "num_threads": 0,  # 0: all cores
        }
    )


def default_config() -> ConfigDict:
    """All settings, with defaults where a default makes sense and "" where one must be given."""
    config = ConfigDict()
    config.recipe = "clip4clip"
    config.options = ConfigDict()  # the recipe's own, spelt as the original's flags
    config.sizes = ConfigDict()  # sizes of the recipe's own modules
    config.init = ""  # retriever directory to start from; "" draws everything from the seed
    config.clip = clip_sizes("ViT-B/32")  # the towers' sizes where init is ""

    config.seed = 42
    config.batch_size = 128  # clips a step, over all devices
    config.epochs = 5
    config.compute_dtype = "auto"  # float32 on CPU, bfloat16 on GPU and TPU
    config.attention = "xla"  # or cudnn: fused, on NVIDIA GPUs in bfloat16 or float16
    # Micro-batches a step, as in the originals: a caption then only meets the clips of its
    # micro-batch as negatives, batch_size / gradient_accumulation_steps of them.
    config.gradient_accumulation_steps = 1
    # Clips whose activations are in memory at once, 0 for the whole batch. Every pair of the batch
    # stays a negative, so the step is the same; the towers run forwards twice.
    config.micro_batch_size = 0
    config.ema_decay = 0.0  # of an average of the weights, e.g. 0.999; evaluated and kept as result
    # A step whose loss or gradients are not finite is never applied. stop: the run ends there.
    # skip: it is counted and goes on.
    config.on_nonfinite = "stop"
    # A gradient norm above this many times the running median is treated alike; 0: none is.
    config.spike_factor = 0.0
    config.tile = 64  # texts and videos compared at once by token-wise and gated heads: memory
    config.cross_tile = 16  # the same for cross-encoders
    config.remat = False  # recompute blocks in the backward pass: less memory, more time
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    config.optimizer = _optimizer_settings()
    config.data = _data_settings()
    config.evaluation = ConfigDict({"batch_size": 64, "tile": 256, "metric": "t2v R@1"})
    config.eval_every = 0  # steps; 0: after every epoch
    config.checkpoint_every = 0  # steps; 0: when evaluated
    config.keep_last = 2
    config.log_every = 10
    config.tensorboard = False
    return config


def check_config(config: ConfigDict) -> None:
    """Raise ValueError for the first setting that no run can have, with what is expected.

    So is a setting that needs other devices than those of this machine.
    """
    for name, least in _LEAST.items():
        if _setting(config, name) < least:
            raise ValueError(
                f"{name}: expected {least} or more, got {_setting(config, name)}"
                f"{_WHY.get(name, '')}"
            )
    for name, limits in _RANGES.items():
        _check_range(name, _setting(config, name), *limits)
    for name, choices in _CHOICES.items():
        if _setting(config, name) not in choices:
            known = ", ".join(map(str, choices))
            raise ValueError(f"{name}: expected one of {known}; got {_setting(config, name)!r}")
    _check_device(config)
    RandAugment.parse(config.data.augmentation)
    _check_micro_batches(config.batch_size, config.gradient_accumulation_steps)
    _check_micro_batch_size(config)
    if 0 < config.spike_factor <= 1:
        raise ValueError(
            f"spike_factor: expected 0 for no limit, or more than 1, got {config.spike_factor:g}; "
            "half of all gradient norms are above their median"
        )


def _check_range(name: str, value: float, lowest: float, highest: float, closed: bool) -> None:
    above = value > lowest or (value == lowest and name not in _NOT_ZERO)
    below = value < highest or (closed and value == highest)
    if above and below:
        return
    least = "more than" if name in _NOT_ZERO else "at least"
    most = "" if highest == math.inf else f" and {'at most' if closed else 'below'} {highest:g}"
    raise ValueError(f"{name}: expected {least} {lowest:g}{most}, got {value:g}")


def _check_device(config: ConfigDict) -> None:
    check_compute_device(config.compute_dtype, jax.devices()[0])
    if config.attention == "cudnn":
        check_attention_device(config.attention, jax.devices()[0])
        runtime_of(config)  # refuses float32, which "auto" may stand for


def _check_micro_batches(batch_size: int, micro_batches: int) -> None:
    valid = [count for count in _divisors(batch_size) if batch_size // count >= 2]
    if micro_batches not in valid:
        raise ValueError(
            f"gradient_accumulation_steps: expected a divisor of batch_size {batch_size} that "
            f"leaves 2 pairs or more a micro-batch, got {micro_batches}; "
            f"{nearest_valid('gradient_accumulation_steps', micro_batches, valid)}"
        )


def _check_micro_batch_size(config: ConfigDict) -> None:
    size = config.micro_batch_size
    if not size:
        return
    if config.gradient_accumulation_steps > 1:
        raise ValueError(
            "micro_batch_size and gradient_accumulation_steps exclude each other: the first keeps "
            "all negatives of the batch, the second those of a micro-batch"
        )
    valid = _divisors(config.batch_size)
    if size not in valid:
        raise ValueError(
            f"micro_batch_size: expected a divisor of batch_size {config.batch_size}, got {size}; "
            f"{nearest_valid('micro_batch_size', size, valid)}"
        )


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _setting(config: ConfigDict, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), config)


def clip_of(config: ConfigDict) -> ClipConfig:
    """The towers a config describes; ValueError for sizes that do not fit."""
    sizes = {name: config.clip[name] for name in _SIZE_NAMES}
    return clip_config(**sizes, linear_patch=config.options.get("linear_patch", "2d"))


def runtime_of(config: ConfigDict) -> Runtime:
    """How a config wants the model computed, "auto" resolved for this machine's devices."""
    dtype = config.compute_dtype
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return Runtime(dtype, config.remat, config.tile, config.cross_tile, config.attention)
