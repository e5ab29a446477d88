"""The tools' vectors, stored by gate class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from ta_fast_kernels.terms import MAX_WEIGHT, Postings, TermRows, describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIMIT = 1e15
"""Largest absolute value in a vector, so that no inner product overflows float32."""


def class_order(
    classes: NDArray[np.int32], n_classes: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The stored order: by class, and by catalog row within a class.

    Args:
        classes: ``[N]``, the gate class of each catalog row, 0 <= class < n_classes.
        n_classes: G, the number of gate classes.

    Returns:
        ``rows`` int32 ``[N]``, the catalog row of each stored row, and ``starts`` int64
        ``[G + 1]``: class g is stored in rows ``starts[g]`` to ``starts[g + 1]``.

    Raises:
        ValueError: a class is outside its range.
    """
    if classes.ndim != 1 or classes.dtype != np.int32:
        raise ValueError(f"classes: expected int32 [N], found {describe(classes)}")
    if len(classes) and not (classes.min() >= 0 and classes.max() < n_classes):
        found = f"{classes.min()} to {classes.max()}"
        raise ValueError(f"classes: expected 0 to {n_classes - 1}, found {found}")
    rows = np.argsort(classes, kind="stable").astype(np.int32)
    starts = np.zeros(n_classes + 1, dtype=np.int64)
    np.cumsum(np.bincount(classes, minlength=n_classes), out=starts[1:])
    return rows, starts


def norm_bounds(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Euclidean norms ``[M]`` of ``[M, D]``, summed in float32 without a copy.

    Right to within D / 2 roundings; the added term covers squares that underflow.
    """
    squares = np.einsum("ij,ij->i", vectors, vectors).astype(np.float64)
    norms: NDArray[np.float64] = np.sqrt(squares + vectors.shape[1] * 2.0**-126)
    return norms


def check_values(name: str, vectors: NDArray[np.float32]) -> None:
    """Raise ValueError if ``vectors [M, D]`` hold NaN, inf or more than ``LIMIT``."""
    flat = vectors.reshape(-1)
    if float(flat @ flat) <= LIMIT**2:
        return  # one product bounds them all; false for NaN, inf and what only might be too large
    if vectors.min(initial=0.0) >= -LIMIT and vectors.max(initial=0.0) <= LIMIT:
        return
    row, column = (int(i[0]) for i in np.nonzero(~(np.abs(vectors) <= LIMIT)))
    raise ValueError(
        f"{name}: expected finite numbers of at most {LIMIT:g}, "
        f"found {vectors[row, column]:g} at [{row}, {column}]"
    )


@dataclass(frozen=True, slots=True, eq=False)
class ToolMatrix:
    """The vectors of N tools, stored by gate class; never written to again.

    ``vectors`` float32 ``[N, D]``, C-contiguous. ``rows`` int32 ``[N]`` and ``starts``
    int64 ``[G + 1]`` are those of ``class_order``. ``max_norm`` is the norm of the
    longest vector. ``postings``, for hybrid scores, are the inverted index of the tools'
    terms by stored row. The matrix is held, not copied.

    Raises:
        ValueError: a wrong shape or dtype, or NaN, inf or too large a number in a vector.
    """

    vectors: NDArray[np.float32]
    rows: NDArray[np.int32]
    starts: NDArray[np.int64]
    postings: Postings | None = None
    max_norm: float = field(init=False)

    def __post_init__(self) -> None:
        vectors, rows, starts = self.vectors, self.rows, self.starts
        if vectors.dtype != np.float32 or len(vectors.shape[1:]) != 1 or vectors.shape[1] == 0:
            raise ValueError(f"vectors: expected float32 [N, D], D >= 1, found {describe(vectors)}")
        if not vectors.flags.c_contiguous:
            raise ValueError(f"vectors: expected C-contiguous, found strides {vectors.strides}")
        if rows.shape != (len(vectors),) or rows.dtype != np.int32:
            raise ValueError(f"rows: expected int32 [{len(vectors)}], found {describe(rows)}")
        if starts.ndim != 1 or starts.dtype != np.int64 or len(starts) == 0:
            raise ValueError(f"starts: expected int64 [G + 1], found {describe(starts)}")
        _check_order(rows, starts)
        check_values("vectors", vectors)
        if self.postings is not None:
            _check_postings(self.postings, len(vectors))
        object.__setattr__(self, "max_norm", float(norm_bounds(vectors).max(initial=0.0)))

    @classmethod
    def from_rows(
        cls,
        vectors: NDArray[np.float32],
        classes: NDArray[np.int32],
        n_classes: int,
        terms: TermRows | None = None,
    ) -> Self:
        """Store ``vectors [N, D]`` and terms, given in the catalog's order, by class (one copy)."""
        if len(vectors) != len(classes):
            raise ValueError(f"expected one class a vector, found {len(classes)}, {len(vectors)}")
        rows, starts = class_order(classes, n_classes)
        postings = None if terms is None else invert(terms, rows)
        return cls(np.ascontiguousarray(vectors[rows]), rows, starts, postings)

    def to_rows(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Copies of the vectors ``[N, D]`` and the classes ``[N]`` in the catalog's order."""
        vectors, classes = np.empty_like(self.vectors), np.empty_like(self.rows)
        vectors[self.rows] = self.vectors
        classes[self.rows] = np.repeat(np.arange(self.n_classes), np.diff(self.starts))
        return vectors, classes

    def terms(self) -> TermRows | None:
        """The terms of the tools in the catalog's order."""
        if self.postings is None:
            return None
        return self.postings.rows(len(self)).take(np.argsort(self.rows))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        return int(self.vectors.shape[1])

    @property
    def n_classes(self) -> int:
        """G, the number of gate classes."""
        return len(self.starts) - 1

    @property
    def n_words(self) -> int:
        """Words of 32 class bits in a turn's ``allowed``: ``ceil(G / 32)``."""
        return -(-self.n_classes // 32)


def invert(terms: TermRows, rows: NDArray[np.int32]) -> Postings:
    """The inverted index by stored row of terms in the catalog's order; ``rows`` is the storing."""
    terms.check()
    return terms.take(rows).postings(int(terms.terms.max(initial=-1)) + 1)


def _check_postings(postings: Postings, count: int) -> None:
    """Raise ValueError unless the postings are of ``count`` tools and keep sums exact."""
    if postings.stored.max(initial=-1) >= count:
        raise ValueError(f"postings: expected {count} tools, found row {postings.stored.max()}")
    if postings.weights.max(initial=0) > MAX_WEIGHT:
        found = postings.weights.max()
        raise ValueError(f"postings: expected weights of at most {MAX_WEIGHT}, found {found}")


def _check_order(rows: NDArray[np.int32], starts: NDArray[np.int64]) -> None:
    """Raise ValueError unless ``rows`` and ``starts`` are those of some ``class_order``."""
    n = len(rows)
    if starts[0] != 0 or starts[-1] != n or (np.diff(starts) < 0).any():
        raise ValueError(f"starts: expected to ascend from 0 to {n}, found {starts}")
    seen = np.zeros(n, dtype=bool)
    if n and not (rows.min() >= 0 and rows.max() < n):
        raise ValueError(f"rows: expected 0 to {n - 1}, found {rows.min()} to {rows.max()}")
    seen[rows] = True
    if not seen.all():
        raise ValueError(f"rows: row {int(np.argmin(seen))} of {n} is missing")
    descends = np.diff(rows) < 0
    descends[starts[(starts > 0) & (starts < n)] - 1] = False
    if descends.any():
        at = int(np.argmax(descends))
        raise ValueError(f"rows: {rows[at]} is before {rows[at + 1]} in one class")
