"""Every recipe file and variant builds what it names; the smallest ones train."""

from __future__ import annotations

import pytest

import vtr_jax.training.loop as loop
from vtr_jax.configs import internvideo
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.recipes.internvideo import listed_layers
from vtr_jax.models.retriever import abstract_retriever
from vtr_jax.training.command import find_recipe_file, installed_recipes, read_config
from vtr_jax.training.config import check_config, clip_of, runtime_of
from vtr_jax.training.parameter_groups import trainable_mask
from vtr_jax.training.run_log import read_log

PARAGRAPHS = ("activitynet", "didemo")
DATASETS = ("msrvtt", "msrvtt7k", "msrvttfull", "msvd", "lsmdc", *PARAGRAPHS, "table", "smoke")
HEADS = ("meanP", "seqLSTM", "seqTransf", "tightTransf")
CLIP4CLIP = [name for dataset in DATASETS for name in (dataset, *(f"{dataset}-{h}" for h in HEADS))]
DRL_HEADS = ("dp", "dp+cdcr", "dp_none", "ti", "ti+cdcr", "wti", "wti+cdcr", "xti", "xti_none")
DRL = [f"{dataset}-{head}" for dataset in ("msrvtt", "table", "smoke") for head in DRL_HEADS]
BACKBONE_TVR = [
    f"{dataset}-{aggregation}"
    for dataset in ("msrvtt", "lsmdc", "msvd", "table", "smoke")
    for aggregation in ("seqTransf", "seqLSTM", "None")
]
EMCL = [
    f"{dataset}-{aggregation}"
    for dataset in ("msrvtt", "msvd", "lsmdc", "activitynet", "didemo", "table", "smoke")
    for aggregation in ("seqTransf", "seqLSTM", "None")
]
EERCF = ["msrvtt", "msvd", "activitynet", "table", "smoke"]
INTERNVIDEO_DATASETS = ("msrvtt", "msvd", "lsmdc", "activitynet", "didemo", "vatex")
INTERNVIDEO = [
    f"{dataset}{table}"
    for dataset in (*INTERNVIDEO_DATASETS, "table", "smoke")
    for table in ("", "-finetune", "-zeroshot", "-evaluate")
]
VARIANTS = {
    "backbone_tvr": BACKBONE_TVR,
    "clip4clip": CLIP4CLIP,
    "drl": DRL,
    "eercf": EERCF,
    "emcl": EMCL,
    "internvideo": INTERNVIDEO,
    "demo": ["meanP", "seqTransf", "meanP-short", "seqTransf-short"],
}
ALL = [f"{file}:{variant}" for file, variants in VARIANTS.items() for variant in variants]


def config_of(name):
    return read_config(name)


def test_a_recipe_is_found_by_name_by_its_old_path_and_by_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    installed = installed_recipes()["drl"]
    assert find_recipe_file("drl") == find_recipe_file("configs/drl.py") == installed
    assert find_recipe_file(str(installed)) == installed
    mine = tmp_path / "configs" / "drl.py"
    mine.parent.mkdir()
    mine.write_text(installed.read_text())
    assert find_recipe_file("configs/drl.py").resolve() == mine  # a file that exists comes first
    assert find_recipe_file("drl") == installed
    assert config_of("configs/drl.py:msrvtt-ti").options == config_of("drl:msrvtt-ti").options


@pytest.mark.parametrize("name", ["drk", "drl.py", "configs/nothing.py", "elsewhere/drl.py", ""])
def test_an_unknown_recipe_names_the_installed_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"did you mean drl\?|installed: backbone_tvr, "):
        find_recipe_file(name)


def test_no_recipe_file_is_left_out():
    assert set(installed_recipes()) == set(VARIANTS)


@pytest.mark.parametrize("name", [*ALL, *VARIANTS])
def test_every_variant_describes_a_retriever(name):
    config = config_of(name)
    check_config(config)
    runtime = runtime_of(config)
    description = recipe_named(config.recipe).config(
        clip_of(config), config.options.to_dict(), config.sizes.to_dict()
    )
    params = abstract_retriever(description, runtime).params
    temporal = "temporal_layers" in config.sizes
    assert ("transformer" in params.get("aggregation", {})) == temporal
    if temporal:
        blocks = params["aggregation"]["transformer"]["blocks"]
        assert blocks["attn"]["qkv"]["kernel"].shape[0] == config.sizes.temporal_layers
        assert params["aggregation"]["position_embedding"].shape[0] >= config.data.max_frames
    assert config.data.max_words <= config.clip.context_length
    mask = trainable_mask(params, description, config.optimizer.freeze_layer_num)
    # InternVideo's freeze does not find its projection.
    spared = config.recipe != "internvideo" or config.optimizer.freeze_layer_num < 0
    assert mask["visual"]["projection"] is spared


@pytest.mark.parametrize("variant", [v for v in CLIP4CLIP if not v.startswith("smoke")])
def test_published_settings_of_clip4clip(variant):
    config = config_of(f"clip4clip:{variant}")
    assert (config.batch_size, config.epochs) == (128, 5)
    limits = (64, 64) if variant.startswith(PARAGRAPHS) else (32, 12)
    assert (config.data.max_words, config.data.max_frames) == limits
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.coef_lr) == ("bert_adam", 1e-4, 1e-3)
    assert (optimizer.weight_decay, optimizer.warmup_proportion) == (0.2, 0.1)
    assert (optimizer.freeze_layer_num, optimizer.max_grad_norm) == (0, 1.0)
    assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.98, 1e-6)
    assert clip_of(config).vision.patch_size == 32 and clip_of(config).vision.layers == 12


@pytest.mark.parametrize(
    ("name", "batch_size", "validation"),
    [
        *((f"drl:msrvtt-{head}", 128, "holdout") for head in DRL_HEADS),
        ("backbone_tvr:msrvtt", 64, "holdout"),
        ("backbone_tvr:lsmdc", 64, "val"),
        ("backbone_tvr:msvd", 64, "val"),
    ],
)
def test_published_settings_of_drl_and_backbone_tvr(name, batch_size, validation):
    config = config_of(name)
    assert (config.batch_size, config.epochs) == (batch_size, 5)
    assert (config.data.max_words, config.data.max_frames) == (32, 12)
    assert config.data.validation == validation
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.coef_lr) == ("bert_adam", 1e-4, 1e-3)
    assert (optimizer.weight_decay, optimizer.warmup_proportion) == (0.2, 0.1)
    assert (optimizer.freeze_layer_num, optimizer.max_grad_norm) == (-1, 1.0)
    augmented = config.data.augmentation == "rand-m7-n4-mstd0.5-inc1"
    assert augmented == name.startswith("backbone_tvr")


def test_published_decorrelation_of_drl():
    options = {head: config_of(f"drl:msrvtt-{head}").options for head in DRL_HEADS}
    assert {head: o.cdcr for head, o in options.items() if o.cdcr} == {
        "dp+cdcr": 1,
        "ti+cdcr": 2,
        "wti+cdcr": 3,
    }
    for head, alpha1 in {"dp+cdcr": 0.14, "ti+cdcr": 0.16, "wti+cdcr": 0.11}.items():
        o = options[head]
        assert (o.cdcr_alpha1, o.cdcr_alpha2, o.cdcr_lambda) == (alpha1, 0.0, 0.001)
    assert config_of("drl:msrvtt").options == options["wti+cdcr"]


@pytest.mark.parametrize("variant", [v for v in EERCF if v != "smoke"])
def test_published_settings_of_eercf(variant):
    config = config_of(f"eercf:{variant}")
    assert (config.seed, config.batch_size, config.epochs) == (42, 240, 5)
    limits = (64, 64) if variant == "activitynet" else (32, 12)
    assert (config.data.max_words, config.data.max_frames) == limits
    assert config.data.slice_framepos == 2
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.coef_lr) == ("bert_adam", 1e-4, 1e-3)
    assert (optimizer.weight_decay, optimizer.warmup_proportion) == (0.2, 0.1)
    assert (optimizer.freeze_layer_num, optimizer.max_grad_norm) == (0, 1.0)
    defaults = recipe_named("eercf").options
    assert config.options.to_dict().items() <= defaults.items()


def test_the_matrix_of_eercf_follows_the_number_of_frames():
    config = config_of("eercf:msrvtt")
    config.data.max_frames = 20
    sizes = config.sizes.to_dict()
    description = recipe_named("eercf").config(clip_of(config), sizes=sizes)
    assert abstract_retriever(description).params["gating"]["frame_matrix"].shape == (20, 20)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("clip4clip:mvsd", "DATASET one of msrvtt, .* HEAD one of meanP, seqLSTM, seqTransf"),
        ("clip4clip:msrvtt-tight", "variant 'msrvtt-tight': expected DATASET or DATASET-HEAD"),
        ("clip4clip:", "variant ''"),
        ("drl:msvd", "DATASET one of msrvtt, table, smoke and HEAD one of dp, "),
        ("drl:msrvtt-dp-cdcr", "variant 'msrvtt-dp-cdcr': expected DATASET or DATASET-HEAD"),
        ("backbone_tvr:didemo", "DATASET one of msrvtt, lsmdc, .* one of seqTransf, seqLSTM"),
        ("backbone_tvr:msrvtt-xti", "variant 'msrvtt-xti': expected DATASET or DATASET-AGG"),
        ("eercf:msrvtt-dp", "variant 'msrvtt-dp': expected DATASET, one of msrvtt, msvd"),
        ("internvideo:msr", "DATASET one of msrvtt, msvd, .* TABLE one of finetune, zeroshot"),
        ("demo:meanP-long", "variant 'meanP-long': expected meanP or seqTransf"),
    ],
)
def test_unknown_variants_are_refused_with_the_known_ones(name, known):
    with pytest.raises(ValueError, match=known):
        config_of(name)


# Frames, evaluation batch and CLIP's share zero-shot; frames, batch, coef_lr, epochs and CLIP's
# share fine-tuned; evaluation batch.
PUBLISHED_INTERNVIDEO = {
    "msrvtt": ((8, 16, 0.5), (12, 128, 4e-3, 5, None), 16),
    "msvd": ((12, 32, 0.25), (8, 64, 2.5e-3, 5, None), 16),
    "lsmdc": ((6, 32, 0.5), (8, 64, 2e-3, 5, 0.5), 16),
    "activitynet": ((16, 8, 0.5), (64, 64, 2e-3, 30, None), 16),
    "didemo": ((32, 32, None), (32, 16, 2e-3, 5, None), 8),
    "vatex": ((8, 128, 0.5), (8, 128, 5e-3, 5, None), 16),
}


@pytest.mark.parametrize("dataset", INTERNVIDEO_DATASETS)
def test_published_settings_of_internvideo(dataset):
    zeroshot, finetune, evaluate_batch = PUBLISHED_INTERNVIDEO[dataset]
    tables = {
        name: config_of(f"internvideo:{dataset}-{name}")
        for name in ("zeroshot", "finetune", "evaluate")
    }
    published = internvideo.PUBLISHED[dataset]
    config = tables["zeroshot"]
    merge = published.zeroshot_merge
    assert (config.data.max_frames, config.evaluation.batch_size, merge) == zeroshot
    config = tables["finetune"]
    sizes = (config.data.max_frames, config.batch_size, config.optimizer.coef_lr, config.epochs)
    assert (*sizes, published.finetune_merge) == finetune
    assert config.evaluation.batch_size == 16
    assert tables["evaluate"].evaluation.batch_size == evaluate_batch
    assert tables["evaluate"].data.max_frames == finetune[0]
    for config in tables.values():
        assert config.data.dataset == dataset
        assert (config.data.max_words, config.data.slice_framepos) == (77, 2)
        assert (config.optimizer.learning_rate, config.optimizer.freeze_layer_num) == (1e-3, 0)
        assert config.optimizer.train_video_projection is False
        clip = clip_of(config)
        assert (clip.vision.width, clip.vision.patch_size, clip.vision.layers) == (1024, 14, 24)
        description = recipe_named("internvideo").config(clip, config.options.to_dict())
        assert listed_layers(description) == (20, 21, 22, 23)


class Enough(Exception):
    """Two steps are enough."""


SMOKE = [
    "internvideo:smoke",
    "clip4clip:smoke",
    "clip4clip:smoke-seqTransf",
    "drl:smoke",
    "drl:smoke-xti",
    "backbone_tvr:smoke",
    "eercf:smoke",
    "emcl:smoke",
]


@pytest.mark.parametrize("name", SMOKE)
def test_the_smoke_variants_train(
    name, tiny_dataset, tiny_store, tmp_path, monkeypatch, quickly_compiled
):
    """As they are: from scratch, with BertAdam, in which the first step has rate 0."""
    config = config_of(name)
    config.data.annotations = str(tiny_dataset.captions_file)
    config.data.store = str(tiny_store)
    put_batch, steps = loop.put_batch, iter(range(1, 9))

    def stop_at_the_third(batch, mesh):
        if next(steps) == 3:
            raise Enough
        return put_batch(batch, mesh)

    compile_train_step = loop.compile_train_step
    monkeypatch.setattr(loop, "put_batch", stop_at_the_third)
    monkeypatch.setattr(
        loop, "compile_train_step", lambda *args: quickly_compiled(compile_train_step(*args))
    )
    with pytest.raises(Enough):
        loop.train(config, tmp_path / "run")
    records = [record for record in read_log(tmp_path / "run") if record["kind"] == "train"]
    assert [record["step"] for record in records] == [1, 2]
    first, second = records
    norms = [name for name in first if name.startswith("parameter_norm/")]
    assert any(first[name] != second[name] for name in norms)
    assert records[1]["learning_rate"] == records[1]["clip_learning_rate"] > 0
