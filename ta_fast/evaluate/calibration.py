"""The threshold: swept over labelled queries for the best F1, as the paper does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ta_fast.evaluate.queries import Query
from ta_fast.types import TopK

SWEEP = tuple(round(0.10 + 0.02 * step, 2) for step in range(21))
"""0.10 to 0.50 in steps of 0.02: the sweep of the Tool Attention paper."""


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """Micro-averaged precision, recall and F1 of what a threshold promotes."""

    threshold: float
    precision: float
    recall: float
    f1: float


def sweep_thresholds(
    ids: Sequence[str],
    queries: Sequence[Query],
    top: TopK,
    thresholds: Sequence[float] = SWEEP,
) -> list[ThresholdPoint]:
    """Precision, recall and F1 at each threshold.

    Args:
        ids: Tool id by catalog row.
        queries: The Q queries; those without gold tools count against precision.
        top: Their best tools ``[Q, k]``, found without a threshold.
        thresholds: Cosines to try.
    """
    needed = sum(len(query.gold) for query in queries)
    return [_point(ids, queries, top, threshold, needed) for threshold in thresholds]


def best_threshold(points: Sequence[ThresholdPoint]) -> ThresholdPoint:
    """The point of the highest F1; of equals the lowest threshold, which promotes more."""
    return max(points, key=lambda point: (point.f1, -point.threshold))


def _point(
    ids: Sequence[str], queries: Sequence[Query], top: TopK, threshold: float, needed: int
) -> ThresholdPoint:
    promoted = right = found = 0
    passed = (top.rows >= 0) & (top.scores >= np.float32(threshold))
    for query, rows, keep in zip(queries, top.rows, passed, strict=True):
        chosen = [ids[row] for row in rows[keep]]
        promoted += len(chosen)
        right += sum(any(tool in group for group in query.gold) for tool in chosen)
        found += sum(any(tool in group for tool in chosen) for group in query.gold)
    precision = right / promoted if promoted else 0.0
    recall = found / needed if needed else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return ThresholdPoint(threshold, precision, recall, f1)
