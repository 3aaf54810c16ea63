"""A run before its first step: where it starts from, what it refuses, what it writes down."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import types

import jax
import numpy as np
import pytest

from vtr_jax.checkpoint import load_retriever, read_description, write_retriever
from vtr_jax.evaluation.command import EvaluationRequest, run_evaluation
from vtr_jax.models.recipes import recipe_named
from vtr_jax.models.retriever import init_retriever
from vtr_jax.sharding import put_batch
from vtr_jax.training.config import clip_of
from vtr_jax.training.run import Run, make_optimizer, starting_retriever
from vtr_jax.training.run_log import read_log
from vtr_jax.training.run_record import RUN_FILE
from vtr_jax.training.start import check_start
from vtr_jax.training.step import BATCH_KEYS, compile_train_step

# Nothing is compiled here but the drawing of parameters.


@pytest.fixture
def open_run():
    """Opens runs and closes their checkpoints."""
    opened = []

    def make(config, workdir):
        opened.append(Run(config, workdir))
        return opened[-1]

    yield make
    for run in opened:
        run.checkpoints.close()


@pytest.fixture(scope="module")
def clip_directory(tiny_config, tmp_path_factory):
    """A retriever directory of recipe "clip" with the towers of `tiny_config`."""
    retriever = init_retriever(
        recipe_named("clip").config(clip_of(tiny_config()), {}), jax.random.key(99)
    )
    directory = tmp_path_factory.mktemp("init") / "clip"
    write_retriever(directory, retriever.config, retriever.params)
    return str(directory)


def equal(ours, theirs):
    return jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))


def test_the_seed_draws_everything(tiny_config):
    first, again = (starting_retriever(tiny_config()) for _ in range(2))
    other = starting_retriever(tiny_config({"seed": 1}))
    assert equal(first.params, again.params)
    assert not equal(first.params, other.params)
    assert first.config.recipe == "clip4clip"


@pytest.mark.parametrize("variant", ["smoke", "smoke-seqTransf"])
def test_a_clip_gives_the_towers(tiny_config, clip_directory, variant):
    config = tiny_config({"init": clip_directory}, variant)
    # The towers' sizes are the directory's, whatever the config says.
    config.clip.vision_layers = 7
    retriever = starting_retriever(config)
    assert retriever.config.clip.vision.layers == 1
    source = init_retriever(
        recipe_named("clip").config(retriever.config.clip, {}), jax.random.key(99)
    )
    for name, params in source.params.items():
        assert equal(retriever.params[name], params), name
    assert ("aggregation" in retriever.params) == (variant != "smoke")


def test_a_run_of_the_same_recipe_gives_everything(tiny_config, tiny_run):
    config = tiny_config({"init": str(tiny_run), "seed": 5})
    params = starting_retriever(config).params
    assert equal(params, starting_retriever(tiny_config({"init": str(tiny_run)})).params)
    assert not equal(params, starting_retriever(tiny_config()).params)


def test_another_recipe_or_head_is_refused(tiny_config, tiny_run, clip_directory):
    message = r"its options.sim_header is 'meanP', the run wants 'seqTransf'; its sizes"
    with pytest.raises(ValueError, match=message) as refused:
        starting_retriever(tiny_config({"init": str(tiny_run)}, "smoke-seqTransf"))
    assert "linear_patch" not in str(refused.value)  # which is the same
    config = tiny_config({"init": str(tiny_run), "recipe": "clip"})
    config.options = {}
    with pytest.raises(ValueError, match="it is a clip4clip, the run wants a clip"):
        starting_retriever(config)
    with pytest.raises(FileNotFoundError, match="nowhere: not a retriever directory"):
        starting_retriever(tiny_config({"init": "nowhere"}))


def test_other_sizes_of_the_same_recipe_are_named(tiny_config, tmp_path):
    config = tiny_config(variant="smoke-seqTransf")
    source = starting_retriever(config)
    write_retriever(tmp_path / "one-layer", source.config, source.params)
    config.init = str(tmp_path / "one-layer")
    config.sizes.temporal_layers = 3
    with pytest.raises(ValueError, match="its sizes.temporal_layers is 1, the run wants 3"):
        starting_retriever(config)


def test_unknown_optimizers_are_refused(tiny_config):
    config = tiny_config({"optimizer.name": "sgd"})
    with pytest.raises(ValueError, match="optimizer.name: expected bert_adam or adamw, got 'sgd'"):
        make_optimizer(config, starting_retriever(config), lambda step: step)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data.max_words": 100}, ValueError, "100 tokens a caption, .* 77 positions"),
        ({"clip.image_resolution": 64}, ValueError, "frames of 32 pixels.* reads 64; prepare a"),
        ({"batch_size": 17}, ValueError, "batch_size 17 is more than the 16 clips"),
        ({"mesh.fsdp": 3}, ValueError, "mesh: data=-1, fsdp=3, tensor=1 does not use 1 devices"),
        ({"evaluation.metric": "t2v R1"}, ValueError, "evaluation.metric: expected one of"),
        ({"compute_dtype": "int8"}, ValueError, "compute_dtype: expected one of auto, float32"),
        ({"optimizer.freeze_layer_num": 0}, ValueError, "init is not given, .*freeze_layer_num=0"),
        (
            {"optimizer.coef_lr": 1e-3},
            ValueError,
            "init is not given, .*coef_lr=0.001 would hardly",
        ),
        (
            {"mesh.data": 1, "batch_size": 6, "gradient_accumulation_steps": 4},
            ValueError,
            "divisor",
        ),
        ({"data.caption_mode": "all"}, ValueError, "caption_mode: expected one of"),
        ({"data.store": "nowhere"}, FileNotFoundError, "nowhere: no finished frame store"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tiny_config, tmp_path, changes, error, message
):
    workdir = tmp_path / "run"
    with pytest.raises(error, match=message):
        Run(tiny_config(changes), workdir)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 12}, "^batch_size 12 is .* 8; nearest valid: --config.batch_size=8 or"),
        ({"micro_batch_size": 4}, "^micro_batch_size 4 is .*: --config.micro_batch_size=8$"),
        ({"gradient_accumulation_steps": 4}, "^batch_size / gradient_accumulation_steps 4 is not"),
    ],
)
def test_batches_that_the_devices_cannot_share_are_refused(
    tiny_config, tmp_path, monkeypatch, changes, message
):
    mesh = types.SimpleNamespace(shape={"data": 8, "fsdp": 1, "tensor": 1})
    monkeypatch.setattr("vtr_jax.training.run.make_mesh", lambda sizes: mesh)
    with pytest.raises(ValueError, match=message):
        Run(tiny_config({"batch_size": 16} | changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensorboard_without_its_extra_is_refused_before_anything_is_written(
    tiny_config, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"pip install 'vtr_jax\[tensorboard\]'"):
        Run(tiny_config({"tensorboard": True}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_frames_than_positions_are_refused(tiny_config, tmp_path):
    config = tiny_config({"data.max_frames": 80}, "smoke-seqTransf")
    with pytest.raises(ValueError, match="80 frames a clip, .* has 77 positions"):
        Run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_record_holds_everything_that_decides_the_run(tiny_config, tmp_path, open_run):
    run = open_run(tiny_config(), tmp_path / "run")
    record = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    assert record["optimizer"]["learning_rate"] == 1e-3
    assert record["train_sha256"] == run.data.train.sha256()
    assert record["validation_sha256"] == run.data.validation.sha256()
    assert record["store_settings"]["framerate"] == 4
    assert record["total_steps"] == run.total_steps == 32
    description = read_description(tmp_path / "run")
    assert description["source"] == {"trained_from": "seed"}
    assert description["retriever"]["recipe"] == "clip4clip"
    assert run.resume() == (0, [])
    assert record["compute_dtype"] == "float32"


def test_another_run_in_the_same_workdir_is_refused(tiny_config, tmp_path, open_run):
    open_run(tiny_config(), tmp_path / "run")
    changes = {"optimizer.learning_rate": 2e-3, "seed": 1, "log_every": 1}
    with pytest.raises(ValueError, match="holds a run with other settings") as refused:
        Run(tiny_config(changes), tmp_path / "run")
    lines = str(refused.value).splitlines()
    assert [line.strip() for line in lines[1:-1]] == [
        "optimizer.learning_rate: 0.002 now, 0.001 in the run",
        "seed: 1 now, 42 in the run",
    ]
    assert lines[-1].startswith(f"{tmp_path / 'run'} holds a run with other settings; resume it")


def test_settings_that_change_no_parameter_may_differ(tiny_config, tmp_path, open_run):
    open_run(tiny_config(), tmp_path / "run")
    changes = {
        "log_every": 1,
        "keep_last": 5,
        "checkpoint_every": 2,
        "data.num_threads": 1,
        "mesh.data": 1,
        "evaluation.tile": 3,
    }
    run = open_run(tiny_config(changes), tmp_path / "run")
    assert run.checkpoints.latest_step() is None


def test_other_frames_under_the_same_names_are_another_run(
    tiny_config, tiny_dataset, tmp_path, open_run
):
    from vtr_jax.data.annotations import read_split
    from vtr_jax.data.frame_store import prepare

    open_run(tiny_config(), tmp_path / "run")
    splits = [read_split("table", tiny_dataset.captions_file, name) for name in ("train", "val")]
    store = tmp_path / "store"
    prepare(splits, tiny_dataset.videos_dir, store, framerate=1, resolution=32, workers=1)
    with pytest.raises(ValueError, match="store_settings.framerate: 1 now, 4 in the run"):
        Run(tiny_config({"data.store": str(store)}), tmp_path / "run")


def test_foreign_files_are_left_alone(tiny_config, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="is not empty and holds no run; choose another"):
        Run(tiny_config(), tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_killed_in_its_first_moments_can_be_started_again(tiny_config, tmp_path, open_run):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / f"{RUN_FILE}.123.tmp").write_text('{"batch')
    assert open_run(tiny_config(), workdir).resume() == (0, [])


def test_a_damaged_record_is_named(tiny_config, tmp_path):
    (tmp_path / RUN_FILE).write_text('{"batch')
    with pytest.raises(ValueError, match="run.json: damaged .*; choose another --workdir"):
        Run(tiny_config(), tmp_path)


@pytest.mark.parametrize(
    ("validation", "on_the_card"),
    [
        ("val", "best checkpoint by the validation split"),
        ("holdout", "best checkpoint by the validation split"),
        ("test", "best checkpoint by the TEST SPLIT itself"),
        ("none", "the checkpoint was not chosen among several"),
    ],
)
def test_the_card_says_how_the_checkpoint_was_chosen(
    tiny_config, tmp_path, open_run, validation, on_the_card
):
    config = tiny_config({"data.validation": validation, "data.holdout_clips": 4})
    workdir = tmp_path / "run"
    run = open_run(config, workdir)
    for step, score in ((1, 30.0), (2, 20.0)):
        run.checkpoints.save(step, run.state)
        if validation != "none":
            run.checkpoints.add_scores(step, {"t2v R@1": score})
    run.checkpoints.finish()
    request = EvaluationRequest(
        checkpoint=str(workdir),
        dataset="table",
        annotations=config.data.annotations,
        store=config.data.store,
    )
    report = run_evaluation(request).splitlines()
    (line,) = (line for line in report if line.startswith("selection"))
    assert on_the_card in line
    protocol = run.validation_protocol()
    assert ("split" in protocol) == (validation != "none")
    if protocol:
        assert protocol["split"] == {"val": "val", "holdout": "holdout", "test": "test"}[validation]


def test_the_validation_protocol_is_that_of_the_run(tiny_config, tmp_path, open_run):
    protocol = open_run(tiny_config(), tmp_path / "run").validation_protocol()
    assert protocol["frames"] == 4 and protocol["max_words"] == 12
    assert protocol["clips"] == 5 and protocol["frame_rate"] == 4
    assert protocol["selection"] == "validation split"
    assert "checkpoint_sha256" not in protocol


def test_pretrained_towers_may_be_frozen_and_slow(tiny_config, clip_directory):
    changes = {"optimizer.freeze_layer_num": 0, "optimizer.coef_lr": 1e-3}
    check_start(tiny_config({"init": clip_directory, **changes}))
    with pytest.raises(ValueError, match=r"stems as they were drawn .*; and optimizer.coef_lr"):
        check_start(tiny_config(changes))
    changes["optimizer.coef_lr"] = 1.0
    config = tiny_config({**changes, "optimizer.freeze_nothing_in_3d": True})
    config.options.linear_patch = "3d"
    check_start(config)


def test_a_run_goes_on_without_what_it_started_from(
    tiny_config, clip_directory, tmp_path, open_run
):
    first = open_run(tiny_config({"init": clip_directory, "optimizer.coef_lr": 1e-3}), tmp_path)
    first.checkpoints.save(3, first.state)
    first.checkpoints.finish()
    changes = {
        "init": "gone",
        "compute_dtype": "bfloat16",
        "remat": True,
        "tile": 8,
        "optimizer.coef_lr": 1e-3,
    }
    # The towers' sizes are those of the run, as they were those of init.
    second = open_run(tiny_config(changes), tmp_path)
    assert isinstance(jax.tree.leaves(second.state)[0], jax.ShapeDtypeStruct)
    step, notes = second.resume()
    assert step == 3 and equal(first.state, second.state)
    assert second.settings.runtime.compute_dtype == "bfloat16"
    assert notes == [
        "compute_dtype: 'bfloat16' now, 'float32' before",
        f"init: 'gone' now, {clip_directory!r} before",
        "remat: True now, False before",
        "tile: 8 now, 64 before",
    ]
    assert read_description(tmp_path)["source"] == {"trained_from": clip_directory}
    second.checkpoints.close()
    config = tiny_config({"optimizer.coef_lr": 1e-3}, "smoke-seqTransf")
    with pytest.raises(
        ValueError, match=r"options.sim_header: 'seqTransf' now, 'meanP' in the run"
    ):
        Run(config, tmp_path)
    (tmp_path / "retriever.json").unlink()
    with pytest.raises(FileNotFoundError, match="retriever.json: lost, although there are check"):
        Run(tiny_config(changes), tmp_path)


def test_a_run_goes_on_in_bfloat16(tiny_config, tiny_run, tmp_path, open_run, quickly_compiled):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "32")
    run = open_run(tiny_config({"compute_dtype": "bfloat16"}), workdir)
    assert run.resume() == (24, ["compute_dtype: 'bfloat16' now, 'float32' before"])
    before = jax.device_get(run.state["params"])
    step_fn = quickly_compiled(compile_train_step(run.settings, run.state, run.mesh))
    with contextlib.closing(run.batches(24)) as batches:
        batch = next(batches)
    arrays = put_batch({name: batch[name] for name in BATCH_KEYS}, run.mesh)
    after, metrics = step_fn(run.state, arrays, jax.random.key(0))
    (told,) = (r["loss"] for r in read_log(tiny_run) if r.get("step") == 25 and "loss" in r)
    # The same batch by the same parameters; products of eight bits, scaled up by 14.
    assert float(metrics["loss"]) == pytest.approx(told, rel=0.1)
    assert {leaf.dtype for leaf in jax.tree.leaves(after["params"])} == {np.dtype(np.float32)}
    assert not equal(before, after["params"])


def test_the_average_is_evaluated_and_written_as_the_retriever(tiny_config, tmp_path, open_run):
    run = open_run(tiny_config({"ema_decay": 0.9}), tmp_path)
    assert equal(run.state["ema"], run.state["params"])
    run.state["ema"] = jax.tree.map(lambda leaf: leaf / 2, run.state["params"])
    run.checkpoints.save(1, run.state)
    run.checkpoints.finish()
    assert equal(load_retriever(tmp_path).params, run.state["ema"])
    again = open_run(tiny_config({"ema_decay": 0.9, "on_nonfinite": "skip"}), tmp_path)
    assert again.resume() == (1, ["on_nonfinite: 'skip' now, 'stop' before"])
    assert equal(again.state, run.state)
    assert again.result().params is again.state["ema"]
    with pytest.raises(ValueError, match="ema_decay: 0.5 now, 0.9 in the run"):
        Run(tiny_config({"ema_decay": 0.5}), tmp_path)


def test_a_damaged_checkpoint_is_not_evaluated(tiny_config, tmp_path, open_run):
    run = open_run(tiny_config(), tmp_path)
    for step in (1, 2):
        run.checkpoints.save(step, run.state)
    run.checkpoints.finish()
    folder = tmp_path / "checkpoints" / "2" / "retriever"
    path = max(folder.rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"(?s){path.name}: damaged, .*; step=1 can be"):
        load_retriever(tmp_path)
    assert equal(load_retriever(tmp_path, step=1).params, run.state["params"])
