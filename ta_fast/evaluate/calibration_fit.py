"""Learning a calibration from labelled queries; what from is in ``calibration_samples``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ta_fast.calibration import (
    F64,
    Calibration,
    Logistic,
    best_features,
    sigmoid,
    tool_features,
)
from ta_fast.errors import BackendUnavailable, InvalidCatalog
from ta_fast.evaluate.calibration_measures import (
    Abstention,
    calibration_error,
    measure_abstention,
)
from ta_fast.evaluate.calibration_samples import Samples, collect, joined
from ta_fast.evaluate.queries import Query
from ta_fast.snapshot import Snapshot
from ta_fast.types import I32

PRIOR = 1.0
"""Precision of the normal prior of a tool's own term, in log-odds.

On eight labelled sets such terms cut the log loss on queries left out by 2 to 22 %; 0.5
and 2 did about as well.
"""
_STEPS = 15


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
    samples, background = collect(snapshot, queries, progress)
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
    samples, background, tools = _across(sets)
    _, calibration = _learnt(sets[0][0], samples, background, tools)
    return replace(calibration, queries=sum(len(queries) for _, queries in sets))


def measure_across(sets: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Abstention]:
    """How good on each catalog is what ``learn_across`` learns from the others."""
    samples, _, tools = _across(sets)
    fit, _ = _left_out(samples, tools)
    own = [samples.folds == number for number in range(len(sets))]
    return [measure_abstention(fit[s], samples.fits[s], samples.weights[s]) for s in own]


def measure_on(
    snapshot: Snapshot, calibration: Calibration, queries: Sequence[Query]
) -> Abstention:
    """How good a calibration is on queries that it has not seen.

    Turns that no tool fits are as ``learn`` has them. Where they are made, some are the same
    intents that no tool serves as in learning.

    Raises:
        InvalidCatalog: fewer than 20 queries have gold tools.
    """
    samples, _ = collect(snapshot, queries, None)
    fit = calibration.fits(best_features(samples.scores, samples.turn))
    return measure_abstention(fit, samples.fits, samples.weights)


def _across(sets: Sequence[tuple[Snapshot, Sequence[Query]]]) -> tuple[Samples, F64, int]:
    """All catalogs' samples, each catalog a fold; the background; and how many tools."""
    parts, tools = [], 0
    for number, (snapshot, queries) in enumerate(sets):
        samples, background = collect(snapshot, queries, None)
        rows = np.where(samples.rows >= 0, samples.rows + tools, -1).astype(np.int32)
        weights = samples.weights * 1000 / samples.weights.sum()
        folds = np.full(len(weights), number)
        parts.append(replace(samples, rows=rows, weights=weights, folds=folds))
        tools += len(snapshot.index)
    return joined(*parts), background, tools


def _learnt(
    snapshot: Snapshot, samples: Samples, background: F64, tools: int
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


def _fit(samples: Samples, tools: int) -> tuple[Logistic, Logistic, F64]:
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


def _left_out(samples: Samples, tools: int) -> tuple[F64, F64]:
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
