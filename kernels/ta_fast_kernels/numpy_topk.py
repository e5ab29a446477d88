"""Gated top-k on a CPU: one BLAS product, then an exact rescoring of the few best.

The product in float32 is only a sieve. Its error is bounded, so a cut below the k-th
best approximate score keeps every tool that can be among the k best; those few are
scored again in float64. The proof is in kernels/README.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ta_fast_kernels.matrix import norm_bounds
from ta_fast_kernels.reference import TopK, float64_products, rounded, unfilled
from ta_fast_kernels.terms import MAX_WEIGHT, UNIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ta_fast_kernels.matrix import ToolMatrix
    from ta_fast_kernels.terms import TermRows

BATCH = 128
"""Turns multiplied at once."""
FEW = 4096
"""Tools up to which one turn has a path of its own."""
FEW_CLASSES = 64
"""Gate classes up to which it has."""
BLOCK = 1 << 20
"""Approximate scores held at once (4 MB)."""
PAIRS = 1024
"""Pairs rescored at once: bounds the memory when many tools score the same."""
GAP = 512
"""Denied rows between two allowed ones that are worth a second product."""
GROUP = 32
"""Most rows that share one maximum."""
DENIED = np.float32(-3e38)
"""Added to the approximate score of a denied tool; all others stay within 1e36."""
LEAST = np.float32(-1e38)
"""Below every approximate score, above every denied one."""


def gated_topk(
    queries: NDArray[np.float32],
    matrix: ToolMatrix,
    allowed: NDArray[np.uint32],
    k: int,
    threshold: NDArray[np.float32],
    terms: TermRows | None = None,
) -> TopK:
    """``reference.gated_topk`` on a ``ToolMatrix``; the arguments are taken as valid."""
    if len(queries) == 1 and 0 < len(matrix) <= FEW and matrix.n_classes <= FEW_CLASSES:
        return _search_one(queries[0], matrix, allowed[0].tolist(), float(threshold[0]), k, terms)
    best = unfilled(len(queries), k)
    k = min(k, len(matrix))
    for first in range(0, len(queries) if k else 0, BATCH):
        turns = slice(first, first + BATCH)
        part = TopK(best.scores[turns, :k], best.rows[turns, :k])
        mine = None if terms is None else terms.part(first, min(first + BATCH, len(queries)))
        _search(queries[turns], matrix, allowed[turns], threshold[turns], part, mine)
    return best


def _search_one(
    query: NDArray[np.float32],
    matrix: ToolMatrix,
    allowed: list[int],
    threshold: float,
    k: int,
    terms: TermRows | None,
) -> TopK:
    """The k best of few tools for one turn: ``_search`` in as few NumPy calls as will do.

    After an encoder's forward nothing is in the processor's caches, so it is the number
    of calls that costs.
    """
    error = float(error_bounds(query[None], matrix, terms)[0])
    approx = matrix.vectors @ query
    lexical = lexical_part(matrix, terms, range(len(matrix)))
    if lexical is not None:
        approx += lexical[0]
    for g in range(matrix.n_classes):
        if not allowed[g >> 5] >> (g & 31) & 1:
            approx[matrix.starts[g] : matrix.starts[g + 1]] = DENIED
    place = max(0, len(matrix) - k)
    ranked = approx.copy()
    ranked.partition(place)
    cut = max(float(ranked[place]) - 2 * error, threshold - error, float(LEAST))
    stored = (approx >= np.float32(cut)).nonzero()[0]
    extra = None if lexical is None else lexical[0, stored]
    scores = _exact(query, matrix.vectors[stored], error, extra)
    rows = matrix.rows[stored]
    order = np.lexsort((rows, -scores))[:k]
    scores, rows = scores[order], rows[order]
    if len(scores) == k and scores[-1] >= threshold:
        return TopK(scores[None], rows[None])
    best = unfilled(1, k)
    count = int((scores >= threshold).sum())
    best.scores[0, :count], best.rows[0, :count] = scores[:count], rows[:count]
    return best


def _search(
    queries: NDArray[np.float32],
    matrix: ToolMatrix,
    allowed: NDArray[np.uint32],
    threshold: NDArray[np.float32],
    best: TopK,
    terms: TermRows | None,
) -> None:
    """Fill ``best [B, k]``, block by block of stored rows."""
    error = error_bounds(queries, matrix, terms)
    denied = class_bits(~allowed, matrix.n_classes)
    used = (denied.min(axis=0) == 0).nonzero()[0]
    for block in _blocks(used, matrix.starts, BLOCK // len(queries)):
        approx = _approximate(queries, matrix, denied, block, best.rows.shape[1])
        lexical = lexical_part(matrix, terms, block)
        if lexical is not None:
            approx.reshape(len(queries), -1)[:, : len(block)] += lexical
        least = np.maximum(threshold, best.scores[:, -1])
        turns, stored = _sieve(approx, least, error, best.rows.shape[1])
        extra = None if lexical is None else lexical[turns, stored]
        stored += block.start
        scores = rescore(queries, matrix, error, turns, stored, extra)
        keep = scores >= threshold[turns]
        merge(best, turns[keep], scores[keep], matrix.rows[stored[keep]])


def lexical_part(
    matrix: ToolMatrix, terms: TermRows | None, block: range
) -> NDArray[np.float32] | None:
    """The lexical part of the scores ``[B, len(block)]``, exactly."""
    if terms is None or matrix.postings is None:
        return None
    sums = matrix.postings.overlaps(terms, block, whole=len(block) == len(matrix))
    sums *= np.float32(UNIT)
    return sums


def error_bounds(
    queries: NDArray[np.float32], matrix: ToolMatrix, terms: TermRows | None = None
) -> NDArray[np.float64]:
    """``[B]``: how far an approximate score can be from the score.

    Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: summed in any
    order, with or without fused multiply-adds, the error of an inner product is at most
    ``gamma(D) |q| |t|``, where ``gamma(n) = n u / (1 - n u)`` and u = 2**-24. Eight more
    roundings cover the score's own, the cut's and this bound's; the last term, underflow.
    """
    roundings = (matrix.dim + 8) * 2.0**-24
    gamma = matrix.max_norm * roundings / (1 - roundings)
    error = norm_bounds(queries) * gamma + matrix.dim * 2.0**-126
    return error if terms is None else error + lexical_bounds(terms) * 2.0**-22


def lexical_bounds(terms: TermRows) -> NDArray[np.float64]:
    """``[B]``: what the lexical part of a score can reach."""
    return terms.sums().astype(np.float64) * (MAX_WEIGHT * UNIT)


def class_bits(words: NDArray[np.uint32], count: int) -> NDArray[np.uint8]:
    """The first ``count`` bits of words ``[B, W]``, as zeros and ones ``[B, count]``."""
    octets = np.ascontiguousarray(words, dtype="<u4").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=count, bitorder="little")


def _blocks(used: NDArray[np.intp], starts: NDArray[np.int64], size: int) -> Iterator[range]:
    """Ranges of at most ``size`` stored rows that hold every class in ``used``."""
    if len(used) == 0:
        return
    firsts, lasts = starts[used], starts[used + 1]
    gaps = (firsts[1:] - lasts[:-1] >= GAP).nonzero()[0]
    for i, j in zip([0, *(gaps + 1)], [*gaps, len(used) - 1], strict=True):
        last = int(lasts[j])
        for first in range(int(firsts[i]), last, size):
            yield range(first, min(first + size, last))


def _approximate(
    queries: NDArray[np.float32],
    matrix: ToolMatrix,
    denied: NDArray[np.uint8],
    block: range,
    k: int,
) -> NDArray[np.float32]:
    """Approximate scores ``[B, R, S]`` of a block; denied and padded ones below ``LEAST``.

    Group s of S holds the block's rows s, s + S, s + 2S, ...: so the maximum of each
    group is taken over long contiguous runs.
    """
    n = len(block)
    per_group = min(GROUP, max(1, n // max(256, 4 * k)))
    groups = -(-n // per_group)
    approx = np.empty((len(queries), per_group * groups), dtype=np.float32)
    approx[:, n:] = DENIED
    np.matmul(queries, matrix.vectors[block.start : block.stop].T, out=approx[:, :n])
    begin = int(matrix.starts.searchsorted(block.start, side="right")) - 1
    end = int(matrix.starts.searchsorted(block.stop, side="left"))
    gate = denied[:, begin:end]
    if gate.any():
        bounds = matrix.starts[begin : end + 1].copy()
        bounds[0], bounds[-1] = block.start, block.stop
        sizes = bounds[1:] - bounds[:-1]
        penalty = gate.astype(np.float32) * DENIED
        if (sizes != 1).any():
            penalty = np.repeat(penalty, sizes, axis=1)
        approx[:, :n] += penalty
    return approx.reshape(len(queries), per_group, groups)


def _sieve(
    approx: NDArray[np.float32],
    least: NDArray[np.float32],
    error: NDArray[np.float64],
    k: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every (turn, row of the block) that can be among the k best, ordered by turn."""
    groups = approx.shape[2]
    maxima = approx.max(axis=1)
    cut = least - error
    if k <= groups:
        kth = np.partition(maxima, groups - k, axis=1)[:, groups - k]
        cut = np.maximum(cut, kth - 2 * error)
    cut = np.maximum(cut.astype(np.float32), LEAST)
    turns, group = (maxima >= cut[:, None]).nonzero()
    pair, place = (approx[turns, :, group] >= cut[turns, None]).nonzero()
    return turns[pair], place * groups + group[pair]


def rescore(
    queries: NDArray[np.float32],
    matrix: ToolMatrix,
    error: NDArray[np.float64],
    turns: NDArray[np.intp],
    stored: NDArray[np.intp],
    lexical: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Score pairs of a turn and a stored row: ``[M]``; ``lexical [M]`` is added."""
    scores = np.empty(len(turns), dtype=np.float32)
    for i in range(0, len(turns), PAIRS):
        turn = turns[i : i + PAIRS]
        left, right = queries.take(turn, axis=0), matrix.vectors.take(stored[i : i + PAIRS], axis=0)
        extra = None if lexical is None else lexical[i : i + PAIRS]
        scores[i : i + PAIRS] = _exact(left, right, error[turn], extra)
    return scores


def _exact(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    error: NDArray[np.float64] | float,
    lexical: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """The scores of ``[M, D]`` (or ``[D]``) and ``[M, D]``, plus ``lexical [M]``.

    A sum in float64, in whatever order, is within ``error * 2**-29`` of the exact one,
    and so is the sum in the specified order. Where both ends of twice that round to one
    float32, that is the score; for the few others the definition is asked.
    """
    margin = error * 2.0**-28
    sums = np.einsum("...j,...j->...", left, right, dtype=np.float64)
    if lexical is not None:
        sums += lexical
    scores: NDArray[np.float32] = (sums - margin).astype(np.float32)
    scores += np.float32(0)  # no negative zero
    unsure = (scores != (sums + margin).astype(np.float32)).nonzero()[0]
    if len(unsure):
        exact = float64_products(left if left.ndim == 1 else left[unsure], right[unsure])
        scores[unsure] = rounded(exact if lexical is None else exact + lexical[unsure])
    return scores


def merge(
    best: TopK, turns: NDArray[np.intp], scores: NDArray[np.float32], rows: NDArray[np.int32]
) -> None:
    """Merge scored tools, ordered by turn, into ``best [B, k]``."""
    count, k = best.rows.shape
    each = np.arange(count)
    place = np.arange(k, k + len(turns)) - turns.searchsorted(each)[turns]
    both = unfilled(count, int(place.max(initial=k - 1)) + 1)
    both.scores[:, :k], both.rows[:, :k] = best.scores, best.rows
    both.scores[turns, place], both.rows[turns, place] = scores, rows
    order = each[:, None], np.lexsort((both.rows, -both.scores), axis=1)[:, :k]
    best.scores[:], best.rows[:] = both.scores[order], both.rows[order]
