"""A train step compiled for this machine's devices and measured without being run."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import pytest

from vtr_jax.cli import main
from vtr_jax.compile.analysis import (
    DoesNotFit,
    Memory,
    _explained,
    abstract_step,
    compile_step,
    model_flops,
    step_flops,
)
from vtr_jax.compile.chips import CHIPS, chip_of
from vtr_jax.compile.roofline import Roofline, roofline
from vtr_jax.compile.search import Outcome, Trial, search, search_table, trials
from vtr_jax.compile.text import report_text
from vtr_jax.training.command import read_config
from vtr_jax.training.step import batch_loss

TINY = (
    "--config.clip.image_resolution=32",
    "--config.clip.patch_size=8",
    "--config.clip.vision_width=128",
    "--config.clip.vision_layers=4",
    "--config.clip.text_width=64",
    "--config.clip.text_layers=3",
    "--config.clip.embed_dim=64",
    "--config.clip.vocab_size=128",
    "--config.batch_size=4",
    "--config.data.max_frames=2",
    "--config.tile=63",  # so that nothing that another test traced is found again
)
SMOKE = "clip4clip:smoke"


@pytest.fixture
def config(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    return read_config(SMOKE, TINY)


def gradient_flops(step):
    gradient = jax.value_and_grad(
        functools.partial(batch_loss, settings=step.settings), has_aux=True
    )
    arguments = (step.state["params"], step.state["state"], step.batch, step.key)
    return jax.jit(gradient).lower(*arguments).cost_analysis()["flops"]


def test_operations_are_those_xla_counts_of_the_unrolled_model(config, monkeypatch):
    counted = step_flops(abstract_step(config))
    looped = gradient_flops(abstract_step(config))
    assert looped < counted / 2  # the trap that the count is for
    monkeypatch.setattr(jax.lax, "scan", functools.partial(jax.lax.scan, unroll=True))
    config.tile = 62  # traced anew
    unrolled = gradient_flops(abstract_step(config))
    # XLA counts element-wise operations too, a tenth of so narrow a model.
    assert counted < unrolled < 1.15 * counted


def test_rematerialisation_adds_operations_but_not_to_the_models_own(config):
    config.remat = True
    assert model_flops(config) < step_flops(abstract_step(config))
    config.remat = False
    assert model_flops(config) == step_flops(abstract_step(config))


def test_fused_attention_counts_the_same_operations_and_is_refused_without_a_gpu(config):
    step = abstract_step(config)
    runtime = dataclasses.replace(
        step.settings.runtime, compute_dtype="bfloat16", attention="cudnn"
    )
    fused = dataclasses.replace(step, settings=dataclasses.replace(step.settings, runtime=runtime))
    assert step_flops(fused) == step_flops(step)
    config.attention = "cudnn"
    with pytest.raises(ValueError, match="attention: cudnn needs NVIDIA GPUs"):
        compile_step(config, jax.devices()[:1])


@pytest.fixture(scope="module")
def report():
    config = read_config(SMOKE, TINY)
    return config, compile_step(config, jax.devices()[:1])


def test_a_report_on_this_machine_has_everything_but_a_roofline(report):
    config, measured = report
    assert (measured.kind, measured.devices) == ("cpu", 1)
    memory = measured.memory
    parameters_and_moments = 3 * sum(
        leaf.size * 4 for leaf in jax.tree.leaves(abstract_step(config).state["params"])
    )
    assert memory.arguments > parameters_and_moments
    assert memory.aliased > 0.9 * parameters_and_moments  # the state is taken over
    assert memory.peak < memory.arguments + memory.temporaries + memory.output
    assert measured.traffic > memory.arguments
    assert measured.traffic == sum(measured.traffic_by_kind.values())
    assert measured.traffic_by_kind["products"] > 0 < measured.score_traffic < measured.traffic
    assert measured.collectives == {} and measured.sent == 0
    assert measured.roofline is None and measured.fits and measured.unknown_loops == ()
    text = report_text(config, measured)
    assert "no roofline: the peak of cpu" in text and "TFLOP" in text


def test_the_command_prints_the_same_as_json(report, capsys, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    assert main(["compile", f"--config={SMOKE}", *TINY, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["config"]["batch_size"] == 4 and values["topology"] is None
    assert values["report"]["flops"] == report[1].flops
    assert values["report"]["memory"]["peak"] == report[1].memory.peak


def test_a_topology_without_libtpu_names_the_extra(capsys, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["compile", f"--config={SMOKE}", "--topology=v5e:2x4"]) == 1
    assert "pip install 'vtr_jax[compile]'" in capsys.readouterr().err


def test_a_slice_that_nobody_knows_is_refused_without_libtpu(capsys, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["compile", f"--config={SMOKE}", "--topology=v9:2"]) == 1
    error = capsys.readouterr().err
    assert "--topology=v9:2: 'v9' is no TPU known here; expected GENERATION:SHAPE with " in error


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_compiled(config, eight_devices):
    config.batch_size = 12
    with pytest.raises(ValueError, match="nearest valid: --config.batch_size=8 or"):
        compile_step(config, eight_devices)
    # As `vtr train` does: see test_run.py.
    config.update(batch_size=16, micro_batch_size=4)
    with pytest.raises(ValueError, match="^micro_batch_size 4 is .* --config.micro_batch_size=8$"):
        compile_step(config, eight_devices)
    config.update(micro_batch_size=0, gradient_accumulation_steps=4)
    with pytest.raises(ValueError, match="^batch_size / gradient_accumulation_steps 4 is not"):
        compile_step(config, eight_devices)


@pytest.fixture
def eight_devices(monkeypatch):
    """Stands for a pod whose mesh is only asked for its sizes."""

    class Mesh:
        shape = {"data": 8, "fsdp": 1, "tensor": 1}

    monkeypatch.setattr("vtr_jax.compile.analysis.make_mesh", lambda sizes, devices: Mesh())
    return [None] * 8


def test_a_roofline_is_as_long_as_its_busiest_resource():
    line = roofline(
        CHIPS["TPU v5 lite"],
        chips=4,
        step_flops=4 * 197e12,
        model_flops=2 * 197e12,
        traffic=819e9 / 2,
        sent=400e9,
    )
    assert (line.compute, line.memory, line.interconnect) == (1.0, 0.5, 4.0)
    assert (line.step, line.bound, line.mfu) == (4.0, "interconnect", 0.125)
    assert chip_of("cpu") is None


def test_times_of_memory_are_called_hbm(report):
    config, measured = report
    line = Roofline(compute=1.0, memory=2.0, interconnect=0.5, mfu=0.25)
    measured = dataclasses.replace(measured, roofline=line)
    text = report_text(config, measured)
    assert "\n  HBM            2000.00 ms\n" in text
    assert "2000.00 ms at least (HBM): MFU at most 25%" in text
    head, row = search_table([Outcome(Trial(1, 1, False, 0), measured)]).splitlines()[1:3]
    assert "memory" not in head
    assert head.index("HBM") + 3 == row.index("2000.00") + 7  # right-aligned


def test_what_does_not_fit_is_told_apart_from_other_failures():
    for said in (
        "Ran out of memory. Used 25.31G of 15.75G hbm. More",
        "Ran out of memory on HBM, HLO temporaries (25.31G) exceeds available HBM (15.75G).",
    ):
        explained = _explained(RuntimeError(f"RESOURCE_EXHAUSTED: {said}"))
        assert isinstance(explained, DoesNotFit)
        assert "25.31 GiB of the 15.75 GiB" in str(explained)
    other = RuntimeError("INTERNAL: a mistake of the compiler")
    assert _explained(other) is other
    assert Memory(10, 5, 8, 7, 1, None).peak == 17


def test_a_search_sorts_what_fits_first_and_marks_the_rest(config, report):
    config.batch_size = 16
    ways = list(trials(config, 8))
    assert Trial(1, 1, False, 0) in ways and Trial(8, 1, True, 0) in ways
    assert Trial(1, 2, False, 0) in ways and len(set(ways)) == len(ways)
    assert all(way.micro_batch_size % (8 // way.tensor) == 0 for way in ways)

    def compiled(changed, devices):
        if not changed.remat:
            raise DoesNotFit("needs 20GB of the 16GB a chip has")
        assert changed.mesh.data == -1
        return report[1]

    told = []
    outcomes = search(config, [None] * 8, compiled, told.append)
    assert len(told) == len(outcomes) == len(ways)
    fits = [outcome.fits for outcome in outcomes]
    assert fits == sorted(fits, reverse=True) and any(fits) and not all(fits)
    table = search_table(outcomes)
    assert table.count("DOES NOT FIT: needs 20GB") == fits.count(False)
    assert not Outcome(ways[0], None, "why").fits


def test_outcomes_are_sorted_by_verdict_before_time(report):
    way, measured = Trial(1, 1, False, 0), report[1]
    peak = measured.memory.peak

    def outcome(step, limit, stated):
        memory = dataclasses.replace(measured.memory, limit=limit, stated_peak=stated)
        line = Roofline(step, 0.0, 0.0, 0.5)
        return Outcome(way, dataclasses.replace(measured, memory=memory, roofline=line))

    fits, slower_fits = outcome(4.0, peak, peak), outcome(5.0, peak, peak)
    may_fit, slower_may_fit = outcome(2.0, peak - 1, peak // 2), outcome(3.0, peak - 1, peak // 2)
    does_not_fit, refused = outcome(1.0, peak // 3, peak // 2), Outcome(way, None, "why")
    expected = [fits, slower_fits, may_fit, slower_may_fit, does_not_fit, refused]
    assert sorted(reversed(expected), key=lambda each: each.order) == expected


def test_a_sixteenth_is_tried_only_on_a_mesh_where_nothing_else_fits(config, report):
    config.batch_size = 128

    def compiled(changed, devices):
        if changed.mesh.fsdp == 1:
            raise DoesNotFit("needs 20GB of the 16GB a chip has")
        return report[1]

    outcomes = search(config, [None] * 8, compiled, lambda line: None)
    sixteenths = [each.trial for each in outcomes if each.trial.micro_batch_size == 8]
    assert sixteenths == [Trial(1, 1, True, 8), Trial(1, 2, True, 8)]
    assert {each.trial.micro_batch_size for each in outcomes} == {0, 32, 8}
    assert search_table(outcomes).startswith("tried: mesh, remat and micro_batch_size, in place")


def test_a_search_leaves_accumulated_gradients_alone(config):
    config.update(batch_size=64, gradient_accumulation_steps=2)
    assert {way.micro_batch_size for way in trials(config, 8)} == {0}
    config.batch_size = 8  # 4 at once: only tensor=2 leaves each device a row
    assert {way.mesh for way in trials(config, 8)} == {(1, 2)}


def test_a_search_that_no_mesh_divides_is_refused(config):
    config.batch_size = 6
    near = "nearest valid: --config.batch_size=4 or --config.batch_size=8$"
    with pytest.raises(ValueError, match=f"tensor=2 batch_size 6 is not .* fsdp = 4; {near}"):
        search(config, [None] * 8, tell=lambda line: None)
    config.batch_size = 4
    assert {way.mesh for way in trials(config, 8)} == {(1, 2)}
    config.update(batch_size=12, gradient_accumulation_steps=2)
    near = "nearest valid: --config.batch_size=8 or --config.batch_size=16$"
    with pytest.raises(ValueError, match=f"gradient_accumulation_steps 6 is not .*; {near}"):
        search(config, [None] * 8, tell=lambda line: None)
    config.update(batch_size=7, gradient_accumulation_steps=1)
    with pytest.raises(ValueError, match="tensor=1 batch_size 7 .* fsdp = 3; .*=6 or .*=9$"):
        search(config, [None] * 3, tell=lambda line: None)


def test_memory_between_the_compilers_estimate_and_the_sum_may_fit(report):
    measured = report[1]
    peak = measured.memory.peak

    def verdict(limit, stated):
        memory = dataclasses.replace(measured.memory, limit=limit, stated_peak=stated)
        changed = dataclasses.replace(measured, memory=memory)
        assert changed.fits == (changed.verdict == "fits")
        if not changed.fits:
            assert changed.verdict.upper() in report_text(report[0], changed)
        return changed.verdict

    assert verdict(peak, None) == verdict(peak, peak // 2) == "fits"
    assert verdict(peak - 1, peak // 2) == "may fit"
    assert verdict(peak - 1, None) == verdict(peak // 3, peak // 2) == "does not fit"
