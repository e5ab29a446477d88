"""How good probabilities are: calibration error, AUROC, precision and recall of abstaining."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ta_fast.calibration import AbstentionPoint, Calibration, Judge, Wish
from ta_fast.evaluate.queries import Query
from ta_fast.pipeline import Routed
from ta_fast.snapshot import Snapshot
from ta_fast.types import F32, TopK

BINS = 15
MOST_POINTS = 100
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Abstention:
    """How well a probability tells turns that some tool fits from turns that none fits.

    ``auroc``: that of two such turns the right one is higher. ``error``: expected
    calibration error. ``share``: of the turns that some tool fits. ``points``: what
    abstaining below each threshold does, ascending.
    """

    auroc: float
    error: float
    share: float
    points: tuple[AbstentionPoint, ...]


def measure_abstention(
    probability: ArrayLike, fits: ArrayLike, weights: ArrayLike | None = None
) -> Abstention:
    """Measure the probability that some tool fits.

    Args:
        probability: Of S turns.
        fits: Whether some tool fits; both kinds must be among them.
        weights: Of the turns; 1 each by default.
    """
    p, y = np.asarray(probability, np.float64), np.asarray(fits, np.bool_)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, np.float64)
    values, place = np.unique(p, return_inverse=True)
    good, bad = np.bincount(place, w * y), np.bincount(place, w * ~y)
    below = np.cumsum(bad) - 0.5 * bad
    auroc = float(good @ below / (good.sum() * bad.sum()))
    kept, all_kept = good[::-1].cumsum()[::-1], (good + bad)[::-1].cumsum()[::-1]
    chosen = np.unique(np.linspace(0, len(values) - 1, MOST_POINTS).round().astype(int))
    points = tuple(
        AbstentionPoint(float(values[i]), float(kept[i] / all_kept[i]), float(kept[i] / kept[0]))
        for i in chosen
    )
    return Abstention(auroc, calibration_error(p, y, w), float(w @ y / w.sum()), points)


def calibration_error(
    probability: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Expected calibration error over 15 bins of equal mass.

    The mean distance, over the bins, of the mean probability from the share that is true
    (Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", 2015).
    """
    p, y = np.asarray(probability, np.float64), np.asarray(labels, np.float64)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(p, kind="stable")
    p, y, w = p[order], y[order], w[order]
    middle = np.cumsum(w) - 0.5 * w
    bins = np.minimum((BINS * middle / w.sum()).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, w * (p - y))).sum() / w.sum())


def fit_of(
    snapshot: Snapshot,
    calibration: Calibration,
    queries: Sequence[Query],
    candidates: Sequence[Sequence[str]] | None = None,
) -> NDArray[np.float64]:
    """The probability that some tool fits each of Q queries, ``[Q]``.

    Args:
        snapshot: What ranks the tools; every tool is allowed.
        calibration: Of its encoder and ranking.
        queries: Their texts are used.
        candidates: Ids of the only tools that each query may have; by default all.
    """
    ids, rows = snapshot.index.ids, snapshot.index.rows
    judge = Judge(calibration, ids, calibration.summaries, Wish())
    depth = 2 if candidates is None else max(2, len(ids))
    found = best_tools(snapshot, [query.text for query in queries], depth)
    top = found.top
    if candidates is not None:
        own = [[rows[tool] for tool in tools] for tools in candidates]
        kept = np.array([np.isin(r, mine) for r, mine in zip(top.rows, own, strict=True)])
        top = first_kept(top, kept, 2)
    return judge(top.scores, top.rows, cast(F32, found.queries), found.words).fit


def best_tools(
    snapshot: Snapshot,
    texts: Sequence[str],
    depth: int,
    progress: Callable[[int], None] | None = None,
) -> Routed:
    """The best tools of B texts, everything allowed, ``[B, depth]``, with the embeddings.

    Args:
        snapshot: What ranks the tools.
        texts: The B texts.
        depth: How many tools.
        progress: Called with the number of texts just done.
    """
    words = (snapshot.index.gate.n_classes + 31) // 32
    parts = []
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        everything = np.full((len(chunk), words), 0xFFFFFFFF, dtype=np.uint32)
        floor = np.full(len(chunk), -np.inf, dtype=np.float32)
        parts.append(snapshot.pipeline.route(chunk, everything, depth, floor, vectors=True))
        if progress:
            progress(len(chunk))
    scores = np.concatenate([part.top.scores for part in parts])
    rows = np.concatenate([part.top.rows for part in parts])
    queries = np.concatenate([cast(F32, part.queries) for part in parts])
    words_of = [part.words for part in parts if part.words is not None]
    return Routed(TopK(scores, rows), queries, {}, np.concatenate(words_of) if words_of else None)


def first_kept(top: TopK, kept: NDArray[np.bool_], depth: int) -> TopK:
    """The first tools of each turn that are kept, ``[B, depth]``."""
    kept = kept & (top.rows >= 0)
    order = np.argsort(~kept, axis=1, kind="stable")[:, :depth]
    filled = np.take_along_axis(kept, order, axis=1)
    scores = np.where(filled, np.take_along_axis(top.scores, order, axis=1), -np.inf)
    rows = np.where(filled, np.take_along_axis(top.rows, order, axis=1), -1)
    return TopK(scores.astype(np.float32), rows.astype(np.int32))
