"""Turns to learn a calibration from: labelled queries, and turns that no tool fits.

What is learnt is whether *some* tool fits a turn and whether *this* tool is right, so turns
that no tool fits are needed too. Where the labels have enough of them they alone are used.
Otherwise they are made from the labelled queries: each once more with its gold tools, and
those that are nearly the same, taken out of the catalog; and intents that no tool serves
(``background``). Both kinds weigh together as much as the queries themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ta_fast.calibration import F64, turn_features
from ta_fast.errors import InvalidCatalog
from ta_fast.evaluate.background import BACKGROUND
from ta_fast.evaluate.calibration_measures import best_tools, first_kept
from ta_fast.evaluate.queries import Query
from ta_fast.pipeline import Routed
from ta_fast.snapshot import Snapshot
from ta_fast.types import F32, I32, TopK

MIN_QUERIES = 20
"""Least queries that some tool fits, and least that none fits for these to stand alone."""
DEPTH = 10
"""Tools of a turn that are learnt from."""
NEAR = 0.75
"""Least cosine of two tools of which one would do for the other."""
FOLDS = 5
_CANDIDATES = 50  # tools of a turn that are looked at to find ten after some are taken out


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """S turns: their tools ``[S, 10]``, numbers ``[S, F]``, labels, weights and folds."""

    scores: F32
    rows: I32
    turn: F64
    fits: NDArray[np.bool_]
    right: NDArray[np.bool_]
    weights: F64
    folds: NDArray[np.int64]

    def take(self, kept: NDArray[np.bool_]) -> Samples:
        """Some of the turns."""
        return Samples(*(getattr(self, name)[kept] for name in self.__slots__))


def collect(
    snapshot: Snapshot, queries: Sequence[Query], progress: Callable[[int], None] | None
) -> tuple[Samples, F64]:
    """What is learnt from, and the background ``[D]``.

    Raises:
        InvalidCatalog: fewer than 20 queries have gold tools.
    """
    gold = sum(bool(query.gold) for query in queries)
    if gold < MIN_QUERIES:
        raise InvalidCatalog(
            f"{gold} queries have gold tools; expected at least {MIN_QUERIES} to learn from"
        )
    texts = [query.text for query in queries]
    found = best_tools(snapshot, texts, _CANDIDATES, progress)
    nowhere = best_tools(snapshot, BACKGROUND, DEPTH)
    background = cast(F32, nowhere.queries).astype(np.float64).mean(axis=0)
    turn = turn_features(cast(F32, found.queries), background, found.words)
    samples = _samples(snapshot, queries, found.top, turn)
    if len(queries) - gold < MIN_QUERIES:
        without = _without_gold(snapshot, queries, found.top, samples)
        samples = joined(samples, without, _of_background(nowhere, len(queries)))
    return samples, background


def _samples(snapshot: Snapshot, queries: Sequence[Query], top: TopK, turn: F64) -> Samples:
    rows = top.rows[:, :DEPTH]
    golden = [_gold_rows(snapshot, query) for query in queries]
    right = np.array([np.isin(r, gold) for r, gold in zip(rows, golden, strict=True)])
    fits = np.array([bool(query.gold) for query in queries])
    folds = np.random.default_rng(0).permutation(len(queries)) % FOLDS
    return Samples(top.scores[:, :DEPTH], rows, turn, fits, right, np.ones(len(fits)), folds)


def _gold_rows(snapshot: Snapshot, query: Query) -> list[int]:
    rows = snapshot.index.rows
    return [rows[tool] for group in query.gold for tool in group if tool in rows]


def _without_gold(
    snapshot: Snapshot, queries: Sequence[Query], top: TopK, samples: Samples
) -> Samples:
    """The queries with gold once more, without the tools that are right or would do."""
    matrix = snapshot.index.matrix
    vectors = matrix.vectors[np.argsort(matrix.rows)]
    kept = np.ones(top.rows.shape, dtype=np.bool_)
    for b, query in enumerate(queries):
        near = vectors[top.rows[b]] @ vectors[_gold_rows(snapshot, query)].T
        kept[b] &= (near < NEAR).all(axis=1)
    left = first_kept(top, kept, DEPTH)
    filled = left.rows >= 0
    nothing = np.zeros_like(filled)
    half = np.full(len(filled), 0.5)
    made = Samples(
        left.scores, left.rows, samples.turn, nothing[:, 0], nothing, half, samples.folds
    )
    return made.take(samples.fits & filled[:, 0])


def _of_background(found: Routed, queries: int) -> Samples:
    top, vectors = found.top, cast(F32, found.queries).astype(np.float64)
    turn = turn_features(vectors, vectors.mean(axis=0), found.words)
    # Its background is that of the others, or it would be told by its own share in the mean.
    turn[:, 0] = (len(turn) * turn[:, 0] - 1) / (len(turn) - 1)
    nothing = np.zeros(top.rows.shape, dtype=np.bool_)
    weights = np.full(len(turn), 0.5 * queries / len(turn))
    folds = np.arange(len(turn)) % FOLDS
    return Samples(top.scores, top.rows, turn, nothing[:, 0], nothing, weights, folds)


def joined(*parts: Samples) -> Samples:
    """The turns of all parts, in order."""
    names = Samples.__slots__
    return Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
