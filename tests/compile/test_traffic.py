"""Bytes between a chip and its memory, read off a program's text."""

from __future__ import annotations

import pytest

from vtr_jax.compile.traffic import bytes_by_kind, memory_traffic, score_bytes
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


def traffic(text):
    return sum(move.bytes for move in memory_traffic(read_program(text)))


def test_slices_count_as_slices_and_loops_as_often_as_they_turn():
    # Cut: read and write a row. Negated: read it, then write it. Put: read and write it.
    assert traffic(LOOP) == 10 * 6 * ROW


def test_a_whole_operand_counts_whole():
    text = LOOP.replace(
        "dynamic-slice(%stack, %turn, %zero), dynamic_slice_sizes={1,256}", "sort(%stack)"
    )
    assert traffic(text) == 10 * (6 + 9) * ROW


def test_a_copy_in_the_background_is_read_and_written_once():
    text = """ENTRY %main (x: f32[8,256]) -> f32[8,256] {
  %x = f32[8,256]{1,0} parameter(0)
  %begun = (f32[8,256]{1,0}, f32[8,256]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %part = ((f32[8,256]{1,0}), f32[2,256]{1,0:S(1)}, u32[]{:S(2)}) slice-start(%x)
  ROOT %done = f32[8,256]{1,0} copy-done(%begun)
}
"""
    assert traffic(text) == (8 + 8 + 2) * ROW


# Scores of 3 tokens by 3, their exponentials, a sum over devices, a copy to another layout.
KINDS_TEXT = """%scaled (q: f32[2,3,8], k: f32[2,3,8]) -> f32[2,3,3] {
  %q = f32[2,3,8]{2,1,0} parameter(0)
  %k = f32[2,3,8]{2,1,0} parameter(1)
  %scores = f32[2,3,3]{2,1,0} dot(%q, %k), lhs_contracting_dims={2}, rhs_contracting_dims={2}
  ROOT %scaled_scores = f32[2,3,3]{2,1,0} multiply(%scores, %scores)
}

%turned (x: f32[2,3,8]) -> f32[3,2,8] {
  %x = f32[2,3,8]{2,1,0} parameter(0)
  ROOT %transposed = f32[3,2,8]{2,1,0} transpose(%x), dimensions={1,0,2}
}

ENTRY %main (q: f32[2,3,8], k: f32[2,3,8]) -> f32[3,2,8] {
  %q = f32[2,3,8]{2,1,0} parameter(0)
  %k = f32[2,3,8]{2,1,0} parameter(1)
  %product = f32[2,3,3]{2,1,0} fusion(%q, %k), kind=kOutput, calls=%scaled
  %weights = f32[2,3,3]{2,1,0} exponential(%product)
  %summed = f32[2,3,8]{2,1,0} all-reduce-start(%q), channel_id=1, replica_groups={{0,1}}
  %done = f32[2,3,8]{2,1,0} all-reduce-done(%summed)
  ROOT %other = f32[3,2,8]{2,1,0} fusion(%done), kind=kLoop, calls=%turned
}
"""


def test_traffic_is_split_by_what_it_is_for():
    moves = memory_traffic(read_program(KINDS_TEXT))
    tokens, scores = 2 * 3 * 8 * 4, 2 * 3 * 3 * 4
    assert bytes_by_kind(moves) == {
        "products": 2 * tokens + scores,
        "exchanges": 2 * tokens,
        "copies": 2 * tokens,
        "others": 2 * scores,
    }
    assert score_bytes(moves, 3) == 3 * scores
    assert score_bytes(moves, 8) == 0


@pytest.mark.parametrize("target", ["__cublas$gemm", "__onednn$matmul", "__cudnn$fmhaSoftmax"])
def test_products_of_a_library_are_products(target):
    text = f"""ENTRY %main (x: f32[8,8]) -> f32[8,8] {{
  %x = f32[8,8]{{1,0}} parameter(0)
  ROOT %y = f32[8,8]{{1,0}} custom-call(%x, %x), custom_call_target="{target}"
}}
"""
    assert bytes_by_kind(memory_traffic(read_program(text)))["products"] == 3 * 8 * 8 * 4
