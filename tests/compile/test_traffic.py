"""Bytes between a chip and its memory, read off a program's text."""

from __future__ import annotations

from vtr_jax.compile.traffic import memory_traffic
from vtr_jax.hlo import read_program

# Ten turns: a slice of the stack is read, added to x, written back in place; on_chip never moves.
LOOP = """%cut (stack: f32[10,256], turn: s32[]) -> f32[1,256] {
  %stack = f32[10,256]{1,0} parameter(0)
  %turn = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = f32[1,256]{1,0} dynamic-slice(%stack, %turn, %zero), dynamic_slice_sizes={1,256}
}

%put (stack: f32[10,256], row: f32[1,256], turn: s32[]) -> f32[10,256] {
  %stack = f32[10,256]{1,0} parameter(0)
  %row = f32[1,256]{1,0} parameter(1)
  %turn = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %updated = f32[10,256]{1,0} dynamic-update-slice(%stack, %row, %turn, %zero)
}

%body (state: (s32[], f32[10,256])) -> (s32[], f32[10,256]) {
  %state = (s32[], f32[10,256]{1,0}) parameter(0)
  %turn = s32[]{:S(4)} get-tuple-element(%state), index=0
  %stack = f32[10,256]{1,0} get-tuple-element(%state), index=1
  %row = f32[1,256]{1,0} fusion(%stack, %turn), kind=kLoop, calls=%cut
  %on_chip = f32[1,256]{1,0:T(8,128)S(1)} negate(%row)
  %back = f32[1,256]{1,0} negate(%on_chip)
  %written = f32[10,256]{1,0} fusion(%stack, %back, %turn), kind=kLoop, calls=%put
  ROOT %next = (s32[], f32[10,256]{1,0}) tuple(%turn, %written)
}

%condition (state: (s32[], f32[10,256])) -> pred[] {
  %state = (s32[], f32[10,256]{1,0}) parameter(0)
  %limit = s32[]{:S(4)} constant(10)
  %turn = s32[]{:S(4)} get-tuple-element(%state), index=0
  ROOT %less = pred[]{:S(4)} compare(%turn, %limit), direction=LT
}

ENTRY %main (state: (s32[], f32[10,256])) -> (s32[], f32[10,256]) {
  %state = (s32[], f32[10,256]{1,0}) parameter(0)
  ROOT %loop = (s32[], f32[10,256]) while(%state), condition=%condition, body=%body
}
"""
ROW = 256 * 4


def test_slices_count_as_slices_and_loops_as_often_as_they_turn():
    # Cut: read and write a row. Negated: read it, then write it. Put: read and write it.
    assert memory_traffic(read_program(LOOP)) == 10 * 6 * ROW


def test_a_whole_operand_counts_whole():
    text = LOOP.replace(
        "dynamic-slice(%stack, %turn, %zero), dynamic_slice_sizes={1,256}", "sort(%stack)"
    )
    assert memory_traffic(read_program(text)) == 10 * (6 + 9) * ROW


def test_a_copy_in_the_background_is_read_and_written_once():
    text = """ENTRY %main (x: f32[8,256]) -> f32[8,256] {
  %x = f32[8,256]{1,0} parameter(0)
  %begun = (f32[8,256]{1,0}, f32[8,256]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %part = ((f32[8,256]{1,0}), f32[2,256]{1,0:S(1)}, u32[]{:S(2)}) slice-start(%x)
  ROOT %done = f32[8,256]{1,0} copy-done(%begun)
}
"""
    assert memory_traffic(read_program(text)) == (8 + 8 + 2) * ROW
