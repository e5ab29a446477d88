# mypy: ignore-errors
# Triton compiles these functions; their arguments are pointers, block sizes and scalars.
"""The second kernel of the Triton path: from group maxima to the exact k best tools."""

from __future__ import annotations

import triton
import triton.language as tl

from ta_fast_kernels.triton_kernels import TILE, _position

LOWEST = tl.constexpr(-3.0e38)
NO_KEY = tl.constexpr(-(2**63))


@triton.jit
def _ordered(score):
    """Integers in the order of the floats (no NaN)."""
    bits = score.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _kth_largest(values, k, LANES: tl.constexpr, K: tl.constexpr):
    """A lower bound of the k-th largest float: the k-th largest maximum of sets, or -inf."""
    SETS: tl.constexpr = min(LANES, max(128, 4 * K))
    i = tl.arange(0, SETS)
    top = tl.max(tl.reshape(values, [LANES // SETS, SETS]), axis=0)
    above = top[None, :] > top[:, None]
    above |= (top[None, :] == top[:, None]) & (i[None, :] < i[:, None])
    place = tl.sum(above.to(tl.int32), axis=1)
    return tl.max(tl.where(place == k - 1, top, float("-inf")), axis=0)


@triton.jit
def _scores(queries, tools, b, position, use, error, D: tl.constexpr, ROWS: tl.constexpr):
    """The specified score of ``ROWS`` stored tools.

    A float64 sum in any order and the specified one are within the margin of the exact one.
    If both ends round to one float32, that is the score; else halves are added to halves.
    """
    WIDTH: tl.constexpr = triton.next_power_of_2(D)
    d = tl.arange(0, WIDTH)
    query = tl.load(queries + b.to(tl.int64) * D + d, mask=d < D, other=0.0).to(tl.float64)
    row = tools + position.to(tl.int64)[:, None] * D + d[None, :]
    terms = tl.load(row, mask=use[:, None] & (d < D)[None, :], other=0.0).to(tl.float64)
    terms = terms * query[None, :]
    total = tl.sum(terms, axis=1)
    margin = error.to(tl.float64) * 2.0**-30
    score = (total + margin).to(tl.float32)
    unsure = use & ((total - margin).to(tl.float32) != score)
    if tl.max(unsure.to(tl.int32), axis=0) > 0:
        half = terms
        for i in tl.static_range(WIDTH.bit_length() - 1):
            half = tl.sum(tl.reshape(half, [ROWS, 2, WIDTH >> (i + 1)]), axis=1)
        score = tl.reshape(half, [ROWS]).to(tl.float32)
    return tl.where(score == 0, 0.0, score)  # no negative zero


@triton.jit
def _settle(
    queries, tools, rows, found, keys, best, b, n_found, some, threshold, error,
    D: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, MERGE: tl.constexpr,
):  # fmt: skip
    """Score the found positions exactly; merge them into the K best keys. Are there any now?

    A key is the score's order and the row's, in 64 bits: larger is better, no two are equal.
    Its place is the number of keys above it.
    """
    tl.debug_barrier()
    for first in range(0, n_found, ROWS):
        i = first + tl.arange(0, ROWS)
        use = i < n_found
        position = tl.load(found + i, mask=use, other=0)
        row = tl.load(rows + position, mask=use, other=0)
        score = _scores(queries, tools, b, position, use, error, D, ROWS)
        key = (_ordered(score).to(tl.int64) << 32) | (0x7FFFFFFF - row).to(tl.int64)
        tl.store(keys + i, tl.where(score >= threshold, key, NO_KEY), mask=use)
    tl.debug_barrier()
    i = tl.arange(0, MERGE)
    for first in range(0, n_found, MERGE - K):
        new = first + i - K
        key = tl.load(keys + new, mask=(i >= K) & (new < n_found), other=NO_KEY)
        key = tl.maximum(key, tl.load(best + i, mask=(i < K) & (some != 0), other=NO_KEY))
        above = (key[None, :] > key[:, None]).to(tl.int32)
        above |= ((key[None, :] == key[:, None]) & (i[None, :] < i[:, None])).to(tl.int32)
        place = tl.sum(above, axis=1)
        tl.debug_barrier()
        tl.store(best + place, key, mask=place < K)
        tl.debug_barrier()
        some = some * 0 + 1
    return some


@triton.jit
def _collect(
    queries, tools, rows, classes, allowed, hits, found, keys, best, b, n_hits, n_found, some,
    cut, least, error,
    D: tl.constexpr, GROUP: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr,
    CAP: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr, MERGE: tl.constexpr,
):  # fmt: skip
    """List the allowed tools of the groups in ``hits`` that reach the cut, in float32."""
    tl.debug_barrier()
    r = tl.arange(0, BLOCK)
    for hit in range(0, n_hits, BLOCK // GROUP):
        use = hit + r // GROUP < n_hits
        group = tl.load(hits + hit + r // GROUP, mask=use, other=0)
        position = _position(group, r % GROUP, GROUP)
        own = tl.load(classes + position, mask=use, other=-1)  # -1 too where padded
        total = tl.zeros((BLOCK, BD), tl.float32)
        for d0 in tl.static_range(0, D, BD):
            at = d0 + tl.arange(0, BD)
            part = tl.load(queries + b.to(tl.int64) * D + at, mask=at < D, other=0.0)
            row = tools + position.to(tl.int64)[:, None] * D + at[None, :]
            tool = tl.load(row, mask=use[:, None] & (at < D)[None, :], other=0.0)
            total += tool.to(tl.float32) * part.to(tl.float32)[None, :]
        word = tl.load(allowed + own // 32, mask=own >= 0, other=0)
        use = (own >= 0) & (((word >> (own % 32)) & 1) != 0)
        use = use & (tl.sum(total, axis=1) >= cut)
        place = n_found + tl.cumsum(use.to(tl.int32), axis=0) - 1
        tl.store(found + place, position, mask=use)
        n_found += tl.sum(use.to(tl.int32), axis=0)
        if n_found > CAP - BLOCK:
            some = _settle(queries, tools, rows, found, keys, best, b, n_found, some, least, error, D, K, ROWS, MERGE)  # fmt: skip # noqa: E501
            n_found = n_found * 0
    tl.debug_barrier()
    return n_found, some


@triton.jit(do_not_specialize=["n_words", "n_blocks", "k"])
def best_tools(  # noqa: PLR0915
    queries, tools, rows, classes, allowed, threshold, maxima, lanes, hits, found, keys,
    out_scores, out_rows, n_words, n_blocks, k, slack,
    D: tl.constexpr, GROUP: tl.constexpr, K: tl.constexpr,
    LANES: tl.constexpr, UNROLL: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
    CAP: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr, MERGE: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """One program a turn: the groups that can hold one of the k best, then those k.

    A lane is every ``LANES``-th group. If one lane is one group, ``UNROLL`` is 0.
    """
    b = tl.program_id(0)
    n_groups = n_blocks * (TILE // GROUP)
    maxima += b.to(tl.int64) * n_groups
    allowed += b.to(tl.int64) * n_words
    lanes, hits = lanes + b * LANES, hits + b * CHUNK * CHUNK
    found, keys = found + b * CAP, keys + b * (CAP + K)
    best = keys + CAP
    least = tl.load(threshold + b)

    WIDTH: tl.constexpr = triton.next_power_of_2(D)
    d = tl.arange(0, WIDTH)
    query = tl.load(queries + b.to(tl.int64) * D + d, mask=d < D, other=0.0).to(tl.float32)
    error = tl.sqrt(tl.sum(query * query, axis=0)) * slack + D * 2.0**-126

    lane = tl.arange(0, LANES)
    if EARLY:  # started before the maxima were ready
        tl.extra.cuda.gdc_wait()
    if UNROLL == 0:
        top = tl.load(maxima + lane, mask=lane < n_groups, other=float("-inf"))
    else:
        top = tl.full((LANES,), float("-inf"), tl.float32)
        for first in range(0, n_groups, LANES * UNROLL):
            for u in tl.static_range(UNROLL):
                g = first + u * LANES + lane
                top = tl.maximum(top, tl.load(maxima + g, mask=g < n_groups, other=float("-inf")))
    cut = tl.maximum(_kth_largest(top, k, LANES, K) - 2 * error, least - error)
    cut = tl.maximum(cut, LOWEST)

    reach = top >= cut
    n_lanes = tl.sum(reach.to(tl.int32), axis=0)
    tl.store(lanes + tl.cumsum(reach.to(tl.int32), axis=0) - 1, lane, mask=reach)

    n_found = tl.full((), 0, tl.int32)
    some = tl.full((), 0, tl.int32)
    if UNROLL == 0:
        n_found, some = _collect(
            queries, tools, rows, classes, allowed, lanes, found, keys, best, b, n_lanes, n_found,
            some, cut, least, error, D, GROUP, K, BLOCK, CAP, ROWS, BD, MERGE,
        )  # fmt: skip
    else:
        tl.debug_barrier()
        i = tl.arange(0, CHUNK)
        for first_lane in range(0, n_lanes, CHUNK):
            mine = tl.load(lanes + first_lane + i, mask=first_lane + i < n_lanes, other=-1)
            for first in range(0, n_groups, LANES * CHUNK):
                g = tl.reshape(first + i[:, None] * LANES + mine[None, :], [CHUNK * CHUNK])
                own = tl.reshape((mine >= 0)[None, :] & (i[:, None] >= 0), [CHUNK * CHUNK])
                ok = own & (g < n_groups)
                ok = ok & (tl.load(maxima + g, mask=ok, other=float("-inf")) >= cut)
                n_hits = tl.sum(ok.to(tl.int32), axis=0)
                tl.store(hits + tl.cumsum(ok.to(tl.int32), axis=0) - 1, g, mask=ok)
                n_found, some = _collect(
                    queries, tools, rows, classes, allowed, hits, found, keys, best, b, n_hits,
                    n_found, some, cut, least, error, D, GROUP, K, BLOCK, CAP, ROWS, BD, MERGE,
                )  # fmt: skip
    some = _settle(queries, tools, rows, found, keys, best, b, n_found, some, least, error, D, K, ROWS, MERGE)  # fmt: skip # noqa: E501

    j = tl.arange(0, K)
    key = tl.load(best + j, mask=(j < k) & (some != 0), other=NO_KEY)
    order = (key >> 32).to(tl.int32)
    score = (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    row = 0x7FFFFFFF - (key & 0x7FFFFFFF).to(tl.int32)
    out = b.to(tl.int64) * k + j
    tl.store(out_scores + out, tl.where(key == NO_KEY, float("-inf"), score), mask=j < k)
    tl.store(out_rows + out, tl.where(key == NO_KEY, -1, row), mask=j < k)
