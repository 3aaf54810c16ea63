"""Every recipe file and variant builds what it names; the smallest ones train."""

from __future__ import annotations

from pathlib import Path

import pytest

import vtr_jax.training.loop as loop
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import abstract_retriever
from vtr_jax.training.command import read_config
from vtr_jax.training.config import check_config, clip_of, runtime_of
from vtr_jax.training.parameter_groups import trainable_mask
from vtr_jax.training.run_log import read_log

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DATASETS = ("msrvtt", "msrvtt7k", "msrvttfull", "table", "smoke")
HEADS = ("meanP", "seqTransf")
CLIP4CLIP = [name for dataset in DATASETS for name in (dataset, *(f"{dataset}-{h}" for h in HEADS))]
VARIANTS = {
    "clip4clip.py": CLIP4CLIP,
    "demo.py": [*HEADS, *(f"{head}-short" for head in HEADS)],
}
ALL = [f"{file}:{variant}" for file, variants in VARIANTS.items() for variant in variants]


def config_of(name):
    return read_config(str(CONFIGS / name))


def test_no_recipe_file_is_left_out():
    assert {path.name for path in CONFIGS.glob("*.py")} == set(VARIANTS)


@pytest.mark.parametrize("name", [*ALL, *VARIANTS])
def test_every_variant_describes_a_retriever(name):
    config = config_of(name)
    check_config(config)
    runtime = runtime_of(config)
    description = recipe_named(config.recipe).config(
        clip_of(config), config.options.to_dict(), config.sizes.to_dict()
    )
    params = abstract_retriever(description, runtime).params
    temporal = config.options.sim_header == "seqTransf"
    assert ("aggregation" in params) == temporal
    if temporal:
        blocks = params["aggregation"]["transformer"]["blocks"]
        assert blocks["attn"]["qkv"]["kernel"].shape[0] == config.sizes.temporal_layers
        assert params["aggregation"]["position_embedding"].shape[0] >= config.data.max_frames
    assert config.data.max_words <= config.clip.context_length
    mask = trainable_mask(params, description, config.optimizer.freeze_layer_num)
    assert mask["visual"]["projection"] is True


@pytest.mark.parametrize("variant", [v for v in CLIP4CLIP if not v.startswith("smoke")])
def test_published_settings_of_clip4clip(variant):
    config = config_of(f"clip4clip.py:{variant}")
    assert (config.batch_size, config.epochs) == (128, 5)
    assert (config.data.max_words, config.data.max_frames) == (32, 12)
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.coef_lr) == ("bert_adam", 1e-4, 1e-3)
    assert (optimizer.weight_decay, optimizer.warmup_proportion) == (0.2, 0.1)
    assert (optimizer.freeze_layer_num, optimizer.max_grad_norm) == (0, 1.0)
    assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.98, 1e-6)
    assert clip_of(config).vision.patch_size == 32 and clip_of(config).vision.layers == 12


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("clip4clip.py:msvd", "DATASET one of msrvtt, .* HEAD one of meanP, seqTransf"),
        ("clip4clip.py:msrvtt-tight", "variant 'msrvtt-tight': expected DATASET or DATASET-HEAD"),
        ("clip4clip.py:", "variant ''"),
        ("demo.py:meanP-long", "variant 'meanP-long': expected meanP or seqTransf"),
    ],
)
def test_unknown_variants_are_refused_with_the_known_ones(name, known):
    with pytest.raises(ValueError, match=known):
        config_of(name)


class Enough(Exception):
    """Two steps are enough."""


@pytest.mark.parametrize("variant", ["smoke", "smoke-seqTransf"])
def test_the_smoke_variants_train(
    variant, tiny_dataset, tiny_store, tmp_path, monkeypatch, quickly_compiled
):
    """As they are: from scratch, with BertAdam, in which the first step has rate 0."""
    config = config_of(f"clip4clip.py:{variant}")
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
    assert records[0]["update_norm"] == 0.0 < records[1]["update_norm"]
    assert records[1]["learning_rate"] == records[1]["clip_learning_rate"] > 0
