"""The demo: a small CLIP4Clip trained from scratch on moving shapes, in minutes on two cores.

    bash scripts/demo.sh

The variant is the head, meanP or seqTransf; `-short` cuts the run to seconds.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from vtr_jax.training.config import default_config


def get_config(variant: str = "seqTransf") -> ConfigDict:
    """The settings of a head; raises ValueError for another one."""
    head, _, length = variant.partition("-")
    if head not in ("meanP", "seqTransf") or length not in ("", "short"):
        raise ValueError(f"variant {variant!r}: expected meanP or seqTransf, or one with -short")
    config = default_config()
    config.options = ConfigDict({"sim_header": head, "linear_patch": "2d"})
    config.sizes = ConfigDict({"temporal_layers": 2} if head == "seqTransf" else {})
    config.clip.update(
        embed_dim=64,
        image_resolution=64,
        patch_size=16,
        vision_width=64,
        vision_layers=2,
        text_width=64,
        text_layers=2,
        context_length=32,
        vocab_size=2048,
    )
    config.seed = 0
    config.batch_size = 125
    config.epochs = 62
    config.log_every = 25
    config.eval_every = 62

    # Nothing is pretrained: nothing is frozen, and the towers learn about as fast as the rest.
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 4e-3
    config.optimizer.coef_lr = 0.5
    config.optimizer.weight_decay = 0.05
    config.optimizer.freeze_layer_num = -1

    config.data.max_words = 24
    config.data.max_frames = 5
    config.data.caption_mode = "random_caption"
    config.evaluation.batch_size = 50
    if length == "short":
        config.batch_size = 30
        config.epochs = 2
        config.eval_every = 4
        config.log_every = 4
    return config
