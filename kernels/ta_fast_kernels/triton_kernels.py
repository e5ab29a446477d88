# mypy: ignore-errors
# Triton compiles these functions; their arguments are pointers, block sizes and scalars.
"""The first kernels of the Triton path: group maxima. Why it is exact: kernels/README.md.

A *group* is ``GROUP`` tools that share one maximum. Four groups lie interleaved in a block
of ``4 * GROUP`` stored positions, two neighbours of one group, two of the next, ..., so that
in the matrix unit's output one thread holds a whole group and no shuffle is needed.
"""

from __future__ import annotations

import triton
import triton.language as tl

TILE = tl.constexpr(256)  # positions come in blocks of so many: the compiler sees the alignment


@triton.jit
def _gate_words(
    allowed,
    n_words,
    turn,
    in_batch,
    group,
    flag,
    group_class,
    group_valid,
    classes,
    GROUP,
    IDENTITY,
):
    """Bits ``[turns, groups]``: bit i says whether the turn may use member i of the group."""
    base = allowed + turn.to(tl.int64)[:, None] * n_words
    present = in_batch[:, None]
    if IDENTITY:
        first = group * GROUP
        known = present & (first // 32 < n_words)[None, :]
        words = tl.load(base + (first // 32)[None, :], mask=known, other=0) >> (first % 32)[None, :]
    else:
        own = tl.load(group_class + group)
        known = tl.maximum(own, 0)
        words = tl.load(base + (known // 32)[None, :], mask=present, other=0)
        words = -((words >> (known % 32)[None, :]) & 1)
        if flag == 2:
            mixed = tl.zeros_like(words)
            for i in range(GROUP):
                member = tl.load(classes + _position(group, i, GROUP))
                word = tl.load(base + (member // 32)[None, :], mask=present, other=0)
                mixed |= ((word >> (member % 32)[None, :]) & 1) << i
            words = tl.where((own < 0)[None, :], mixed, words)
    return words & tl.load(group_valid + group)[None, :]


@triton.jit
def _position(group, member, GROUP):
    """Where member i of a group is stored."""
    return group // 4 * (4 * GROUP) + member // 2 * 8 + group % 4 * 2 + member % 2


@triton.jit
def _masked(product, words, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    """``product [BM, BN]`` with -inf where the bit of the group's word is not set."""
    HALF: tl.constexpr = GROUP // 2
    pair = tl.reshape(tl.arange(0, HALF), [1, 1, HALF, 1, 1])
    one = tl.reshape(tl.arange(0, 2), [1, 1, 1, 1, 2])
    bits = tl.reshape(words, [BM, BN // (4 * GROUP), 1, 4, 1]) >> (2 * pair + one)
    return tl.where(tl.reshape(bits & 1, [BM, BN]) != 0, product, float("-inf"))


@triton.jit
def _maxima(product, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    """The greatest number of each group: ``[BM, BN]`` -> ``[BM, BN / GROUP]``."""
    members = tl.reshape(product, [BM, BN // (4 * GROUP), GROUP // 2, 4, 2])
    best = tl.max(tl.max(members, axis=4), axis=2)
    return tl.reshape(best, [BM, BN // GROUP])


@triton.jit(do_not_specialize=["n_words", "n_turns", "n_blocks"])
def group_maxima(
    queries, tools, maxima, allowed, flags, group_class, group_valid, classes,
    n_words, n_turns, n_blocks,
    D: tl.constexpr, GROUP: tl.constexpr, IDENTITY: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program a tile: product, gate, maximum of each group; forbidden tiles are not read."""
    n_groups = n_blocks * (TILE // GROUP)
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    batches = tl.cdiv(n_turns, BM)
    tile, first = tl.program_id(0) // batches, tl.program_id(0) % batches * BM
    GROUPS: tl.constexpr = BN // GROUP
    turn, group = first + tl.arange(0, BM), tile * GROUPS + tl.arange(0, GROUPS)
    in_batch, flag = turn < n_turns, tl.load(flags + tile)
    words = _gate_words(
        allowed, n_words, turn, in_batch, group, flag, group_class, group_valid, classes,
        GROUP, IDENTITY,
    )  # fmt: skip
    out = maxima + turn.to(tl.int64)[:, None] * n_groups + group[None, :]
    if tl.max(tl.max((words != 0).to(tl.int32), axis=1), axis=0) != 0:
        product = tl.zeros((BM, BN), dtype=tl.float32)
        for d in range(0, D, BK):
            left, right = queries.load([first, d]), tools.load([tile * BN, d])
            product = tl.dot(left, right.T, product)
        if flag > 0:
            product = _masked(product, words, BM, BN, GROUP)
        best = tl.where(words != 0, _maxima(product, BM, BN, GROUP), float("-inf"))
        tl.store(out, best, mask=in_batch[:, None])
    else:
        nothing = tl.full((BM, GROUPS), float("-inf"), tl.float32)
        tl.store(out, nothing, mask=in_batch[:, None])
