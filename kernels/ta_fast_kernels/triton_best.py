# mypy: ignore-errors
# Triton compiles these functions; their arguments are pointers, block sizes and scalars.
"""The last kernel of the Triton path: from maxima to the exact k best tools.

Each step narrows: sets of tops -> tiles -> groups -> tools -> exact scores -> keys. What
passes one step is packed, and opened a few at a time by the next.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ta_fast_kernels.triton_exact import LEXICAL_ERROR, NO_KEY, _error, _keys, _merge, _write
from ta_fast_kernels.triton_kernels import NEVER, NEVER_WORD, TILE, TOPS, _position
from ta_fast_kernels.triton_lexical import NONE, _terms_of

LARGEST = tl.constexpr(3.0e38)


@triton.jit
def _pack(packed, values, places, hit):
    """Write the values that hit at their places; whoever reads ``packed`` sees them."""
    tl.debug_barrier()  # all have read what was there before
    tl.store(packed + places, values, mask=hit)
    tl.debug_barrier()


@triton.jit
def _pack_hits(packed, values, hit):
    """Write the values that hit, one after another. How many are they?"""
    one = hit.to(tl.int32)
    _pack(packed, values, tl.cumsum(one, axis=0) - 1, hit)
    return tl.sum(one, axis=0)


@triton.jit
def _unpack(packed, first, n, SLOTS: tl.constexpr):
    """Values from ``first`` on: ``[SLOTS]``; -1 beyond the last."""
    i = first + tl.arange(0, SLOTS)
    return tl.load(packed + i, mask=i < n, other=-1)


@triton.jit
def _at(i, b, n_turns, WIDE: tl.constexpr):
    """Where entry i of turn b is in ``[entries / WIDE, turns, WIDE]``."""
    return ((i // WIDE).to(tl.int64) * n_turns + b) * WIDE + i % WIDE


@triton.jit
def _greatest(word):
    """The maximum in the upper half of a word."""
    return (word & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _entry(words, tops, i, b, n_turns, use, GROUP: tl.constexpr, TILES: tl.constexpr):
    """The greatest of tile i, or (not ``TILES``) of group i."""
    if TILES:
        top = tl.load(tops + _at(i, b, n_turns, TOPS), mask=use, other=NEVER).to(tl.float32)
    else:
        at = _at(i, b, n_turns, TILE // GROUP)
        top = _greatest(tl.load(words + at, mask=use, other=NEVER_WORD))
    return top


@triton.jit
def _flat(values, hit):
    SIZE: tl.constexpr = values.shape[0] * values.shape[1]
    return tl.reshape(values, [SIZE]), tl.reshape(hit, [SIZE])


@triton.jit
def _ranks(values, N: tl.constexpr):
    """How many are above each; equal ones count in their order."""
    i = tl.arange(0, N)
    above = values[None, :] > values[:, None]
    above |= (values[None, :] == values[:, None]) & (i[None, :] < i[:, None])
    return tl.sum(above.to(tl.int32), axis=1)


@triton.jit
def _candidates(words, group, b, n_turns, cut, GROUP: tl.constexpr, PART: tl.constexpr):
    """Positions ``[SLOTS * GROUP]`` of the groups' members, and which of them can reach the cut.

    If no other part can, only the members of the greatest one's part can.
    """
    PARTS: tl.constexpr = GROUP // PART
    BITS: tl.constexpr = 16 - PARTS.bit_length() + 1
    at = _at(group, b, n_turns, TILE // GROUP)
    word = tl.load(words + at, mask=group >= 0, other=0)
    greatest = _greatest(word)
    gap = (((word & 0xFFFF) // PARTS) << (31 - BITS)).to(tl.float32, bitcast=True)
    alone = greatest + tl.abs(greatest) * 2.0**-8 - gap < cut
    member = tl.arange(0, GROUP)[None, :]
    near = member // PART == (word & (PARTS - 1))[:, None]
    near = (group >= 0)[:, None] & (near | ~alone[:, None])
    return _flat(_position(group[:, None], member, GROUP), near)


@triton.jit
def _open_groups(
    query, tools, rows, classes, allowed, words, b, n_turns, groups, n_groups, found, best,
    cut, least, error, asked,
    D: tl.constexpr, GROUP: tl.constexpr, PART: tl.constexpr, K: tl.constexpr,
    SLOTS: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """Score the tools of some groups that can reach the cut; merge them into the K best keys."""
    for first in range(0, n_groups, SLOTS):
        group = _unpack(groups, first, n_groups, SLOTS)
        position, near = _candidates(words, group, b, n_turns, cut, GROUP, PART)
        n_tools = _pack_hits(found, position, near)
        for i in range(0, n_tools, ROWS):
            there = _unpack(found, i, n_tools, ROWS)
            new = _keys(query, tools, rows, classes, allowed, there, least, error, asked, D, ROWS, BD, KIND)  # fmt: skip # noqa: E501
            best = _merge(best, new, K)
    return best


@triton.jit
def _open(
    query, tools, rows, classes, allowed, words, tops, b, n_turns, hits, n_hits, groups, best,
    cut, reach, least, error, asked,
    D: tl.constexpr, GROUP: tl.constexpr, PART: tl.constexpr, K: tl.constexpr,
    TILES: tl.constexpr, SLOTS: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr,
    KIND: tl.constexpr,
):  # fmt: skip
    """Open entries that can reach the cut: groups, or tiles, whose groups that can are next."""
    GROUPS: tl.constexpr = TILE // GROUP
    found = groups + SLOTS * GROUPS
    if TILES:
        for first in range(0, n_hits, SLOTS):
            tile = _unpack(hits, first, n_hits, SLOTS)
            group = tile[:, None] * GROUPS + tl.arange(0, GROUPS)[None, :]
            known = (tile >= 0)[:, None] & (group >= 0)
            near = _entry(words, tops, group, b, n_turns, known, GROUP, False) >= reach
            n_near = _pack_hits(groups, *_flat(group, near))
            best = _open_groups(query, tools, rows, classes, allowed, words, b, n_turns, groups, n_near, found, best, cut, least, error, asked, D, GROUP, PART, K, SLOTS, ROWS, BD, KIND)  # fmt: skip # noqa: E501
    else:
        best = _open_groups(query, tools, rows, classes, allowed, words, b, n_turns, hits, n_hits, found, best, cut, least, error, asked, D, GROUP, PART, K, SLOTS, ROWS, BD, KIND)  # fmt: skip # noqa: E501
    return best


@triton.jit(do_not_specialize=["n_words", "n_turns", "n_tiles", "k"])
def best_tools(
    queries, tools, rows, classes, allowed, threshold, words, tops, lists, out_scores, out_rows,
    n_words, n_turns, n_tiles, k, slack, starts, lexical, most,
    D: tl.constexpr, GROUP: tl.constexpr, PART: tl.constexpr, K: tl.constexpr, TILES: tl.constexpr,
    SETS: tl.constexpr, FAN: tl.constexpr, ONCE: tl.constexpr, SLOTS: tl.constexpr,
    ROWS: tl.constexpr, BD: tl.constexpr, KIND: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program a turn. Its entries are the tiles' tops, or (not ``TILES``) the groups' words.

    Entry i is in set ``i % SETS``. With ``ONCE`` there are no more than ``SETS * FAN``.
    """
    GROUPS: tl.constexpr = TILE // GROUP
    b = tl.program_id(0)
    allowed += b.to(tl.int64) * n_words
    least = tl.load(threshold + b)
    query = queries + b.to(tl.int64) * D
    asked, error = None, _error(query, slack, D)
    if KIND != NONE:
        asked, reach = _terms_of(b, n_tiles * TILE, starts, lexical, most)
        error += reach * LEXICAL_ERROR
    if EARLY:  # started before the maxima were ready
        tl.extra.cuda.gdc_wait()

    n = n_tiles if TILES else n_tiles * GROUPS
    i = tl.arange(0, FAN)[:, None] * SETS + tl.arange(0, SETS)[None, :]
    entry = _entry(words, tops, i, b, n_turns, i < n, GROUP, TILES)
    top = tl.max(entry, axis=0)
    if not ONCE:
        for first in range(SETS * FAN, n, SETS * FAN):
            more = _entry(words, tops, first + i, b, n_turns, first + i < n, GROUP, TILES)
            top = tl.maximum(top, tl.max(more, axis=0))
    rank = _ranks(top, SETS)
    bound = tl.max(tl.where(rank == k - 1, top, NEVER), axis=0)
    bound -= tl.abs(bound) * 2.0**-8 + 2.0**-126  # rounded to bfloat16
    cut = tl.minimum(tl.maximum(bound - 2 * error, least - error), LARGEST)
    cut = tl.maximum(cut, -LARGEST)
    reach = cut - tl.abs(cut) * 2.0**-8 - 2.0**-126

    best = tl.full((K,), NO_KEY, tl.int64)
    HITS: tl.constexpr = SETS * FAN if ONCE else SLOTS * FAN
    sets = lists + b.to(tl.int64) * (SETS + HITS + SLOTS * GROUPS + SLOTS * GROUP)
    hits = sets + SETS
    groups = hits + HITS
    if ONCE:
        n_hits = _pack_hits(hits, *_flat(i, entry >= reach))
        best = _open(query, tools, rows, classes, allowed, words, tops, b, n_turns, hits, n_hits, groups, best, cut, reach, least, error, asked, D, GROUP, PART, K, TILES, SLOTS, ROWS, BD, KIND)  # fmt: skip # noqa: E501
    else:
        n_sets = tl.sum((top >= reach).to(tl.int32), axis=0)
        _pack(sets, tl.arange(0, SETS), rank, top >= reach)
        for first_set in range(0, n_sets, SLOTS):
            mine = _unpack(sets, first_set, n_sets, SLOTS)
            for m in range(0, tl.cdiv(n, SETS), FAN):
                at = mine[:, None] + (m + tl.arange(0, FAN))[None, :] * SETS
                use = (mine >= 0)[:, None] & (at < n)
                hit = _entry(words, tops, at, b, n_turns, use, GROUP, TILES) >= reach
                n_hits = _pack_hits(hits, *_flat(at, hit))
                best = _open(query, tools, rows, classes, allowed, words, tops, b, n_turns, hits, n_hits, groups, best, cut, reach, least, error, asked, D, GROUP, PART, K, TILES, SLOTS, ROWS, BD, KIND)  # fmt: skip # noqa: E501

    _write(best, out_scores, out_rows, b, k, K)
