"""Learning a calibration from labelled queries.

What is learnt is whether *some* tool fits a turn and whether *this* tool is right, so turns
that no tool fits are needed too. Where the labels have enough of them they alone are used.
Otherwise they are made from the labelled queries: each once more with its gold tools, and
those that are nearly the same, taken out of the catalog; and intents that no tool serves
(``background``). Both kinds weigh together as much as the queries themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ta_fast.calibration import (
    F64,
    Calibration,
    Logistic,
    best_features,
    sigmoid,
    tool_features,
    turn_features,
)
from ta_fast.errors import BackendUnavailable, InvalidCatalog
from ta_fast.evaluate.background import BACKGROUND
from ta_fast.evaluate.calibration_measures import (
    best_tools,
    calibration_error,
    first_kept,
    measure_abstention,
)
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
PRIOR = 1.0
"""Precision of the normal prior of a tool's own term, in log-odds.

On eight labelled sets such terms cut the log loss on queries left out by 2 to 22 %; 0.5
and 2 did about as well.
"""
FOLDS = 5
_STEPS = 15
_CANDIDATES = 50  # tools of a turn that are looked at to find ten after some are taken out


@dataclass(frozen=True, slots=True, eq=False)
class _Samples:
    """S turns: their tools ``[S, 10]``, numbers ``[S, F]``, labels, weights and folds."""

    scores: F32
    rows: I32
    turn: F64
    fits: NDArray[np.bool_]
    right: NDArray[np.bool_]
    weights: F64
    folds: NDArray[np.int64]

    def take(self, kept: NDArray[np.bool_]) -> _Samples:
        """Some of the turns."""
        return _Samples(*(getattr(self, name)[kept] for name in self.__slots__))


def learn(
    snapshot: Snapshot,
    queries: Sequence[Query],
    summaries: Mapping[str, str],
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Learn a calibration of a snapshot's ranking, and measure it by cross-validation.

    Args:
        snapshot: What ranks the tools; every tool is allowed.
        queries: Labelled queries; those without gold tools are turns that no tool fits.
        summaries: Hash of each tool's summary, by tool id.
        progress: Called with the number of queries just ranked.

    Raises:
        InvalidCatalog: fewer than 20 queries have gold tools, or the labels do not follow
            the scores at all.
        BackendUnavailable: scikit-learn is not installed.
    """
    samples, background = _collect(snapshot, queries, progress)
    offsets, calibration = _learnt(snapshot, samples, background, len(snapshot.index))
    ids = snapshot.index.ids
    own = {ids[row]: float(offsets[row]) for row in np.flatnonzero(offsets)}
    return replace(calibration, offsets=own, summaries=dict(summaries), queries=len(queries))


def learn_across(sets: Sequence[tuple[Snapshot, Sequence[Query]]]) -> Calibration:
    """Learn one calibration of several catalogs, for catalogs that have no labels.

    Each catalog weighs the same; what is measured is measured on catalogs left out. There
    are no terms of single tools.

    Args:
        sets: Snapshots of one encoder and ranking, at least two, with labelled queries.

    Raises:
        InvalidCatalog: see ``learn``.
        BackendUnavailable: scikit-learn is not installed.
    """
    parts, tools = [], 0
    for number, (snapshot, queries) in enumerate(sets):
        samples, background = _collect(snapshot, queries, None)
        rows = np.where(samples.rows >= 0, samples.rows + tools, -1).astype(np.int32)
        weights = samples.weights * 1000 / samples.weights.sum()
        folds = np.full(len(weights), number)
        parts.append(replace(samples, rows=rows, weights=weights, folds=folds))
        tools += len(snapshot.index)
    _, calibration = _learnt(sets[0][0], _joined(*parts), background, tools)
    return replace(calibration, queries=sum(len(queries) for _, queries in sets))


def _collect(
    snapshot: Snapshot, queries: Sequence[Query], progress: Callable[[int], None] | None
) -> tuple[_Samples, F64]:
    """What is learnt from, and the background."""
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
        samples = _joined(samples, without, _of_background(nowhere, len(queries)))
    return samples, background


def _learnt(
    snapshot: Snapshot, samples: _Samples, background: F64, tools: int
) -> tuple[F64, Calibration]:
    """Tools' own terms ``[tools]``, and all else that is learnt and measured."""
    fits, right, offsets = _fit(samples, tools)
    left_out, left_out_right = _left_out(samples, tools)
    filled = samples.rows >= 0
    weights = np.broadcast_to(samples.weights[:, None], filled.shape)[filled]
    measured = measure_abstention(left_out, samples.fits, samples.weights)
    return offsets, Calibration(
        encoder=snapshot.index.encoder,
        ranking=snapshot.ranking,
        background=tuple(background.tolist()),
        fits=fits,
        right=right,
        offsets={},
        summaries={},
        points=measured.points,
        queries=0,
        auroc=measured.auroc,
        fit_error=measured.error,
        right_error=calibration_error(left_out_right[filled], samples.right[filled], weights),
    )


def _samples(snapshot: Snapshot, queries: Sequence[Query], top: TopK, turn: F64) -> _Samples:
    rows = top.rows[:, :DEPTH]
    golden = [_gold_rows(snapshot, query) for query in queries]
    right = np.array([np.isin(r, gold) for r, gold in zip(rows, golden, strict=True)])
    fits = np.array([bool(query.gold) for query in queries])
    folds = np.random.default_rng(0).permutation(len(queries)) % FOLDS
    return _Samples(top.scores[:, :DEPTH], rows, turn, fits, right, np.ones(len(fits)), folds)


def _gold_rows(snapshot: Snapshot, query: Query) -> list[int]:
    rows = snapshot.index.rows
    return [rows[tool] for group in query.gold for tool in group if tool in rows]


def _without_gold(
    snapshot: Snapshot, queries: Sequence[Query], top: TopK, samples: _Samples
) -> _Samples:
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
    made = _Samples(
        left.scores, left.rows, samples.turn, nothing[:, 0], nothing, half, samples.folds
    )
    return made.take(samples.fits & filled[:, 0])


def _of_background(found: Routed, queries: int) -> _Samples:
    top, vectors = found.top, cast(F32, found.queries).astype(np.float64)
    turn = turn_features(vectors, vectors.mean(axis=0), found.words)
    # Its background is that of the others, or it would be told by its own share in the mean.
    turn[:, 0] = (len(turn) * turn[:, 0] - 1) / (len(turn) - 1)
    nothing = np.zeros(top.rows.shape, dtype=np.bool_)
    weights = np.full(len(turn), 0.5 * queries / len(turn))
    folds = np.arange(len(turn)) % FOLDS
    return _Samples(top.scores, top.rows, turn, nothing[:, 0], nothing, weights, folds)


def _joined(*parts: _Samples) -> _Samples:
    names = _Samples.__slots__
    return _Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _fit(samples: _Samples, tools: int) -> tuple[Logistic, Logistic, F64]:
    """Both maps, and every tool's own term ``[N]``."""
    fits = _logistic(best_features(samples.scores, samples.turn), samples.fits, samples.weights)
    filled = samples.rows >= 0
    features = tool_features(samples.scores, samples.turn)[filled]
    labels = samples.right[filled]
    weights = np.broadcast_to(samples.weights[:, None], filled.shape)[filled]
    right = _logistic(features, labels, weights)
    if fits.weights[0] <= 0 or right.weights[0] + right.weights[1] <= 0:
        raise InvalidCatalog(
            "higher scores go with fewer right tools in these labels, so nothing can be learnt "
            "from them: are the gold tools those of this catalog?"
        )
    return (
        fits,
        right,
        _offsets(right.logits(features), labels, weights, samples.rows[filled], tools),
    )


def _offsets(logits: F64, labels: NDArray[np.bool_], weights: F64, rows: I32, tools: int) -> F64:
    """The likeliest own term of every tool under a normal prior, ``[tools]``: 0 where unseen."""
    offsets = np.zeros(tools)
    for _ in range(_STEPS):  # Newton's method; short steps, so that none overshoots
        right = sigmoid(logits + offsets[rows])
        slope = np.bincount(rows, weights * (labels - right), tools) - PRIOR * offsets
        bend = np.bincount(rows, weights * right * (1 - right), tools) + PRIOR
        offsets += np.clip(slope / bend, -1, 1)
    return offsets


def _left_out(samples: _Samples, tools: int) -> tuple[F64, F64]:
    """Probabilities ``[S]`` and ``[S, 10]``, each from maps that have not seen the query."""
    fit, right = np.empty(len(samples.fits)), np.empty(samples.rows.shape)
    for fold in np.unique(samples.folds):
        test = samples.folds == fold
        fits, rights, offsets = _fit(samples.take(~test), tools)
        fit[test] = fits(best_features(samples.scores[test], samples.turn[test]))
        logits = rights.logits(tool_features(samples.scores[test], samples.turn[test]))
        right[test] = sigmoid(logits + offsets[samples.rows[test]])
    return fit, right


def _logistic(features: F64, labels: NDArray[np.bool_], weights: F64) -> Logistic:
    """Logistic regression on standardised features, told in those as they are."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise BackendUnavailable(
            "learning probabilities needs scikit-learn: pip install 'ta-fast[eval]'"
        ) from error
    if labels.all() or not labels.any():
        raise InvalidCatalog(
            f"all {len(labels)} examples are {'right' if labels.all() else 'wrong'}; "
            "expected both kinds to learn from"
        )
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    model: Any = LogisticRegression()
    model.fit((features - mean) / spread, labels, sample_weight=weights)
    slopes = model.coef_[0] / spread
    return Logistic(float(model.intercept_[0] - slopes @ mean), tuple(slopes.tolist()))
