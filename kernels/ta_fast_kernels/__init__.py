"""Gated top-k: for every turn of a batch the exact best k tools that it may use.

The operation's meaning is in ``reference.py`` and kernels/README.md; every backend
returns the same bits. Importing this package needs NumPy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ta_fast_kernels import numpy_topk, reference
from ta_fast_kernels.matrix import ToolMatrix, check_values, class_order
from ta_fast_kernels.reference import TopK
from ta_fast_kernels.terms import MAX_COUNT, MAX_WEIGHT, UNIT, Postings, TermRows, describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BACKENDS",
    "MAX_COUNT",
    "MAX_WEIGHT",
    "UNIT",
    "Postings",
    "TermRows",
    "ToolMatrix",
    "TopK",
    "check_operands",
    "class_order",
    "gated_topk",
]

BACKENDS = ("numpy", "reference")
"""Names of the implementations."""


def gated_topk(
    queries: NDArray[np.float32],
    matrix: ToolMatrix,
    allowed: NDArray[np.uint32],
    k: int,
    threshold: NDArray[np.float32],
    terms: TermRows | None = None,
    *,
    backend: str = "numpy",
) -> TopK:
    """The k best tools of ``matrix`` that each of B turns may use, best first.

    Args:
        queries: float32 ``[B, D]``.
        matrix: N tools of D dimensions in G gate classes.
        allowed: uint32 ``[B, ceil(G / 32)]``; bit ``g % 32`` of word ``g // 32`` says
            whether the turn may use class g. Bits from G on are ignored.
        k: at least 1; may exceed N.
        threshold: float32 ``[B]``, the least score of a returned tool; may be infinite.
        terms: the turns' terms for hybrid scores, of a matrix that has ``postings``.
        backend: one of ``BACKENDS``.

    Returns:
        Scores and catalog rows ``[B, k]``: score descending, then row ascending; -inf
        and -1 where unfilled.

    Raises:
        ValueError: an unknown backend, k < 1, a wrong shape or dtype, NaN or inf in the
            queries, NaN in the threshold.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, found {backend!r}")
    check_operands(queries, matrix, allowed, k, threshold, terms)
    if backend == "reference":
        tools, classes = matrix.to_rows()
        return reference.gated_topk(
            queries, tools, classes, allowed, k, threshold, terms, matrix.terms()
        )
    return numpy_topk.gated_topk(queries, matrix, allowed, k, threshold, terms)


def check_operands(
    queries: NDArray[np.float32],
    matrix: ToolMatrix,
    allowed: NDArray[np.uint32],
    k: int,
    threshold: NDArray[np.float32],
    terms: TermRows | None = None,
) -> None:
    """Raise ValueError, naming what was found, unless every backend can take this."""
    if k < 1:
        raise ValueError(f"k: expected at least 1, found {k}")
    turns = len(queries)
    _check_array("queries", queries, np.float32, (turns, matrix.dim))
    _check_array("allowed", allowed, np.uint32, (turns, matrix.n_words))
    _check_array("threshold", threshold, np.float32, (turns,))
    check_values("queries", queries)
    if np.isnan(threshold).any():
        raise ValueError(f"threshold: expected numbers, found {threshold}")
    if terms is not None:
        _check_terms(terms, matrix, turns)


def _check_terms(terms: TermRows, matrix: ToolMatrix, turns: int) -> None:
    if matrix.postings is None:
        raise ValueError("terms: the matrix has no postings; expected None")
    if len(terms) != turns:
        raise ValueError(f"terms: expected {turns} rows, found {len(terms)}")
    terms.check()
    most = int(terms.sums().max(initial=0))
    if most > MAX_COUNT:
        raise ValueError(f"terms: expected counts of at most {MAX_COUNT} a turn, found {most}")


def _check_array(
    name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]
) -> None:
    if array.dtype != dtype or array.shape != shape:
        expected = f"{dtype.__name__} {list(shape)}"
        raise ValueError(f"{name}: expected {expected}, found {describe(array)}")
