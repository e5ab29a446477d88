"""Retrieval metrics over labelled queries; the state gate is not part of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np

from ta_fast.evaluate.queries import Query
from ta_fast.snapshot import Snapshot
from ta_fast.types import TopK

DEPTH = 10
CHUNK = 256


@dataclass(frozen=True, slots=True)
class Metrics:
    """Means over the queries that have gold tools, each in [0, 1].

    ``recall_k``: share of the gold tools among the first k. ``mrr_10``: one over the
    rank of the first right tool, 0 beyond 10. ``ndcg_10``: binary gains. ``count``: the
    queries; ``skipped``: those without a gold tool, which are left out.
    """

    recall_1: float
    recall_5: float
    recall_10: float
    mrr_10: float
    ndcg_10: float
    count: int
    skipped: int


def rank(
    snapshot: Snapshot,
    queries: Sequence[Query],
    progress: Callable[[int], None] | None = None,
) -> TopK:
    """The first ten tools of every query, no threshold, everything allowed.

    Args:
        snapshot: What is ranked, and how.
        queries: The Q queries.
        progress: Called with the number of queries just done.

    Returns:
        Scores and catalog rows ``[Q, 10]``.
    """
    everything = np.full((1, snapshot.index.matrix.n_words), 0xFFFFFFFF, dtype=np.uint32)
    parts = []
    for start in range(0, len(queries), CHUNK):
        texts = [query.text for query in queries[start : start + CHUNK]]
        floor = np.full(len(texts), -np.inf, dtype=np.float32)
        allowed = np.repeat(everything, len(texts), axis=0)
        parts.append(snapshot.pipeline.route(texts, allowed, DEPTH, floor).top)
        if progress:
            progress(len(texts))
    return TopK(np.concatenate([p.scores for p in parts]), np.concatenate([p.rows for p in parts]))


def measure(ids: Sequence[str], queries: Sequence[Query], top: TopK) -> Metrics:
    """Metrics of rankings.

    Args:
        ids: Tool id by catalog row.
        queries: The Q queries.
        top: Their rankings ``[Q, 10]``.
    """
    rows = [
        _measure_one([ids[row] for row in ranked if row >= 0], query.gold)
        for query, ranked in zip(queries, top.rows, strict=True)
        if query.gold
    ]
    recall_1, recall_5, recall_10, mrr, ndcg = np.mean(rows or [(0.0,) * 5], axis=0).tolist()
    return Metrics(recall_1, recall_5, recall_10, mrr, ndcg, len(rows), len(queries) - len(rows))


def _measure_one(
    ranked: Sequence[str], gold: Sequence[frozenset[str]]
) -> tuple[float, float, float, float, float]:
    # A group counts once, at the first rank where any of its tools stands.
    found = [
        next((rank for rank, tool in enumerate(ranked[:DEPTH], 1) if tool in group), None)
        for group in gold
    ]
    ranks = [rank for rank in found if rank is not None]
    recall = [sum(rank <= k for rank in ranks) / len(gold) for k in (1, 5, 10)]
    reciprocal = 1 / min(ranks) if ranks else 0.0
    ideal = sum(1 / log2(rank + 1) for rank in range(1, min(len(gold), DEPTH) + 1))
    gain = sum(1 / log2(rank + 1) for rank in ranks) / ideal
    return recall[0], recall[1], recall[2], reciprocal, min(gain, 1.0)
