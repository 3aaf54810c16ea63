"""InternVideo's video-text retrieval as published: ViT-L/14, six data sets, CLIP at 1e-3 x coef_lr.

    vtr convert InternVideo-MM-L-14.ckpt iv-l14 --recipe=internvideo --ignore_unknown=True
    vtr train --config=internvideo:msrvtt --workdir=runs/internvideo \\
        --config.init=iv-l14 --config.data.annotations=MSRVTT --config.data.store=msrvtt-store
    vtr evaluate --config=internvideo:msrvtt-zeroshot --checkpoint=iv-l14-merged ...

The variant is DATASET, or DATASET-TABLE: msrvtt, msvd, lsmdc, activitynet, didemo, vatex, table
(one's own CSV or JSONL), smoke (seconds); TABLE is finetune (default), or zeroshot or evaluate for
`vtr evaluate --config`. Zero-shot scores are of a checkpoint merged with CLIP, all but didemo's:
`vtr convert ... --mergeclip=True --mergeweight=0.5 --pretrained_clip_name=ViT-L-14.pt`, msvd with
0.25. The original samples frames with `vtr prepare --frame_rule=decord`, msvd and activitynet with
the default rule.
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from vtr_jax.training.config import clip_sizes, default_config
from vtr_jax.training.smoke import shrink

TABLES = ("finetune", "zeroshot", "evaluate")


@dataclasses.dataclass(frozen=True)
class Published:
    """One data set's rows of the three tables: frames, batch sizes, merging with CLIP.

    zeroshot_merge, finetune_merge: CLIP's share, None for no merging. Evaluation of a fine-tuned
    checkpoint loads all of it, so that no merging changes what it gives.
    """

    zeroshot_frames: int
    zeroshot_batch: int
    zeroshot_merge: float | None
    frames: int
    batch: int
    coef_lr: float
    epochs: int
    evaluate_batch: int = 16
    finetune_merge: float | None = None


PUBLISHED = {
    "msrvtt": Published(8, 16, 0.5, 12, 128, 4e-3, 5),
    "msvd": Published(12, 32, 0.25, 8, 64, 2.5e-3, 5),
    "lsmdc": Published(6, 32, 0.5, 8, 64, 2e-3, 5, finetune_merge=0.5),
    "activitynet": Published(16, 8, 0.5, 64, 64, 2e-3, 30),
    "didemo": Published(32, 32, None, 32, 16, 2e-3, 5, evaluate_batch=8),
    "vatex": Published(8, 128, 0.5, 8, 128, 5e-3, 5),
}
READER_OPTIONS = {
    "msrvtt": {"train_list": "9k", "test_list": "1k-A"},
    "lsmdc": {"system": "internvideo"},
    "vatex": {"system": "internvideo"},
}
OWN_DATA = ("table", "smoke")


def get_config(variant: str = "msrvtt") -> ConfigDict:
    """The settings of a variant; raises ValueError listing the known ones."""
    dataset, _, table = variant.partition("-")
    table = table or "finetune"
    if dataset not in (*PUBLISHED, *OWN_DATA) or table not in TABLES:
        raise ValueError(
            f"variant {variant!r}: expected DATASET or DATASET-TABLE with DATASET one of "
            f"{', '.join((*PUBLISHED, *OWN_DATA))} and TABLE one of {', '.join(TABLES)}"
        )
    published = PUBLISHED.get(dataset, PUBLISHED["msrvtt"])
    config = default_config()
    config.recipe = "internvideo"
    config.options = ConfigDict({"sim_header": "meanP", "interaction": "no"})
    config.clip = clip_sizes("ViT-L/14")

    config.batch_size = published.batch
    config.epochs = published.epochs
    config.optimizer.learning_rate = 1e-3
    config.optimizer.coef_lr = published.coef_lr
    config.optimizer.weight_decay = 0.2
    config.optimizer.warmup_proportion = 0.1
    config.optimizer.freeze_layer_num = 0

    config.data.max_words = 77
    config.data.max_frames = published.frames
    config.data.slice_framepos = 2
    config.data.caption_mode = "every_caption"
    config.data.dataset = "table" if dataset in OWN_DATA else dataset
    config.data.options = ConfigDict(READER_OPTIONS.get(dataset, {}))
    # The original selects its checkpoint on the test split: --config.data.validation=test. Of
    # these, MSR-VTT's 9k list leaves no validation clips, and ActivityNet's are the test clips.
    config.data.validation = "holdout" if dataset in ("msrvtt", "activitynet") else "val"
    config.evaluation.batch_size = 16
    if table == "zeroshot":
        config.data.max_frames = published.zeroshot_frames
        config.evaluation.batch_size = published.zeroshot_batch
    if table == "evaluate":
        config.evaluation.batch_size = published.evaluate_batch
    if dataset == "smoke":
        shrink(config)
    return config
