"""Scorers: query vectors and allowed classes in, the best k tools out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ta_fast.errors import InvalidConfig
from ta_fast.scorer.numpy_scorer import NumpyScorer

if TYPE_CHECKING:
    from ta_fast.types import F32, U32
    from ta_fast_kernels import ToolMatrix, TopK

__all__ = ["SCORERS", "NumpyScorer", "Scorer", "make_scorer"]

SCORERS = ("auto", "numpy")
"""Names that ``make_scorer`` takes; ``auto`` is the best one that works here."""


class Scorer(Protocol):
    """Gated top-k over the tools of one epoch; scorers of two epochs can live at once."""

    def topk(self, queries: F32, allowed: U32, k: int, threshold: F32) -> TopK:
        """The best k allowed tools of each turn; see ``ta_fast_kernels.gated_topk``.

        Safe to call from several threads. Every scorer returns the same bits, whatever
        else is in the batch.

        Args:
            queries: ``[B, D]``.
            allowed: ``[B, ceil(G / 32)]``, a bit for each gate class.
            k: at least 1; may exceed the number of tools.
            threshold: ``[B]``, the least score of a returned tool.

        Raises:
            ValueError: a wrong shape or dtype, k < 1, or numbers that are not finite.
        """
        ...


def make_scorer(name: str, matrix: ToolMatrix) -> Scorer:
    """The scorer of that name over ``matrix``.

    Raises:
        InvalidConfig: no scorer has that name.
    """
    if name not in SCORERS:
        raise InvalidConfig(f"scorer: expected one of {', '.join(SCORERS)}, found {name!r}")
    return NumpyScorer(matrix)
