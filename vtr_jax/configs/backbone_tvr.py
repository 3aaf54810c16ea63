"""BackBone_tvr as published (shallowdream66/BackBone_tvr, README): DRL's wti with augmentation.

    vtr train --config=backbone_tvr:msrvtt --workdir=runs/backbone_tvr \\
        --config.init=clip-b32 --config.data.annotations=MSRVTT --config.data.store=msrvtt-store

The variant is DATASET, or DATASET-AGGREGATION: msrvtt (9k training clips), lsmdc, msvd, table
(one's own CSV or JSONL), smoke (seconds); seqTransf (default), seqLSTM or None. The original
samples frames with `vtr prepare --frame_rule=decord`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from vtr_jax.data.augmentation import RAND_AUGMENT
from vtr_jax.training.config import default_config
from vtr_jax.training.smoke import shrink

AGGREGATIONS = ("seqTransf", "seqLSTM", "None")
READER_OPTIONS = {
    "msrvtt": {"train_list": "9k", "test_list": "1k-A"},
    "lsmdc": {"system": "backbone_tvr"},
    "msvd": {},
    "table": {},
    "smoke": {},
}


def get_config(variant: str = "msrvtt") -> ConfigDict:
    """The settings of a variant; raises ValueError listing the known ones."""
    dataset, _, aggregation = variant.partition("-")
    aggregation = aggregation or "seqTransf"
    if dataset not in READER_OPTIONS or aggregation not in AGGREGATIONS:
        raise ValueError(
            f"variant {variant!r}: expected DATASET or DATASET-AGGREGATION with DATASET one of "
            f"{', '.join(READER_OPTIONS)} and AGGREGATION one of {', '.join(AGGREGATIONS)}"
        )
    config = default_config()
    config.recipe = "backbone_tvr"
    config.options = ConfigDict({"agg_module": aggregation})
    if aggregation == "seqTransf":
        config.sizes = ConfigDict({"temporal_layers": 4})  # --num_hidden_layers

    config.seed = 42
    config.batch_size = 64  # the program's own default is 24
    config.epochs = 5
    config.optimizer.learning_rate = 1e-4
    config.optimizer.coef_lr = 1e-3
    config.optimizer.weight_decay = 0.2
    config.optimizer.warmup_proportion = 0.1
    config.optimizer.freeze_layer_num = -1

    config.data.max_words = 32  # its launch.json has 24
    config.data.max_frames = 12
    config.data.slice_framepos = 2
    config.data.caption_mode = "every_caption"
    config.data.augmentation = RAND_AUGMENT
    config.data.options = ConfigDict(READER_OPTIONS[dataset])
    config.data.dataset = "table" if dataset == "smoke" else dataset
    # On MSR-VTT it selects its checkpoint on the test split: --config.data.validation=test.
    config.data.validation = "holdout" if dataset == "msrvtt" else "val"
    config.evaluation.batch_size = 16
    if dataset == "smoke":
        shrink(config)
    return config
