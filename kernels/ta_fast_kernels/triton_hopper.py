# mypy: ignore-errors
# Gluon, Triton's lower level, compiles these functions: they name their warps and layouts.
"""Stage one for Hopper GPUs and large batches: the queries stay in registers.

Does the work of ``pure_tiles`` and ``shared_tiles``, and writes the same words and tops. A program
has a block of 128 turns. Two warpgroups hold 64 of them each as the left operand of the matrix
unit; one warp copies the tools' vectors, 64 dimensions at a time, into a ring in shared memory.
While one warpgroup gates a tile and finds its maxima, the other multiplies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from ta_fast_kernels.triton_kernels import (
    LOWEST,
    TILE,
    _emit,
    _group_gate,
    _seam,
    _tiles_to_see,
    _tool_gate,
)

if TYPE_CHECKING:
    import torch

    from ta_fast_kernels.triton_topk import GroupSearch

MOST_DIMS = 384
"""A query of so many dimensions takes 96 of a thread's registers."""
REGISTERS = 168
"""Of each thread at first; at work those of the two warpgroups have 240, the copying one 24."""
HALF = gl.constexpr(64)
"""Turns of a warpgroup."""
BLOCK = gl.constexpr(128)
DIMS = gl.constexpr(64)
"""Dimensions of a copy: 128 bytes a row."""
COPY = gl.constexpr(128 * 64 * 2)
"""Bytes of a copy."""
RING = gl.constexpr(12)
"""Copies that the ring has room for: 197 kB."""
SWIZZLED = gl.NVMMASharedLayout(128, 16, 2)
PRODUCT = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16]))
LEFT = gl.constexpr(gl.DotOperandLayout(0, PRODUCT.value, 2))


@gluon.constexpr_function
def _of_groups(groups):
    """Where the matrix unit leaves ``[HALF, groups]``: a group belongs to one lane of four."""
    registers = [[8, 0]] + [[0, 1 << i] for i in range(2, groups.bit_length() - 1)]
    lanes = [[0, 1], [0, 2], [1, 0], [2, 0], [4, 0]]
    return gl.DistributedLinearLayout(registers, lanes, [[16, 0], [32, 0]], [], [64, groups])


@gluon.jit
def _place(i, ring, STEPS: gl.constexpr):
    """The first slot of tile i, and the phase of its barriers. The queries came before it."""
    DEPTH: gl.constexpr = ring.type.shape[0] // STEPS
    return (i + 1) % DEPTH * STEPS, (i + 1) // DEPTH % 2


@gluon.jit
def _tile(todo, i, start, step, LISTED: gl.constexpr):
    tile = start + i * step
    if LISTED:
        tile = gl.load(todo + i)
    return tile


@gluon.jit
def _copy(pipe, tools, todo, start, step, count, STEPS: gl.constexpr, LISTED: gl.constexpr):
    """The one warp that copies the program's tiles."""
    ring, full, empty, _ = pipe
    for i in range(count):
        row = _tile(todo, i, start, step, LISTED) * TILE
        slot, phase = _place(i, ring, STEPS)
        for d in gl.static_range(STEPS):
            ready = full.index(slot + d)
            mbarrier.wait(empty.index(slot + d), phase ^ 1)
            mbarrier.expect(ready, COPY)
            tma.async_copy_global_to_shared(tools, [row, d * DIMS], ready, ring.index(slot + d))


@gluon.jit
def _masked(product, words, members, GROUP: gl.constexpr):
    """`_masked` of ``triton_kernels``, in the layouts that move nothing between threads."""
    shape: gl.constexpr = [HALF, TILE // (4 * GROUP), GROUP // 2, 4, 2]
    one_by_one = gl.reshape(product, shape)
    where: gl.constexpr = one_by_one.type.layout
    blocks: gl.constexpr = gl.SliceLayout(2, gl.SliceLayout(4, where))
    bits = gl.convert_layout(gl.reshape(words, [shape[0], shape[1], 4]), blocks, True)
    bits = gl.expand_dims(gl.expand_dims(bits, 2), 4) >> gl.reshape(members, [1, 1, shape[2], 1, 2])
    masked = gl.where((bits & 1) != 0, one_by_one, LOWEST)
    return gl.convert_layout(gl.reshape(masked, [HALF, TILE]), PRODUCT, True)


@gluon.jit
def _multiply(
    pipe, out, gate, todo, first, start, step, count, half: gl.constexpr, STEPS: gl.constexpr,
    GROUP: gl.constexpr, PART: gl.constexpr, LISTED: gl.constexpr, IDENTITY: gl.constexpr,
):  # fmt: skip
    """A warpgroup: its 64 queries against every tile of the program.

    Tiles of large classes are ``LISTED`` and gated by ``seams``, the others by ``valid`` and
    ``classes``; what a kind does not need may be any pointer.
    """
    ring, full, empty, turns = pipe
    allowed, seams, valid, classes, n_words, n_turns = gate
    of_groups: gl.constexpr = _of_groups(TILE // GROUP)
    turn = first + half * HALF + gl.arange(0, HALF, gl.SliceLayout(1, of_groups))
    group = gl.arange(0, TILE // GROUP, gl.SliceLayout(0, of_groups))
    parts, members = gl.arange(0, GROUP // PART), gl.arange(0, GROUP)
    here = turn < n_turns
    left = ()
    for d in gl.static_range(STEPS):
        mbarrier.wait(full.index(d), 0)
        left = left + (ring.index(d).slice(half * HALF, HALF).load(LEFT),)  # noqa: RUF005
        fence_async_shared()
        mbarrier.arrive(empty.index(d))
    for i in range(count):
        tile = _tile(todo, i, start, step, LISTED)
        slot, phase = _place(i, ring, STEPS)
        if LISTED:
            low, high, until = _seam(seams + tile * 4)
            may = _group_gate(allowed, n_words, turn, here, low, high, until, group)
        else:
            bits = _tool_gate(
                allowed, n_words, turn, here, tile, valid, classes, group, GROUP, IDENTITY
            )
            may = bits != 0
        product = gl.zeros([HALF, TILE], gl.float32, PRODUCT)
        mbarrier.wait(turns.index(half), (i + 1 + half) % 2)
        for d in gl.static_range(STEPS):
            mbarrier.wait(full.index(slot + d), phase)
            right = ring.index(slot + d).permute((1, 0))
            product = warpgroup_mma(left[d], right, product, use_acc=d > 0, is_async=True)
            if d > 0:
                product = warpgroup_mma_wait(1, (product,))
                mbarrier.arrive(empty.index(slot + d - 1))
        mbarrier.arrive(turns.index(1 - half))
        product = warpgroup_mma_wait(0, (product,))
        mbarrier.arrive(empty.index(slot + STEPS - 1))
        if not LISTED:
            product = _masked(product, bits, members, GROUP)
        _emit(out, product, may, turn, here, tile, n_turns, group, parts, HALF, GROUP, PART)


@gluon.jit
def _start(queries, tools, n_turns, n_tiles, STEPS: gl.constexpr):
    """What every program begins with: the ring, its queries on their way into the first slots.

    Also the first turn of its block, and its tiles: ``start``, ``start + step``, ... below
    ``n_tiles``.
    """
    tl.extra.cuda.gdc_launch_dependents()
    batches = gl.cdiv(n_turns, BLOCK)
    program, step = gl.program_id(0), gl.num_programs(0) // batches
    first = program % batches * BLOCK
    SLOTS: gl.constexpr = RING // STEPS * STEPS
    ring = gl.allocate_shared_memory(tools.dtype, [SLOTS, TILE, DIMS], tools.layout)
    full = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    turns = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for d in gl.static_range(SLOTS):
        mbarrier.init(full.index(d), 1)
        mbarrier.init(empty.index(d), 2)
    for half in gl.static_range(2):
        mbarrier.init(turns.index(half), 1)
    for d in gl.static_range(STEPS):
        mbarrier.expect(full.index(d), COPY)
        tma.async_copy_global_to_shared(queries, [first, d * DIMS], full.index(d), ring.index(d))
    start = gl.where(program < step * batches, program // batches, n_tiles)  # or nothing to do
    return (ring, full, empty, turns), first, start, step


@gluon.jit
def _work(
    pipe, tools, out, gate, todo, first, start, step, count, STEPS: gl.constexpr,
    GROUP: gl.constexpr, PART: gl.constexpr, LISTED: gl.constexpr, IDENTITY: gl.constexpr,
):  # fmt: skip
    """Two warpgroups that multiply, and a warp that copies."""
    gl.warp_specialize(
        [
            (_multiply, (pipe, out, gate, todo, first, start, step, count, 0, STEPS, GROUP, PART, LISTED, IDENTITY)),  # noqa: E501
            (_multiply, (pipe, out, gate, todo, first, start, step, count, 1, STEPS, GROUP, PART, LISTED, IDENTITY)),  # noqa: E501
            (_copy, (pipe, tools, todo, start, step, count, STEPS, LISTED)),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip


@gluon.jit(do_not_specialize=["n_words", "n_used", "n_turns", "n_tiles"])
def pure_tiles_on_hopper(
    queries, tools, words, tops, allowed, seams, used, todo, union,
    n_words, n_used, n_turns, n_tiles,
    STEPS: gl.constexpr, GROUP: gl.constexpr, PART: gl.constexpr, EVERY: gl.constexpr,
):  # fmt: skip
    """``pure_tiles``, for blocks of 128 turns."""
    pipe, first, start, step = _start(queries, tools, n_turns, n_tiles, STEPS)
    program = gl.program_id(0)
    todo += program.to(gl.int64) * gl.cdiv(n_tiles, step)
    union += program.to(gl.int64) * n_words
    flat: gl.constexpr = gl.BlockedLayout([1, 4], [32, 1], [4, 1], [1, 0])
    turn = first + gl.arange(0, BLOCK, gl.SliceLayout(1, flat))
    column = gl.arange(0, 4, gl.SliceLayout(0, flat))
    lane = gl.arange(0, 64, gl.BlockedLayout([1], [32], [4], [0]))
    count = _tiles_to_see(
        todo, union, used, words, tops, allowed, seams, n_words, n_used, n_turns, n_tiles,
        start, step, turn, column, lane, GROUP, EVERY,
    )  # fmt: skip
    out, gate = (words, tops), (allowed, seams, seams, seams, n_words, n_turns)
    _work(pipe, tools, out, gate, todo, first, start, step, count, STEPS, GROUP, PART, True, False)


@gluon.jit(do_not_specialize=["n_words", "n_turns", "n_tiles", "n_pure"])
def shared_tiles_on_hopper(
    queries, tools, words, tops, allowed, valid, classes, n_words, n_turns, n_tiles, n_pure,
    STEPS: gl.constexpr, GROUP: gl.constexpr, PART: gl.constexpr, IDENTITY: gl.constexpr,
):  # fmt: skip
    """``shared_tiles``, for blocks of 128 turns."""
    pipe, first, start, step = _start(queries, tools, n_turns, n_tiles, STEPS)
    start += n_pure
    count = gl.maximum(n_tiles - start + step - 1, 0) // step
    out, gate = (words, tops), (allowed, classes, valid, classes, n_words, n_turns)
    _work(pipe, tools, out, gate, classes, first, start, step, count, STEPS, GROUP, PART, False, IDENTITY)  # fmt: skip # noqa: E501


def serves(turns: int, dim: int) -> bool:
    """Are these kernels for so many turns and dimensions?"""
    return turns > HALF.value and dim % DIMS.value == 0 and dim <= MOST_DIMS


def find_maxima(
    search: GroupSearch, queries: torch.Tensor, allowed: torch.Tensor, memory: Any, part: int
) -> None:
    """Stage one of ``search``, for ``queries [B, D]`` that these kernels serve."""
    turns, dim = queries.shape
    left, right = (
        TensorDescriptor(rows, list(rows.shape), [dim, 1], [128, 64], SWIZZLED)
        for rows in (queries, search.tools)
    )
    operands = left, right, memory["words"], memory["tops"], allowed
    how = {"STEPS": dim // 64, "GROUP": search.group, "PART": part, "maxnreg": REGISTERS}
    if search.n_pure:
        pure_tiles_on_hopper[(search.processors,)](
            *operands, search.seams, search.used, memory["todo"], memory["union"],
            search.n_words, len(search.used), turns, search.n_pure, EVERY=search.few_groups, **how,
        )  # fmt: skip
    if search.n_tiles > search.n_pure:
        shared_tiles_on_hopper[(search.processors,)](
            *operands, search.group_valid, search.classes,
            search.n_words, turns, search.n_tiles, search.n_pure, IDENTITY=search.identity, **how,
        )  # fmt: skip
