# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The operations of a BERT over packed texts, each one Triton launch.

Packed means without padding: the tokens of B texts lie end to end, T in all, and text b has
the rows ``starts[b]`` to ``starts[b + 1]``. Every sum is in float32, whatever the operands are.
With ``TRITON_INTERPRET=1`` the kernels run on CPU tensors, slowly; so tests need no GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Up to so many rows a product is bound by reading its weights and by its launch: small tiles
# spread the weights over more multiprocessors than cuBLAS does.
_FEW_ROWS = 128
# All keys of a text are one block up to this length; beyond, a loop over blocks of them.
_SHORT = 128
_KEYS_PER_BLOCK = 64


def embed(
    ids: Tensor,
    starts: Tensor,
    tables: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    out: Tensor,
    *,
    eps: float,
    longest: int,
) -> None:
    """``out [T, D] = norm(words[ids] + positions[place in its text])``.

    ``ids`` int32 ``[T]``, ``starts`` int32 ``[B + 1]``; no text has over ``longest`` tokens.
    """
    dim, rows = out.shape[1], 4
    grid = (starts.shape[0] - 1, triton.cdiv(longest, rows))
    _embed[grid](
        ids, starts, *tables, *norm, out, eps,
        DIM=dim, COLUMNS=triton.next_power_of_2(dim), ROWS=rows, num_warps=4,
    )  # fmt: skip


def linear(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, *, gelu: bool = False) -> None:
    """``out [T, N] = x [T, K] @ weight [N, K].T + bias [N]``, then GELU if asked.

    K and N are multiples of 16. For more than 128 rows in half precision cuBLAS does it all; its
    GELU is the tanh form, which is within 5e-4 of the exact one.
    """
    rows, half = x.shape[0], x.element_size() == 2
    if half and rows > _FEW_ROWS:
        if gelu:
            torch._addmm_activation(bias, x, weight.t(), use_gelu=True, out=out)
        else:
            torch.addmm(bias, x, weight.t(), out=out)
        return
    m, n, k, warps, stages = _tile(rows) if half else (32, 32, 32, 4, 2)
    grid = (triton.cdiv(out.shape[1], n), triton.cdiv(rows, m))
    _linear[grid](
        x, weight, bias, out, rows, N=out.shape[1], K=x.shape[1], GELU=gelu,
        BLOCK_M=m, BLOCK_N=n, BLOCK_K=k, num_warps=warps, num_stages=stages,
    )  # fmt: skip


def add_norm(x: Tensor, y: Tensor, norm: tuple[Tensor, Tensor], out: Tensor, *, eps: float) -> None:
    """``out [T, D] = norm(x + y)``; ``out`` may be ``x``."""
    (total, dim), rows = x.shape, 4
    grid = (triton.cdiv(total, rows),)
    _add_norm[grid](
        x, y, *norm, out, total, eps,
        DIM=dim, COLUMNS=triton.next_power_of_2(dim), ROWS=rows, num_warps=4,
    )  # fmt: skip


def attention(qkv: Tensor, starts: Tensor, out: Tensor, *, heads: int, longest: int) -> None:
    """``out [T, D]``: for each text and head ``softmax(q k^T) v``.

    ``qkv [T, 3 D]`` holds q, k and v side by side. q is scaled by ``log2(e) / sqrt(D / heads)``
    already, so that the shares are powers of two.
    """
    dim, texts = out.shape[1], starts.shape[0] - 1
    sizes = {"DIM": dim, "WIDTH": dim // heads}
    if longest <= _SHORT:
        block = max(16, triton.next_power_of_2(longest))
        group = 2 if block == 64 and heads % 2 == 0 else 1
        _attention_short[(texts, heads // group)](
            qkv, starts, out, **sizes, BLOCK=block, HEADS=group, num_warps=block // 16
        )
    else:
        _attention[(texts, heads, triton.cdiv(longest, _KEYS_PER_BLOCK))](
            qkv, starts, out, **sizes, BLOCK=_KEYS_PER_BLOCK, num_warps=4, num_stages=1
        )


def pool(x: Tensor, starts: Tensor, out: Tensor, *, mean: bool) -> None:
    """``out [B, D]`` float32: the mean of each text's rows, or its first row, at length 1.

    A text without rows gives zeros.
    """
    dim = out.shape[1]
    _pool[(starts.shape[0] - 1,)](
        x, starts, out, DIM=dim, COLUMNS=triton.next_power_of_2(dim), ROWS=16, MEAN=mean,
        num_warps=4,
    )  # fmt: skip


def _tile(rows: int) -> tuple[int, int, int, int, int]:
    """Tile in rows, columns and depth, warps and stages, for a product of few rows."""
    if rows <= 16:
        return 16, 16, 128, 2, 4
    return (32, 16, 128, 2, 4) if rows <= 32 else (64, 32, 128, 4, 3)


@triton.jit
def _norm(x, valid, weight, bias, columns, eps, DIM: tl.constexpr):
    """Layer norm of the rows of x ``[ROWS, COLUMNS]``, of which DIM columns count."""
    mean = tl.sum(x, 1) / DIM
    centred = tl.where(valid, x - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / DIM + eps)
    gain = tl.load(weight + columns, mask=columns < DIM, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=columns < DIM, other=0.0).to(tl.float32)
    return centred * scale[:, None] * gain[None, :] + shift[None, :]


@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _embed(
    ids, starts, words, positions, weight, bias, out, eps,
    DIM: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    text = tl.program_id(0)
    place = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    rows = tl.load(starts + text) + place
    live = rows < tl.load(starts + text + 1)
    columns = tl.arange(0, COLUMNS)
    valid = live[:, None] & (columns < DIM)[None, :]
    word = tl.load(ids + rows, mask=live, other=0)
    x = tl.load(words + word[:, None] * DIM + columns[None, :], mask=valid, other=0.0)
    at = tl.load(positions + place[:, None] * DIM + columns[None, :], mask=valid, other=0.0)
    x = _norm(x.to(tl.float32) + at.to(tl.float32), valid, weight, bias, columns, eps, DIM)
    spot = out + rows[:, None] * DIM + columns[None, :]
    tl.store(spot, x.to(out.dtype.element_ty), mask=valid)


@triton.jit
def _add_norm(
    x, y, weight, bias, out, total, eps,
    DIM: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    valid = (rows < total)[:, None] & (columns < DIM)[None, :]
    at = rows[:, None] * DIM + columns[None, :]
    a = tl.load(x + at, mask=valid, other=0.0).to(tl.float32)
    b = tl.load(y + at, mask=valid, other=0.0).to(tl.float32)
    normed = _norm(a + b, valid, weight, bias, columns, eps, DIM)
    tl.store(out + at, normed.to(out.dtype.element_ty), mask=valid)


@triton.jit
def _linear(
    x, weight, bias, out, total,
    N: tl.constexpr, K: tl.constexpr, GELU: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    a_at = x + rows[:, None] * K + depth[None, :]
    b_at = weight + columns[None, :] * K + depth[:, None]
    total_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, K, BLOCK_K):
        here = depth + k < K
        a = tl.load(a_at + k, mask=(rows < total)[:, None] & here[None, :], other=0.0)
        b = tl.load(b_at + k, mask=(columns < N)[None, :] & here[:, None], other=0.0)
        total_sum = tl.dot(a, b, total_sum, input_precision="ieee")
    y = total_sum + tl.load(bias + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]
    if GELU:
        y = _gelu(y)
    valid = (rows < total)[:, None] & (columns < N)[None, :]
    tl.store(out + rows[:, None] * N + columns[None, :], y.to(out.dtype.element_ty), mask=valid)


@triton.jit
def _attention_short(
    qkv, starts, out,
    DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Some heads of one text, whose tokens are one block."""
    first = tl.load(starts + tl.program_id(0))
    stop = tl.load(starts + tl.program_id(0) + 1)
    rows = first + tl.arange(0, BLOCK)
    live = (rows < stop)[:, None]
    if first < stop:
        for turn in tl.static_range(HEADS):
            head = (tl.program_id(1) * HEADS + turn) * WIDTH + tl.arange(0, WIDTH)
            at = qkv + rows[:, None] * (3 * DIM) + head[None, :]
            q = tl.load(at, mask=live, other=0.0)
            k = tl.load(at + DIM, mask=live, other=0.0)
            v = tl.load(at + 2 * DIM, mask=live, other=0.0)
            scores = tl.dot(q, k.T, input_precision="ieee")
            scores = tl.where((rows < stop)[None, :], scores, float("-inf"))
            p = tl.exp2(scores - tl.max(scores, 1)[:, None])
            mixed = tl.dot(p.to(v.dtype), v, input_precision="ieee") / tl.sum(p, 1)[:, None]
            spot = out + rows[:, None] * DIM + head[None, :]
            tl.store(spot, mixed.to(out.dtype.element_ty), mask=live)


@triton.jit
def _attention(
    qkv, starts, out, DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """One block of queries of one text and head, over all its keys, in one pass."""
    first = tl.load(starts + tl.program_id(0))
    stop = tl.load(starts + tl.program_id(0) + 1)
    first_query = first + tl.program_id(2) * BLOCK
    if first_query < stop:
        wide = tl.arange(0, WIDTH)
        head = tl.program_id(1) * WIDTH + wide
        rows = first_query + tl.arange(0, BLOCK)
        live = (rows < stop)[:, None]
        q = tl.load(qkv + rows[:, None] * (3 * DIM) + head[None, :], mask=live, other=0.0)
        best = tl.full((BLOCK,), float("-inf"), tl.float32)
        share = tl.zeros((BLOCK,), tl.float32)
        mixed = tl.zeros((BLOCK, WIDTH), tl.float32)
        start = first
        while start < stop:
            keys = start + tl.arange(0, BLOCK)
            there = (keys < stop)[:, None]
            at = qkv + keys[:, None] * (3 * DIM) + head[None, :]
            k = tl.load(at + DIM, mask=there, other=0.0)
            v = tl.load(at + 2 * DIM, mask=there, other=0.0)
            scores = tl.dot(q, k.T, input_precision="ieee")
            scores = tl.where((keys < stop)[None, :], scores, float("-inf"))
            higher = tl.maximum(best, tl.max(scores, 1))
            p = tl.exp2(scores - higher[:, None])
            fade = tl.exp2(best - higher)
            share = share * fade + tl.sum(p, 1)
            mixed = tl.dot(p.to(v.dtype), v, mixed * fade[:, None], input_precision="ieee")
            best = higher
            start += BLOCK
        mixed = mixed / share[:, None]
        spot = out + rows[:, None] * DIM + head[None, :]
        tl.store(spot, mixed.to(out.dtype.element_ty), mask=live)


@triton.jit
def _pool(
    x, starts, out,
    DIM: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    """The sum serves as the mean: the scale goes with the length."""
    text = tl.program_id(0)
    first = tl.load(starts + text)
    stop = tl.load(starts + text + 1)
    if not MEAN:
        stop = tl.minimum(stop, first + 1)
    columns = tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), tl.float32)
    start = first
    while start < stop:
        rows = start + tl.arange(0, ROWS)
        valid = (rows < stop)[:, None] & (columns < DIM)[None, :]
        part = tl.load(x + rows[:, None] * DIM + columns[None, :], mask=valid, other=0.0)
        total += tl.sum(part.to(tl.float32), 0)
        start += ROWS
    # An empty text's zeros stay zeros.
    unit = total / tl.maximum(tl.sqrt(tl.sum(total * total, 0)), 1e-30)
    tl.store(out + text * DIM + columns, unit, mask=columns < DIM)
