"""The scorer that needs NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ta_fast_kernels import ToolMatrix, TopK, gated_topk

if TYPE_CHECKING:
    from ta_fast.types import F32, U32
    from ta_fast_kernels import TermRows


@dataclass(frozen=True, slots=True)
class NumpyScorer:
    """Scores on the CPU. Holds the matrix, copies nothing and has no state."""

    matrix: ToolMatrix

    def topk(
        self, queries: F32, allowed: U32, k: int, threshold: F32, terms: TermRows | None = None
    ) -> TopK:
        """See ``Scorer.topk``."""
        return gated_topk(queries, self.matrix, allowed, k, threshold, terms, backend="numpy")
