"""CLIP4Clip as published (ArrowLuo/CLIP4Clip, README): CLIP at lr 1e-7, what is new at 1e-4.

    vtr train --config=clip4clip:msrvtt --workdir=runs/msrvtt \\
        --config.init=clip-b32 --config.data.annotations=MSRVTT --config.data.store=msrvtt-store

The variant is DATASET, or DATASET-HEAD: msrvtt (9k training clips), msrvtt7k, msrvttfull, msvd,
lsmdc, activitynet, didemo, vatex, table (one's own CSV or JSONL), smoke (seconds); meanP
(default), seqLSTM, seqTransf or tightTransf. VATEX is not in the original: its settings are those
of the other sets of single sentences.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from vtr_jax.data.annotations.choices import nearest
from vtr_jax.training.config import default_config
from vtr_jax.training.smoke import shrink

# Sizes of what each head adds: --cross_num_hidden_layers.
HEADS = {
    "meanP": {},
    "seqLSTM": {},
    "seqTransf": {"temporal_layers": 4},
    "tightTransf": {"cross_layers": 4},
}
READER_OPTIONS = {
    "msrvtt": {"train_list": "9k", "test_list": "1k-A"},
    "msrvtt7k": {"train_list": "7k", "test_list": "1k-A"},
    "msrvttfull": {"train_list": "full", "test_list": "full"},
    "msvd": {},
    "lsmdc": {},
    "activitynet": {},
    "didemo": {},
    "vatex": {},
    "table": {},
    "smoke": {},
}
PARAGRAPHS = ("activitynet", "didemo")
# Splits that are neither trained nor tested on; elsewhere training clips are held out.
VALIDATED = ("msrvttfull", "msvd", "lsmdc", "didemo", "vatex", "table", "smoke")


def get_config(variant: str = "msrvtt") -> ConfigDict:
    """The settings of a variant; raises ValueError listing the known ones."""
    dataset, _, head = variant.partition("-")
    head = head or "meanP"
    if dataset not in READER_OPTIONS or head not in HEADS:
        meant = nearest(dataset, READER_OPTIONS) if dataset not in READER_OPTIONS else ""
        raise ValueError(
            f"variant {variant!r}: expected DATASET or DATASET-HEAD with DATASET one of "
            f"{', '.join(READER_OPTIONS)} and HEAD one of {', '.join(HEADS)}"
            f"{meant or nearest(head, HEADS)}"
        )
    config = default_config()
    config.recipe = "clip4clip"
    config.options = ConfigDict({"sim_header": head, "linear_patch": "2d"})
    config.sizes = ConfigDict(HEADS[head])

    config.batch_size = 128
    config.epochs = 5
    config.optimizer.learning_rate = 1e-4
    config.optimizer.coef_lr = 1e-3
    config.optimizer.weight_decay = 0.2
    config.optimizer.warmup_proportion = 0.1
    config.optimizer.freeze_layer_num = 0

    config.data.max_words = 64 if dataset in PARAGRAPHS else 32
    config.data.max_frames = 64 if dataset in PARAGRAPHS else 12
    config.data.slice_framepos = 2
    config.data.caption_mode = "every_caption"
    config.data.options = ConfigDict(READER_OPTIONS[dataset])
    config.data.dataset = {"msrvtt7k": "msrvtt", "msrvttfull": "msrvtt", "smoke": "table"}.get(
        dataset, dataset
    )
    # The original selects its checkpoint on the test split: --config.data.validation=test.
    config.data.validation = "val" if dataset in VALIDATED else "holdout"
    config.evaluation.batch_size = 16
    if dataset == "smoke":
        shrink(config)
    return config
