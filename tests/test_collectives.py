"""Reading a compiled program: loops multiplied out, exchanges counted with their bytes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from vtr_jax.collectives import collective_totals, collectives
from vtr_jax.hlo import read_program

LOOP = """HloModule step

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%body (state: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %state = (s32[], /*index=1*/f32[8,4]{1,0:T(8,128)S(1)}) parameter(0)
  %turn = s32[] get-tuple-element(%state), index=0
  %x = f32[8,4]{1,0} get-tuple-element(%state), index=1
  %reduced = f32[8,4]{1,0} all-reduce(%x), channel_id=1, replica_groups=GROUPS, to_apply=%sum
  ROOT %next = (s32[], f32[8,4]) tuple(%turn, %reduced)
}

%condition (state: (s32[], f32[8,4])) -> pred[] {
  %state = (s32[], f32[8,4]{1,0}) parameter(0)
  %limit = s32[] constant(24)
  %turn = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%turn, %limit), direction=LT
}

ENTRY %main (state: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %state = (s32[], f32[8,4]{1,0}) parameter(0)
  ROOT %loop = (s32[], f32[8,4]) while(%state), condition=%condition, body=%body
}
"""


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("[4,2]<=[8]", 2),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", 4),
        ("{}", 8),
    ],
)
def test_an_exchange_in_a_loop_counts_every_turn(groups, devices):
    (found,) = collectives(LOOP.replace("GROUPS", groups), 8)
    assert (found.kind, found.times, found.bytes, found.devices) == (
        "all-reduce",
        24,
        8 * 4 * 4,
        devices,
    )
    assert found.sent == 24 * 128 * 2 * (devices - 1) / devices
    assert collective_totals([found]) == {"all-reduce": {"number": 24, "bytes": 24 * 128}}


def test_a_group_of_one_sends_nothing():
    assert collectives(LOOP.replace("GROUPS", "{{0},{1}}"), 2) == []


def test_a_compilers_number_of_turns_wins_and_a_missing_one_is_named():
    text = LOOP.replace("GROUPS", "{}")
    told = text.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert collectives(told, 8)[0].times == 7
    program = read_program(text.replace("constant(24)", "parameter(1)"))
    assert program.unknown_loops == ("loop",)


def test_the_started_half_of_an_exchange_is_counted_alone():
    text = """ENTRY %main (x: f32[4]) -> f32[32] {
  %x = f32[4]{0} parameter(0)
  %begun = (f32[4]{0}, f32[32]{0}) all-gather-start(%x), channel_id=3, replica_groups={}
  ROOT %whole = f32[32]{0} all-gather-done(%begun)
}
"""
    (found,) = collectives(text, 8)
    assert (found.kind, found.bytes, found.sent) == ("all-gather", 128, 128 * 7 / 8)


def test_a_text_without_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        read_program("HloModule empty\n")


def test_a_scan_compiled_here_runs_its_body_as_often_as_it_turns():
    def doubled(x):
        return jax.lax.scan(lambda carry, _: (jnp.sin(carry @ carry), None), x, length=9)[0]

    text = jax.jit(doubled).lower(jnp.eye(64)).compile().as_text()
    program = read_program(text)
    assert program.unknown_loops == ()
    products = [
        computation.times
        for computation, instruction in program.running()
        if instruction.opcode == "dot" or "matmul" in instruction.attributes
    ]
    assert products and set(products) == {9}
