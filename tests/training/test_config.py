"""Settings: read from a recipe file and the command line, checked before anything starts."""

from __future__ import annotations

import types

import jax
import pytest

from vtr_jax.models.clip import CLIP_PRESETS
from vtr_jax.training.command import read_config
from vtr_jax.training.config import (
    check_config,
    clip_of,
    clip_sizes,
    default_config,
    runtime_of,
)

RECIPE = """
from vtr_jax.training.config import default_config

def get_config(variant="small"):
    if variant not in ("small", "large"):
        raise ValueError(f"variant {variant!r}: expected small or large")
    config = default_config()
    config.batch_size = {"small": 4, "large": 400}[variant]
    return config
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    return str(path)


def test_settings_are_laid_over_the_recipe(recipe):
    assert read_config(recipe).batch_size == 4
    config = read_config(
        f"{recipe}:large",
        [
            "--config.optimizer.learning_rate=1e-3",
            "--config.data.skip_missing=true",
            "--config.init=clip=b32",
            "--config.epochs=7",
            "--config.epochs=9",
        ],
    )
    assert (config.batch_size, config.epochs, config.init) == (400, 9, "clip=b32")
    assert config.optimizer.learning_rate == 1e-3 and config.data.skip_missing is True
    assert config.data.max_frames == default_config().data.max_frames
    with pytest.raises(AttributeError, match="momentum"):
        config.optimizer.momentum = 0.9


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("batchsize=3", r"--config\.batchsize: no such setting; did you mean --config\.batch_size"),
        ("optimizer.lerning_rate=1", r"did you mean --config\.optimizer\.learning_rate\?"),
        ("learning_rate=1", r"did you mean --config\.optimizer\.learning_rate\?"),
        ("data.optimizer.b1=1", r"did you mean --config\.optimizer\.b1\?"),
        ("optimizer=adamw", r"a group of settings: .*optimizer\.name"),
        ("zzz=1", "no such setting; known: attention, batch_size, "),
        ("batch_size=many", "batch_size: expected a whole number, found 'many'"),
        ("seed=1.5", "seed: expected a whole number, found '1.5'"),
        ("remat=perhaps", "remat: expected True or False, found 'perhaps'"),
        ("batch_size", r"argument '--config\.batch_size': expected --config\.name=value"),
    ],
)
def test_what_cannot_be_set_is_named(recipe, argument, message):
    with pytest.raises(ValueError, match=message):
        read_config(recipe, [f"--config.{argument}"])


@pytest.mark.parametrize("argument", ["extra", "--batch_size=3", "-config.seed=1"])
def test_other_arguments_are_refused(recipe, argument):
    with pytest.raises(ValueError, match=f"argument '{argument}': expected --config.name=value"):
        read_config(recipe, [argument])


def test_recipes_that_are_none(recipe, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.py: no such recipe or file"):
        read_config(str(tmp_path / "missing.py:smoke"))
    with pytest.raises(ValueError, match="variant 'huge': expected small or large"):
        read_config(f"{recipe}:huge")
    plain = tmp_path / "plain.py"
    plain.write_text("x = 1\n")
    with pytest.raises(ValueError, match="plain.py: expected .* a function get_config"):
        read_config(str(plain))
    plain.write_text("def get_config():\n    return None\n")
    with pytest.raises(ValueError, match="plain.py: this recipe has no variants, got 'big'"):
        read_config(f"{plain}:big")
    with pytest.raises(ValueError, match="plain.py: get_config gave None, expected a ConfigDict"):
        read_config(str(plain))


def test_the_defaults_can_run():
    check_config(default_config())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", 1, "batch_size: expected 2 or more, got 1; the contrastive loss of a"),
        (
            "gradient_accumulation_steps",
            3,
            "expected a divisor of batch_size 128 .*, got 3; nearest valid: "
            "--config.gradient_accumulation_steps=2 or --config.gradient_accumulation_steps=4$",
        ),
        (
            "gradient_accumulation_steps",
            128,
            "leaves 2 pairs or more a micro-batch, got 128; nearest valid: "
            "--config.gradient_accumulation_steps=64$",
        ),
        (
            "micro_batch_size",
            48,
            "micro_batch_size: expected a divisor of batch_size 128, got 48; nearest valid: "
            "--config.micro_batch_size=32 or --config.micro_batch_size=64$",
        ),
        ("micro_batch_size", 256, "batch_size 128, got 256; .*: --config.micro_batch_size=128$"),
        ("micro_batch_size", -1, "micro_batch_size: expected 0 or more"),
        ("ema_decay", 1.0, "ema_decay: expected at least 0 and below 1, got 1"),
        ("spike_factor", 0.5, "spike_factor: expected 0 for no limit, or more than 1, got 0.5"),
        ("on_nonfinite", "go", "on_nonfinite: expected one of stop, skip; got 'go'"),
        ("compute_dtype", "int8", "compute_dtype: expected one of auto, float32, bfloat16"),
        ("attention", "flash", "attention: expected one of xla, cudnn; got 'flash'"),
        ("data.max_words", 2, "data.max_words: expected 3 or more, got 2; the start and the end"),
        ("data.caption_mode", "all", "expected one of random_caption, every_caption; got 'all'"),
        ("optimizer.name", "sgd", "optimizer.name: expected one of bert_adam, adamw; got 'sgd'"),
        ("optimizer.learning_rate", 0.0, "learning_rate: expected more than 0, got 0"),
        ("optimizer.learning_rate", float("nan"), "learning_rate: expected more than 0, got nan"),
        ("optimizer.warmup_proportion", 1.5, "expected at least 0 and at most 1, got 1.5"),
        ("optimizer.b2", 1.0, "optimizer.b2: expected at least 0 and below 1, got 1"),
        ("optimizer.max_grad_norm", -1.0, "max_grad_norm: expected more than 0, got -1"),
        ("epochs", 0, "epochs: expected 1 or more"),
        ("log_every", 0, "log_every: expected 1 or more"),
        ("keep_last", 0, "keep_last: expected 1 or more"),
        ("eval_every", -1, "eval_every: expected 0 or more"),
        ("seed", -1, "seed: expected 0 or more"),
        ("data.max_frames", 0, "data.max_frames: expected 1 or more"),
        ("evaluation.tile", 0, "evaluation.tile: expected 1 or more"),
        ("optimizer.freeze_layer_num", -2, "freeze_layer_num: expected -1 or more"),
        ("data.slice_framepos", 3, "data.slice_framepos: expected one of 0, 1, 2; got 3"),
        ("data.train_frame_order", -1, "data.train_frame_order: expected one of 0, 1, 2"),
        ("data.validation", "dev", "expected one of val, holdout, test, none; got 'dev'"),
        ("evaluation.metric", "t2v R1", "evaluation.metric: expected one of t2v R@1, .*'t2v R1'"),
        # The lower the better: the "best" checkpoint would be the worst.
        ("evaluation.metric", "t2v MdR", "evaluation.metric: expected one of t2v R@1"),
    ],
)
def test_settings_that_no_run_can_have(name, value, message):
    config = default_config()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(ValueError, match=message):
        check_config(config)


@pytest.mark.parametrize("preset", sorted(CLIP_PRESETS))
def test_presets_keep_their_sizes(preset):
    config = default_config()
    config.clip = clip_sizes(preset)
    assert clip_of(config) == CLIP_PRESETS[preset]


def test_unknown_presets_and_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="expected one of ViT-B/32, .*, got 'ViT-B'"):
        clip_sizes("ViT-B")
    config = default_config()
    config.clip.patch_size = 33
    with pytest.raises(ValueError, match="image resolution 224 is not a multiple .* 33"):
        clip_of(config)


def test_the_patch_embedding_is_an_option_of_the_recipe():
    config = default_config()
    config.options.linear_patch = "3d"
    assert clip_of(config).vision.linear_patch == "3d"


@pytest.mark.parametrize(("backend", "dtype"), [("cpu", "float32"), ("tpu", "bfloat16")])
def test_auto_compute_dtype_follows_the_device(monkeypatch, backend, dtype):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = default_config()
    assert runtime_of(config).compute_dtype == dtype
    config.compute_dtype = "float32"
    assert runtime_of(config).compute_dtype == "float32"
    config.compute_dtype = "float8"
    with pytest.raises(ValueError, match="compute_dtype: expected float32, .*'float8'"):
        runtime_of(config)


def device(platform, version, kind):
    client = types.SimpleNamespace(platform_version=version)
    return types.SimpleNamespace(platform=platform, client=client, device_kind=kind)


NVIDIA = device("gpu", "PJRT C API\ncuda 12090", "NVIDIA H200")


@pytest.mark.parametrize(
    "other",
    [
        device("cpu", "cpu", "cpu"),
        device("tpu", "PJRT C API\nTFRT TPU v5 lite", "TPU v5 lite"),
        device("gpu", "PJRT C API\nrocm 60443", "AMD Instinct MI300X"),
    ],
)
def test_fused_attention_is_refused_on_other_devices(monkeypatch, other):
    monkeypatch.setattr(jax, "devices", lambda: [other])
    config = default_config()
    check_config(config)
    config.update(attention="cudnn", compute_dtype="bfloat16")
    needs = f"cudnn needs NVIDIA GPUs, and the devices are {other.device_kind}; set attention=xla"
    with pytest.raises(ValueError, match=needs):
        check_config(config)


def test_fused_attention_on_an_nvidia_gpu_is_refused_in_float32_alone(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [NVIDIA])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config = default_config()
    config.attention = "cudnn"
    check_config(config)  # auto is bfloat16 there
    assert runtime_of(config).attention == "cudnn"
    config.compute_dtype = "float32"
    with pytest.raises(ValueError, match="attention: cudnn computes in bfloat16 or float16"):
        check_config(config)


def test_exact_and_plain_micro_batches_exclude_each_other():
    config = default_config()
    config.update(micro_batch_size=32, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="exclude each other"):
        check_config(config)
