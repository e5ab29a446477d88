"""The lexical half of a score: which terms a turn and a tool share.

Counts and weights are whole numbers, so a sum of their products has one value in any order:
every backend returns the same bits. The mathematics is in kernels/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import lt
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNIT: float = 2.0**-11
"""What a lexical sum of 1 adds to a score."""
MAX_WEIGHT = 2047
"""Largest weight of a term in a tool: float16 holds every whole number up to it."""
MAX_COUNT = (1 << 24) // MAX_WEIGHT
"""Largest sum of a turn's counts: float32 holds every sum of their products."""


@dataclass(frozen=True, slots=True, eq=False)
class TermRows:
    """The terms of R turns or tools, row after row (compressed sparse rows).

    Row r has the terms ``terms[offsets[r]:offsets[r + 1]]``, ascending and distinct, and
    ``values`` beside them: a turn's counts, or a tool's weights; whole numbers from 1.

    ``offsets`` is int64 ``[R + 1]``, ``terms`` and ``values`` are int32 ``[M]``.
    """

    offsets: NDArray[np.int64]
    terms: NDArray[np.int32]
    values: NDArray[np.int32]

    @classmethod
    def empty(cls, rows: int) -> Self:
        """So many rows without a term."""
        none = np.zeros(0, np.int32)
        return cls(np.zeros(rows + 1, np.int64), none, none)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def check(self) -> None:
        """Raise ValueError for a wrong shape or dtype, falling terms, or a value below 1."""
        offsets, terms, values = self.offsets, self.terms, self.values
        if offsets.dtype != np.int64 or offsets.ndim != 1 or len(offsets) == 0:
            raise ValueError(f"offsets: expected int64 [R + 1], found {describe(offsets)}")
        if offsets[0] != 0 or offsets[-1] != len(terms) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"offsets: expected to ascend from 0 to {len(terms)}")
        for name, array in (("terms", terms), ("values", values)):
            if array.dtype != np.int32 or array.shape != (len(terms),):
                raise ValueError(f"{name}: expected int32 [{len(terms)}], found {describe(array)}")
        if len(self) == 1 and min(values.tolist(), default=1) >= 1:
            # One turn comes alone, and then it is NumPy's calls that cost.
            listed = [-1, *terms.tolist()]
            if all(map(lt, listed, listed[1:])):
                return
        if len(terms) and (values.min() < 1 or terms.min() < 0):
            raise ValueError(f"expected terms from 0 and values from 1, found {terms}, {values}")
        rises = terms[1:] > terms[:-1]
        if not (rises.all() or np.isin(np.flatnonzero(~rises) + 1, offsets).all()):
            raise ValueError("terms: expected to ascend within a row")

    def sums(self) -> NDArray[np.int64]:
        """The sum of each row's values, ``[R]``."""
        if len(self) == 1:
            return np.array([self.values.sum()], np.int64)
        before = np.zeros(len(self.values) + 1, np.int64)
        np.cumsum(self.values, out=before[1:])
        return before[self.offsets[1:]] - before[self.offsets[:-1]]

    def take(self, rows: NDArray[np.integer[Any]]) -> Self:
        """The given rows, in the given order."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        flat = np.repeat(self.offsets[rows] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return type(self)(offsets, self.terms[flat], self.values[flat])

    def part(self, first: int, last: int) -> Self:
        """Rows ``first`` to ``last``."""
        begin, end = self.offsets[first], self.offsets[last]
        offsets = self.offsets[first : last + 1] - begin
        return type(self)(offsets, self.terms[begin:end], self.values[begin:end])

    def postings(self, vocabulary: int) -> Postings:
        """The inverted index of N tools' terms, all below ``vocabulary``."""
        order = np.argsort(self.terms, kind="stable")
        offsets = np.zeros(vocabulary + 1, np.int64)
        np.cumsum(np.bincount(self.terms, minlength=vocabulary), out=offsets[1:])
        owner = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.offsets))
        return Postings(offsets, owner[order], self.values[order])


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """The inverted index of N stored tools: which have a term, for each of V terms.

    Term w is in the stored rows ``stored[offsets[w]:offsets[w + 1]]``, ascending, with the
    ``weights`` beside them. int64 ``[V + 1]``, int32 ``[M]``, int32 ``[M]``.
    """

    offsets: NDArray[np.int64]
    stored: NDArray[np.int32]
    weights: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, count: int) -> TermRows:
        """The terms of each of ``count`` stored tools, again."""
        order = np.argsort(self.stored, kind="stable")
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(self.stored, minlength=count), out=offsets[1:])
        owner = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.offsets))
        return TermRows(offsets, owner[order], self.weights[order])

    def overlaps(self, turns: TermRows, block: range, *, whole: bool) -> NDArray[np.float32]:
        """Sums of count times weight over the shared terms: whole numbers ``[B, len(block)]``.

        Args:
            turns: the turns' terms and counts; terms from V on are in no tool.
            block: stored rows.
            whole: the block holds all stored rows.
        """
        if len(turns) == 1 and whole:
            return self._overlaps_one(turns, len(block))
        known = turns.terms < len(self)
        terms, counts = turns.terms[known], turns.values[known]
        owner = np.repeat(np.arange(len(turns)), np.diff(turns.offsets))[known]
        begin, end = self.offsets[terms], self.offsets[terms + 1]
        if not whole:
            begin = self._reach(begin, end, block.start)
            end = self._reach(begin, end, block.stop)
        sizes = end - begin
        last = np.cumsum(sizes)
        at = np.repeat(begin - (last - sizes), sizes) + np.arange(last[-1] if len(last) else 0)
        place = np.repeat(owner * len(block) - block.start, sizes) + self.stored[at]
        sums = np.zeros(len(turns) * len(block), np.float32)
        np.add.at(sums, place, (self.weights[at] * np.repeat(counts, sizes)).astype(np.float32))
        return sums.reshape(len(turns), len(block))

    def _overlaps_one(self, turn: TermRows, count: int) -> NDArray[np.float32]:
        """``overlaps`` of one turn, in as few NumPy calls as will do: they are what costs."""
        sums = np.zeros((1, count), np.float32)
        terms, counts = turn.terms, turn.values
        if len(terms) and terms[-1] >= len(self):
            terms, counts = terms[terms < len(self)], counts[terms < len(self)]
        begin, end = self.offsets[terms].tolist(), self.offsets[terms + 1].tolist()
        stored, weights = [], []
        for first, last, often in zip(begin, end, counts.tolist(), strict=True):
            stored.append(self.stored[first:last])
            part = self.weights[first:last]
            weights.append(part * often if often > 1 else part)
        if stored:
            np.add.at(sums[0], np.concatenate(stored), np.concatenate(weights).astype(np.float32))
        return sums

    def _reach(
        self, begin: NDArray[np.int64], end: NDArray[np.int64], row: int
    ) -> NDArray[np.int64]:
        """The first places from ``begin`` to ``end`` whose stored row is at least ``row``."""
        begin, end = begin.copy(), end.copy()
        while (undecided := np.flatnonzero(begin < end)).size:
            middle = (begin[undecided] + end[undecided]) // 2
            below = self.stored[middle] < row
            begin[undecided[below]] = middle[below] + 1
            end[undecided[~below]] = middle[~below]
        return begin


def describe(array: NDArray[Any]) -> str:
    """Dtype and shape, for messages."""
    return f"{array.dtype} {list(array.shape)}"
