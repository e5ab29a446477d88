# mypy: ignore-errors
# Triton compiles these functions; their arguments are pointers, block sizes and scalars.
"""The lexical half of hybrid scores on the GPU. Why it is exact: kernels/README.md.

A *block* holds the lexical sums of all turns and some tiles, ``[turns, positions]``. Sums are
whole numbers below 2**24, so float32 holds them, and the order of the additions is free.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ta_fast_kernels.triton_kernels import (
    NEVER,
    NEVER_WORD,
    TILE,
    _emit,
    _group_gate,
    _masked,
    _numbers,
    _seam,
    _tool_gate,
    _top,
)

UNIT = tl.constexpr(2.0**-11)
NONE = tl.constexpr(0)
BLOCK_OF_SUMS = tl.constexpr(1)
ROWS_OF_TERMS = tl.constexpr(2)


@triton.jit
def _narrow(positions, left, right, bound, FAN: tl.constexpr):
    """Narrow ``left`` to ``right``, where the first position from ``bound`` on is: FAN probes."""
    step = tl.cdiv(right - left, FAN)
    at = left[:, None] + step[:, None] * tl.arange(0, FAN)[None, :]
    below = tl.load(positions + at, mask=at < right[:, None], other=0x7FFFFFFF) < bound
    below = tl.sum(below.to(tl.int32), axis=1)
    right = tl.minimum(left + below * step, right)
    return tl.where(below > 0, left + (below - 1) * step + 1, left), right


@triton.jit(do_not_specialize=["first", "n_tiles", "n_parts", "part_tiles", "steps", "n_terms"])
def sum_postings(
    starts, terms, counts, offsets, positions, weights, sums,
    first, n_tiles, n_parts, part_tiles, steps, n_terms,
    BLOCK: tl.constexpr, TERMS: tl.constexpr, FAN: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """The block of ``n_tiles`` tiles from ``first`` on; one program a turn and ``part_tiles``."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    b, part = tl.program_id(0) // n_parts, tl.program_id(0) % n_parts
    low = (first + part * part_tiles) * TILE
    high = tl.minimum(low + part_tiles * TILE, (first + n_tiles) * TILE)
    begin, end = tl.load(starts + b), tl.load(starts + b + 1)
    sums += b * (n_tiles * TILE) - first * TILE
    j = tl.arange(0, TERMS)
    for t in range(begin, tl.maximum(end, begin + 1), TERMS):
        term = tl.load(terms + t + j, mask=t + j < end, other=-1)
        count = tl.load(counts + t + j, mask=t + j < end, other=0)
        known = (term >= 0) & (term < n_terms)
        left = tl.load(offsets + term, mask=known, other=0)
        right = tl.load(offsets + term + 1, mask=known, other=0)
        left_end, right_begin = right, left
        for _ in range(steps):
            left, left_end = _narrow(positions, left, left_end, low, FAN)
            right_begin, right = _narrow(positions, right_begin, right, high, FAN)
        if t == begin:
            if EARLY:  # started before those before had read the block
                tl.extra.cuda.gdc_wait()
            EACH: tl.constexpr = 4 * BLOCK
            for at in range(low, high, EACH):
                i = at + tl.arange(0, EACH)
                tl.store(sums + i, tl.zeros((EACH,), tl.float32), mask=i < high)
            tl.debug_barrier()
        last = tl.cumsum(right - left, axis=0)
        shift = right - last
        many = tl.sum(right - left, axis=0)
        for at in range(0, many, BLOCK):
            i = at + tl.arange(0, BLOCK)
            own = tl.zeros((BLOCK,), tl.int32)  # the term that posting i is of
            for half in tl.static_range(TERMS.bit_length() - 1):
                more = own + (TERMS >> (half + 1))
                own = tl.where(tl.gather(last, more - 1, 0) <= i, more, own)
            there = i < many
            place = i + tl.gather(shift, own, 0)
            times = tl.gather(count, own, 0)
            position = tl.load(positions + place, mask=there, other=0)
            weight = tl.load(weights + place, mask=there, other=0).to(tl.int32)
            product = (weight * times).to(tl.float32)
            tl.atomic_add(sums + position, product, mask=there, sem="relaxed")


@triton.jit(do_not_specialize=["first_tile", "n_words", "n_turns", "n_pure"])
def hybrid_tiles(
    queries, tools, words, tops, allowed, seams, valid, classes, sums,
    first_tile, n_words, n_turns, n_pure,
    D: tl.constexpr, GROUP: tl.constexpr, PART: tl.constexpr, IDENTITY: tl.constexpr,
    SHARED: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """``few_tiles`` of a block, with its sums; a tile that no turn may see is not read."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    GROUPS: tl.constexpr = TILE // GROUP
    blocks = tl.cdiv(n_turns, BM)
    tile, first = first_tile + tl.program_id(0) // blocks, tl.program_id(0) % blocks * BM
    turn = first + tl.arange(0, BM)
    here = turn < n_turns
    out = words, tops
    group, parts, members = _numbers(GROUP, PART)
    shared = SHARED and tile >= n_pure
    low, high, until = tl.full((), -1, tl.int32), tl.full((), -1, tl.int32), GROUPS
    if shared:
        bits = _tool_gate(
            allowed, n_words, turn, here, tile, valid, classes, group, GROUP, IDENTITY
        )
        seen = tl.max(tl.max((bits != 0).to(tl.int32), axis=1), axis=0)
    else:
        low, high, until = _seam(seams + tile * 4)
        may = _group_gate(allowed, n_words, turn, here, low, high, until, group)
        seen = tl.max(tl.max(may.to(tl.int32), axis=1), axis=0)
    if seen != 0:
        product = tl.zeros((BM, TILE), dtype=tl.float32)
        for d in range(0, D, BK):
            product = tl.dot(queries.load([first, d]), tools.load([tile * TILE, d]).T, product)
        if EARLY:  # started before the sums were ready
            tl.extra.cuda.gdc_wait()
        product += sums.load([first, (tile - first_tile) * TILE]) * UNIT
        if shared:
            bits = _tool_gate(
                allowed, n_words, turn, here, tile, valid, classes, group, GROUP, IDENTITY
            )
            product = _masked(product, bits, members, BM, GROUP)
            _emit(out, product, bits != 0, turn, here, tile, n_turns, group, parts, BM, GROUP, PART)
        else:
            may = _group_gate(allowed, n_words, turn, here, low, high, until, group)
            _emit(out, product, may, turn, here, tile, n_turns, group, parts, BM, GROUP, PART)
    else:
        if EARLY:
            tl.extra.cuda.gdc_wait()
        row = words + (tile.to(tl.int64) * n_turns + turn)[:, None] * GROUPS
        never = tl.full((BM, GROUPS), NEVER_WORD, tl.int32)
        tl.store(row + tl.arange(0, GROUPS)[None, :], never, mask=here[:, None])
        nothing = tl.full((BM,), NEVER, tl.float32).to(tl.bfloat16)
        tl.store(tops + _top(turn, tile, n_turns), nothing, mask=here)


@triton.jit
def _lexical(position, use, asked, KIND: tl.constexpr):
    """The lexical sums of a turn and the tools at ``position``: from a block, or the terms."""
    begin, end, own_sums, lexical = asked
    terms, counts, sums, row_offsets, row_terms, row_weights = lexical
    if KIND == BLOCK_OF_SUMS:
        return tl.load(sums + own_sums + position, mask=use, other=0.0)
    EACH: tl.constexpr = 8
    j = tl.arange(0, EACH)
    left = tl.load(row_offsets + position, mask=use, other=0)
    right = tl.load(row_offsets + position + 1, mask=use, other=0)
    total = tl.zeros_like(position)
    for i in range(0, tl.max(right - left, axis=0), EACH):
        at = left[:, None] + i + j[None, :]
        there = at < right[:, None]
        own = tl.load(row_terms + at, mask=there, other=-2)
        weight = tl.load(row_weights + at, mask=there, other=0).to(tl.int32)
        for t in range(begin, end, EACH):
            term = tl.load(terms + t + j, mask=t + j < end, other=-1)
            count = tl.load(counts + t + j, mask=t + j < end, other=0)
            same = own[:, :, None] == term[None, None, :]
            times = tl.sum(tl.where(same, count[None, None, :], 0), axis=2)
            total += tl.sum(times * weight, axis=1)
    return total.to(tl.float32)


@triton.jit
def _terms_of(b, n_positions, starts, lexical, most):
    """What ``_lexical`` needs of turn b; and what the lexical part of a score can reach."""
    begin, end = tl.load(starts + b), tl.load(starts + b + 1)
    i = tl.arange(0, 64)
    total = tl.zeros((64,), tl.int32)
    for at in range(begin, end, 64):
        total += tl.load(lexical[1] + at + i, mask=at + i < end, other=0)
    return (begin, end, b * n_positions, lexical), tl.sum(total, axis=0) * most
