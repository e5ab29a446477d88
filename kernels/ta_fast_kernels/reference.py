"""The specification of gated top-k, in plain NumPy. Obvious, never optimised.

Every other implementation has to return what this one returns, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ta_fast_kernels.terms import UNIT, TermRows

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class TopK:
    """The best k allowed tools of each turn of a batch, best first.

    ``scores`` float32 ``[B, k]`` (-inf where unfilled) and ``rows`` int32 ``[B, k]``
    (the catalog's row numbers; -1 where unfilled).
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int32]


def unfilled(turns: int, k: int) -> TopK:
    """A ``TopK`` with nothing in it."""
    result = TopK(np.empty((turns, k), np.float32), np.empty((turns, k), np.int32))
    result.scores.fill(-np.inf)
    result.rows.fill(-1)
    return result


def inner_products(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """The score of each pair of vectors: ``[M, D]`` and ``[M, D]`` (or ``[D]``) -> ``[M]``.

    The products are exact in float64. They are added in float64 in one fixed order:
    padded with zeros to a power of two, the upper half is added to the lower half until
    one number is left. That number is rounded to float32. So a score depends on its two
    vectors only, never on the batch, the BLAS or the machine.
    """
    return rounded(float64_products(left, right))


def float64_products(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """``inner_products`` before the rounding."""
    terms = np.multiply(left, right, dtype=np.float64)
    width = terms.shape[1]
    half = 1 << (width - 1).bit_length()
    while half > 1:
        half //= 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0]


def rounded(scores: NDArray[np.float64]) -> NDArray[np.float32]:
    """To float32, without a negative zero."""
    return scores.astype(np.float32) + np.float32(0)


def lexical_sums(turns: TermRows, turn: int, tools: TermRows) -> NDArray[np.int64]:
    """Of one turn and N tools: count times weight, summed over the terms that both have."""
    mine = slice(turns.offsets[turn], turns.offsets[turn + 1])
    vocabulary = int(max(turns.terms.max(initial=0), tools.terms.max(initial=0))) + 1
    counts = np.zeros(vocabulary, np.int64)
    counts[turns.terms[mine]] = turns.values[mine]
    sums = np.zeros(len(tools), np.int64)
    owner = np.repeat(np.arange(len(tools)), np.diff(tools.offsets))
    np.add.at(sums, owner, counts[tools.terms] * tools.values)
    return sums


def gated_topk(
    queries: NDArray[np.float32],
    tools: NDArray[np.float32],
    classes: NDArray[np.int32],
    allowed: NDArray[np.uint32],
    k: int,
    threshold: NDArray[np.float32],
    turn_terms: TermRows | None = None,
    tool_terms: TermRows | None = None,
) -> TopK:
    """The k best tools that each turn may use.

    A turn ``b`` may use the tools of class ``g`` when bit ``g % 32`` of
    ``allowed[b, g // 32]`` is set. Of these, the candidates are the tools whose score
    (``inner_products``) is at least ``threshold[b]``. They are ordered by score,
    descending, then by row, ascending; the first k are returned. What is left of the k
    is filled with score -inf and row -1.

    With terms the score is hybrid: ``UNIT`` times the lexical sum is added to the float64
    inner product, and that sum is rounded to float32.

    Args:
        queries: ``[B, D]``, B >= 0.
        tools: ``[N, D]`` in the catalog's order, N >= 0.
        classes: ``[N]``, the gate class of each tool, 0 <= class < G.
        allowed: ``[B, ceil(G / 32)]``.
        k: at least 1; may exceed N.
        threshold: ``[B]``, the least score of a candidate.
        turn_terms: the terms of the B turns, with counts.
        tool_terms: the terms of the N tools, with weights.
    """
    result = unfilled(len(queries), k)
    word, bit = classes // 32, (classes % 32).astype(np.uint32)
    for b, query in enumerate(queries):
        exact = float64_products(tools, query)
        if turn_terms is not None and tool_terms is not None:
            exact += UNIT * lexical_sums(turn_terms, b, tool_terms)
        all_scores = rounded(exact)
        may_use = (allowed[b, word] >> bit) & 1 == 1
        candidates = np.flatnonzero(may_use & (all_scores >= threshold[b]))
        order = np.lexsort((candidates, -all_scores[candidates]))
        best = candidates[order][:k]
        result.scores[b, : len(best)] = all_scores[best]
        result.rows[b, : len(best)] = best
    return result
