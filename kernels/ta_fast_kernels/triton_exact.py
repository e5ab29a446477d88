# mypy: ignore-errors
# Triton compiles these functions; their arguments are pointers, block sizes and scalars.
"""Exact scores of listed tools, as keys, and the k best of them; and all of a small catalog."""

from __future__ import annotations

import triton
import triton.language as tl

from ta_fast_kernels.triton_lexical import NONE, UNIT, _lexical, _terms_of

NEVER = tl.constexpr(float("-inf"))
NO_KEY = tl.constexpr(-(2**63))
LEXICAL_ERROR = tl.constexpr(2.0**-17)


@triton.jit
def _ordered(score):
    """Integers in the order of the floats (no NaN)."""
    bits = score.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _error(query, slack, D: tl.constexpr):
    """How far any approximate sum can be from the score: ``e`` of kernels/README.md."""
    d = tl.arange(0, triton.next_power_of_2(D))
    left = tl.load(query + d, mask=d < D, other=0.0).to(tl.float32)
    return tl.sqrt(tl.sum(left * left, axis=0)) * slack + D * 2.0**-126


@triton.jit
def _specified(query, row, D: tl.constexpr):
    """A float64 inner product, halves added to halves: the specified order."""
    WIDTH: tl.constexpr = triton.next_power_of_2(D)
    d = tl.arange(0, WIDTH)
    half = tl.load(row + d, mask=d < D, other=0.0).to(tl.float64)
    half *= tl.load(query + d, mask=d < D, other=0.0).to(tl.float64)
    for i in tl.static_range(WIDTH.bit_length() - 1):
        half = tl.sum(tl.reshape(half, [2, WIDTH >> (i + 1)]), axis=0)
    return tl.max(half, axis=0)


@triton.jit
def _scores(
    query, tools, position, use, error, asked,
    D: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """The specified score of ``ROWS`` stored tools.

    A float64 sum in any order and the specified one are within the margin of the exact one.
    If both ends round to one float32, that is the score.
    """
    EACH: tl.constexpr = 8  # numbers that one thread loads together
    total = tl.zeros((ROWS, BD // EACH), tl.float64)
    for first in tl.static_range(0, D, BD):
        d = first + tl.arange(0, BD)
        left = tl.load(query + d, mask=d < D, other=0.0).to(tl.float64)
        row = tools + position.to(tl.int64)[:, None] * D + d[None, :]
        listed = (position >= 0)[:, None]  # nothing waits for what the turn may use
        part = tl.load(row, mask=listed & (d < D)[None, :], other=0.0).to(tl.float64)
        total += tl.sum(tl.reshape(part * left[None, :], [ROWS, BD // EACH, EACH]), axis=2)
    total = tl.sum(total, axis=1)
    if KIND != NONE:
        extra = _lexical(position, use, asked, KIND).to(tl.float64) * UNIT
        total += extra
    margin = error.to(tl.float64) * 2.0**-30
    score = (total + margin).to(tl.float32)
    unsure = use & ((total - margin).to(tl.float32) != score)
    i = tl.arange(0, ROWS)
    for _ in range(tl.sum(unsure.to(tl.int32), axis=0)):
        last = tl.max(tl.where(unsure, i, -1), axis=0)
        there = tl.max(tl.where(i == last, position, 0), axis=0)
        exact = _specified(query, tools + there.to(tl.int64) * D, D)
        if KIND != NONE:
            exact += tl.sum(tl.where(i == last, extra, 0.0), axis=0)
        score = tl.where(i == last, exact.to(tl.float32), score)
        unsure = unsure & (i != last)
    return tl.where(score == 0, 0.0, score)  # no negative zero


@triton.jit
def _merge(best, new, K: tl.constexpr):
    """The K best keys of both, in order. ``best`` is in order; equal keys are none."""
    j = tl.arange(0, K)
    place = j + tl.sum((new[None, :] > best[:, None]).to(tl.int32), axis=1)
    ours = tl.max(tl.where(place[:, None] == j[None, :], best[:, None], NO_KEY), axis=0)
    place = tl.sum((new[None, :] > new[:, None]).to(tl.int32), axis=1)
    place += tl.sum((best[None, :] > new[:, None]).to(tl.int32), axis=1)
    theirs = tl.max(tl.where(place[:, None] == j[None, :], new[:, None], NO_KEY), axis=0)
    return tl.maximum(ours, theirs)


@triton.jit
def _write(best, out_scores, out_rows, b, k, K: tl.constexpr):
    """Scores and rows of the k best keys of turn b."""
    j = tl.arange(0, K)
    order = (best >> 32).to(tl.int32)
    score = (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    row = 0x7FFFFFFF - (best & 0x7FFFFFFF).to(tl.int32)
    out = b.to(tl.int64) * k + j
    tl.store(out_scores + out, tl.where(best == NO_KEY, NEVER, score), mask=j < k)
    tl.store(out_rows + out, tl.where(best == NO_KEY, -1, row), mask=j < k)


@triton.jit
def _keys(
    query, tools, rows, classes, allowed, position, least, error, asked,
    D: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """A key for each position (-1: none) whose tool is allowed and scores enough.

    A key is the score's order and the row's, in 64 bits: larger is better, no two are equal.
    """
    own = tl.load(classes + position, mask=position >= 0, other=-1)  # -1 where padded
    row = tl.load(rows + position, mask=position >= 0, other=0)
    bits = tl.load(allowed + own // 32, mask=own >= 0, other=0)
    use = (own >= 0) & (((bits >> (own % 32)) & 1) != 0)
    score = _scores(query, tools, position, use, error, asked, D, ROWS, BD, KIND)
    key = (_ordered(score).to(tl.int64) << 32) | (0x7FFFFFFF - row).to(tl.int64)
    return tl.where(use & (score >= least), key, NO_KEY)


@triton.jit(do_not_specialize=["n_words", "n_positions", "k"])
def every_tool(
    queries, tools, rows, classes, allowed, threshold, out_scores, out_rows,
    n_words, n_positions, k, slack, starts, lexical, most,
    D: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """One program a turn; every tool is scored exactly. For very few tools."""
    b = tl.program_id(0)
    query = queries + b.to(tl.int64) * D
    asked, error = None, _error(query, slack, D)
    if KIND != NONE:
        asked, reach = _terms_of(b, n_positions, starts, lexical, most)
        error += reach * LEXICAL_ERROR
    best = tl.full((K,), NO_KEY, tl.int64)
    for first in range(0, n_positions, ROWS):
        i = first + tl.arange(0, ROWS)
        new = _keys(
            query, tools, rows, classes, allowed + b.to(tl.int64) * n_words,
            tl.where(i < n_positions, i, -1), tl.load(threshold + b), error, asked,
            D, ROWS, BD, KIND,
        )  # fmt: skip
        best = _merge(best, new, K)
    _write(best, out_scores, out_rows, b, k, K)
