# mypy: ignore-errors
# Triton compiles these functions; their arguments are pointers, block sizes and scalars.
"""The first kernels of the Triton path: group maxima. Why it is exact: kernels/README.md.

A *group* is ``GROUP`` tools that share one maximum. Four groups lie interleaved in a block
of ``4 * GROUP`` stored positions, two neighbours of one group, two of the next, ..., so that
in the matrix unit's output one thread holds a whole group and no shuffle is needed.

``words`` is int32 ``[tiles, turns, groups of a tile]``. A word's upper half is the group's
maximum in bfloat16; its lower half, in which part of the group it is, and how far the other
parts are below (the first bits of that float). ``tops`` is bfloat16
``[tiles / 16, turns, 16]``, the greatest of each tile. What one turn's search reads together
lies together.
"""

from __future__ import annotations

import triton
import triton.language as tl

TILE = tl.constexpr(128)
TOPS = tl.constexpr(16)
NEVER = tl.constexpr(float("-inf"))
NEVER_WORD = tl.constexpr(-(1 << 23))  # minus infinity in bfloat16, and zeros
LOWEST = tl.constexpr(-3.3e38)


@triton.jit
def _bit(word, i):
    return (word >> (i % 32)) & 1


@triton.jit
def _seam(at):
    return tl.load(at), tl.load(at + 1), tl.load(at + 2)


@triton.jit
def _group_gate(allowed, n_words, turn, here, low, high, until, group):
    """May the turn use the group? ``[turns, groups]`` of a tile of large classes."""
    row = allowed + turn.to(tl.int64) * n_words
    first = _bit(tl.load(row + low // 32, mask=here & (low >= 0), other=0), low)
    second = _bit(tl.load(row + high // 32, mask=here & (high >= 0), other=0), high)
    return tl.where((group < until)[None, :], first[:, None], second[:, None]) != 0


@triton.jit
def _tool_gate(
    allowed, n_words, turn, here, tile, valid, classes, group,
    GROUP: tl.constexpr, IDENTITY: tl.constexpr,
):  # fmt: skip
    """Bits ``[turns, groups]``: bit i says whether the turn may use member i of the group."""
    group += tile * (TILE // GROUP)
    base, present = allowed + turn.to(tl.int64)[:, None] * n_words, here[:, None]
    if IDENTITY:
        first = group * GROUP
        known = present & (first // 32 < n_words)[None, :]
        words = tl.load(base + (first // 32)[None, :], mask=known, other=0) >> (first % 32)[None, :]
    else:
        words = (turn[:, None] + group[None, :]) * 0
        for i in range(GROUP):
            member = tl.maximum(tl.load(classes + _position(group, i, GROUP)), 0)
            word = tl.load(base + (member // 32)[None, :], mask=present, other=0)
            words |= _bit(word, member[None, :]) << i
    return words & tl.load(valid + group)[None, :]


@triton.jit
def _position(group, member, GROUP):
    """Where member i of a group is stored."""
    return group // 4 * (4 * GROUP) + member // 2 * 8 + group % 4 * 2 + member % 2


@triton.jit
def _masked(product, words, members, BM: tl.constexpr, GROUP: tl.constexpr):
    """``product [BM, TILE]``, very low where the bit of the group's word is not set."""
    member = tl.reshape(members, [1, 1, GROUP // 2, 1, 2])
    bits = tl.reshape(words, [BM, TILE // (4 * GROUP), 1, 4, 1]) >> member
    return tl.where(tl.reshape(bits & 1, [BM, TILE]) != 0, product, LOWEST)


@triton.jit
def _numbers(GROUP: tl.constexpr, PART: tl.constexpr):
    """The groups of a tile, what ``_two_best`` numbers parts by, and the members of a group."""
    parts = tl.arange(0, TILE if PART == 1 else GROUP // PART)
    return tl.arange(0, TILE // GROUP), parts, tl.arange(0, GROUP)


@triton.jit
def _two_best(product, parts, BM: tl.constexpr, GROUP: tl.constexpr, PART: tl.constexpr):
    """The greatest of each group, and of its other parts: ``[BM, TILE / GROUP]`` each.

    A part is ``PART`` neighbours (1, 2 or 4). The last bits of the greatest say in which it is.
    """
    BLOCKS: tl.constexpr = TILE // (4 * GROUP)
    PARTS: tl.constexpr = GROUP // PART
    if PART == 1:
        part = parts % (4 * GROUP) // 8 * 2 + parts % 2
        marked = (product.to(tl.int32, bitcast=True) & -PARTS) | part[None, :]
        pairs = tl.reshape(marked.to(tl.float32, bitcast=True), [BM, BLOCKS, GROUP // 2, 4, 2])
        first, second = tl.max(pairs, axis=4), tl.min(pairs, axis=4)
    else:
        best = tl.max(tl.reshape(product, [BM, BLOCKS, GROUP // 2, 4, 2]), axis=4)
        if PART == 4:
            best = tl.max(tl.reshape(best, [BM, BLOCKS, PARTS, 2, 4]), axis=3)
        part = tl.reshape(parts, [1, 1, PARTS, 1])
        marked = (best.to(tl.int32, bitcast=True) & -PARTS) | part
        pairs = tl.reshape(marked.to(tl.float32, bitcast=True), [BM, BLOCKS, PARTS // 2, 2, 4])
        first, second = tl.max(pairs, axis=3), tl.min(pairs, axis=3)
    for i in tl.static_range(PARTS.bit_length() - 2):
        first = tl.reshape(first, [BM, BLOCKS, PARTS >> (i + 2), 2, 4])
        second = tl.max(tl.reshape(second, [BM, BLOCKS, PARTS >> (i + 2), 2, 4]), axis=3)
        second = tl.maximum(second, tl.min(first, axis=3))
        first = tl.max(first, axis=3)
    return tl.reshape(first, [BM, TILE // GROUP]), tl.reshape(second, [BM, TILE // GROUP])


@triton.jit
def _words(first, second, PARTS: tl.constexpr):
    """Maximum, gap and part in 32 bits. The gap is rounded down."""
    BITS: tl.constexpr = 16 - PARTS.bit_length() + 1  # of the gap
    greatest = first.to(tl.bfloat16).to(tl.int16, bitcast=True).to(tl.int32) << 16
    gap = (first - second).to(tl.int32, bitcast=True) >> (31 - BITS)
    return greatest | (gap * PARTS) | (first.to(tl.int32, bitcast=True) & (PARTS - 1))


@triton.jit
def _emit(
    out, product, may, turn, here, tile, n_turns, group, parts,
    BM: tl.constexpr, GROUP: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Write the words ``[turns, groups]`` of a tile, and the greatest of each turn."""
    words, tops = out
    first, second = _two_best(product, parts, BM, GROUP, PART)
    row = (tile.to(tl.int64) * n_turns + turn) * (TILE // GROUP)
    word = tl.where(may, _words(first, second, GROUP // PART), NEVER_WORD)
    tl.store(words + row[:, None] + group[None, :], word, mask=here[:, None])
    top = tl.max(tl.where(may, first, NEVER), axis=1)
    tl.store(tops + _top(turn, tile, n_turns), top.to(tl.bfloat16), mask=here)


@triton.jit
def _top(turn, tile, n_turns):
    return ((tile // TOPS).to(tl.int64) * n_turns + turn) * TOPS + tile % TOPS


@triton.jit(do_not_specialize=["n_words", "n_turns", "n_tiles", "n_pure"])
def few_tiles(
    rows, queries, tools, words, tops, allowed, seams, valid, classes,
    n_words, n_turns, n_tiles, n_pure,
    D: tl.constexpr, GROUP: tl.constexpr, PART: tl.constexpr, IDENTITY: tl.constexpr,
    SHARED: tl.constexpr, SHORT: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """One program a tile, tiles of both kinds: for where all programs fit the device at once.

    ``queries`` copies tiles of ``rows``. ``SHORT``: a tile has more rows than there are, where a
    copy is slower than a load.
    """
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    tile, first = tl.program_id(0) % n_tiles, tl.program_id(0) // n_tiles * BM
    turn = first + tl.arange(0, BM)
    here = turn < n_turns
    out = words, tops
    group, parts, members = _numbers(GROUP, PART)
    product = tl.zeros((BM, TILE), dtype=tl.float32)
    row = rows + turn.to(tl.int64)[:, None] * D
    for d in range(0, D, BK):
        if SHORT:
            at = d + tl.arange(0, BK)[None, :]
            left = tl.load(row + at, mask=here[:, None] & (at < D), other=0.0)
        else:
            left = queries.load([first, d])
        product = tl.dot(left, tools.load([tile * TILE, d]).T, product)
    if SHARED and tile >= n_pure:
        bits = _tool_gate(
            allowed, n_words, turn, here, tile, valid, classes, group, GROUP, IDENTITY
        )
        product = _masked(product, bits, members, BM, GROUP)
        _emit(out, product, bits != 0, turn, here, tile, n_turns, group, parts, BM, GROUP, PART)
    else:
        low, high, until = _seam(seams + tile * 4)
        may = _group_gate(allowed, n_words, turn, here, low, high, until, group)
        _emit(out, product, may, turn, here, tile, n_turns, group, parts, BM, GROUP, PART)


@triton.jit
def _tiles_to_see(
    todo, union, used, words, tops, allowed, seams, n_words, n_used, n_turns, n_tiles, start, step,
    turn, column, lane, GROUP: tl.constexpr, EVERY: tl.constexpr,
):  # fmt: skip
    """List the tiles ``start, start + step, ...`` that some turn may see; how many they are.

    The others are listed from the other end. They get the top -inf, so that nobody opens them,
    and, if the search looks at ``EVERY`` word, such words.
    """
    here = turn < n_turns
    row = (allowed + turn.to(tl.int64) * n_words)[:, None]
    for i in range(0, n_used, column.shape[0]):
        some = i + column < n_used
        word = tl.load(used + i + column, mask=some, other=0)
        bits = tl.load(row + word[None, :], mask=here[:, None] & some[None, :], other=0)
        tl.store(union + word, tl.reduce(bits, 0, _either), mask=some)
    tl.debug_barrier()
    count = step * 0
    end = tl.cdiv(n_tiles, step)
    for at in range(start, n_tiles, step * lane.shape[0]):
        tile = at + lane * step
        real = tile < n_tiles
        low = tl.load(seams + tile * 4, mask=real, other=-1)
        high = tl.load(seams + tile * 4 + 1, mask=real, other=-1)
        seen = _bit(tl.load(union + low // 32, mask=low >= 0, other=0), low)
        seen |= _bit(tl.load(union + high // 32, mask=high >= 0, other=0), high)
        tl.store(todo + count + tl.cumsum(seen, axis=0) - 1, tile, mask=seen != 0)
        count += tl.sum(seen, axis=0)
        unseen = (real & (seen == 0)).to(tl.int32)
        tl.store(todo + end - tl.cumsum(unseen, axis=0), tile, mask=unseen != 0)
        end -= tl.sum(unseen, axis=0)
    tl.debug_barrier()
    for i in range(end, tl.cdiv(n_tiles, step)):
        tile = tl.load(todo + i)
        tl.store(tops + _top(turn, tile, n_turns), NEVER, mask=here)
        if EVERY:
            first = words + (tile.to(tl.int64) * n_turns + turn) * (TILE // GROUP)
            for part in range(0, TILE // GROUP, 4):
                four = first[:, None] + part + column[None, :]
                tl.store(four, NEVER_WORD, mask=here[:, None])
    return count


@triton.jit
def _either(a, b):
    return a | b


@triton.jit(do_not_specialize=["n_words", "n_used", "n_turns", "n_tiles"])
def pure_tiles(
    queries, tools, words, tops, allowed, seams, used, todo, union,
    n_words, n_used, n_turns, n_tiles,
    D: tl.constexpr, GROUP: tl.constexpr, PART: tl.constexpr, EVERY: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Tiles of large classes, each program several, for one block of turns."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    batches = tl.cdiv(n_turns, BM)
    program, step = tl.program_id(0), tl.num_programs(0) // batches
    first = program % batches * BM
    start = tl.where(program < step * batches, program // batches, n_tiles)  # or nothing to do
    todo += program.to(tl.int64) * tl.cdiv(n_tiles, step)
    union += program.to(tl.int64) * n_words
    turn = first + tl.arange(0, BM)
    here = turn < n_turns
    count = _tiles_to_see(
        todo, union, used, words, tops, allowed, seams, n_words, n_used, n_turns, n_tiles,
        start, step, turn, tl.arange(0, 4), tl.arange(0, 64), GROUP, EVERY,
    )  # fmt: skip
    out = words, tops
    group, parts, _ = _numbers(GROUP, PART)
    for i in tl.range(0, count, flatten=True):
        tile = tl.load(todo + i)
        product = tl.zeros((BM, TILE), dtype=tl.float32)
        for d in range(0, D, BK):
            product = tl.dot(queries.load([first, d]), tools.load([tile * TILE, d]).T, product)
        low, high, until = _seam(seams + tile * 4)
        may = _group_gate(allowed, n_words, turn, here, low, high, until, group)
        _emit(out, product, may, turn, here, tile, n_turns, group, parts, BM, GROUP, PART)


@triton.jit(do_not_specialize=["n_words", "n_turns", "n_tiles", "n_pure"])
def shared_tiles(
    queries, tools, words, tops, allowed, valid, classes, n_words, n_turns, n_tiles, n_pure,
    D: tl.constexpr, GROUP: tl.constexpr, PART: tl.constexpr, IDENTITY: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Tiles from ``n_pure`` on, of tools of any classes, each program several."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    batches = tl.cdiv(n_turns, BM)
    out = words, tops
    group, parts, members = _numbers(GROUP, PART)
    last = (n_tiles - n_pure) * batches
    for item in tl.range(tl.program_id(0), last, tl.num_programs(0), flatten=True):
        tile, first = n_pure + item // batches, item % batches * BM
        turn = first + tl.arange(0, BM)
        here = turn < n_turns
        product = tl.zeros((BM, TILE), dtype=tl.float32)
        for d in range(0, D, BK):
            product = tl.dot(queries.load([first, d]), tools.load([tile * TILE, d]).T, product)
        bits = _tool_gate(
            allowed, n_words, turn, here, tile, valid, classes, group, GROUP, IDENTITY
        )
        product = _masked(product, bits, members, BM, GROUP)
        _emit(out, product, bits != 0, turn, here, tile, n_turns, group, parts, BM, GROUP, PART)
