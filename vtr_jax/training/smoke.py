"""The variant `smoke` of every recipe file: the same run in seconds on a laptop."""

from __future__ import annotations

from ml_collections import ConfigDict


def shrink(config: ConfigDict) -> None:
    """Set tiny towers that are trained from scratch, on a few short clips for two epochs.

    Sizes of the recipe's own stacks (temporal_layers, cross_layers) become 1 where they are set.
    """
    config.clip.update(
        embed_dim=64,
        image_resolution=32,
        patch_size=16,
        vision_width=64,
        vision_layers=2,
        text_width=64,
        text_layers=2,
        vocab_size=2048,
    )
    for name in config.sizes:
        if name.endswith("_layers"):
            config.sizes[name] = 1
    # From scratch: nothing may be frozen, and the towers learn like the rest.
    config.optimizer.freeze_layer_num = -1
    config.optimizer.coef_lr = 1.0
    config.batch_size = 4
    config.epochs = 2
    config.log_every = 1
    config.data.max_words = 12
    config.data.max_frames = 4
