"""Retrieval metrics on the device: the rankings and definitions of `ta_fast.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ta_fast.train.batches import DeviceSet
from ta_fast.train.bert import Bert, unit_mean
from ta_fast.train.data import I64, TEXTS, VIEWS, WORDINGS

DEPTH = 10
_FIRST = 5
_FAR = 1 << 20


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over the queries that have gold tools; see ``ta_fast.evaluate.Metrics``."""

    recall_5: float
    mrr_10: float
    count: int


def scores(bert: Bert, one: DeviceSet) -> tuple[Tensor, Tensor]:
    """Dense and lexical scores ``[Q, N]``, whose sum is the hybrid one, as served.

    A dense score is a float64 inner product of float32 vectors.
    """
    rows = np.arange(one.source.n_tools)[:, None] * TEXTS + np.arange(VIEWS)
    tools = unit_mean(bert.embed(one.tools, rows.ravel()), VIEWS)
    places = np.arange(one.source.n_queries) * WORDINGS
    queries = bert.embed(one.queries, places)
    return queries.double() @ tools.double().T, one.lexical(places).double()


def figures(bert: Bert, one: DeviceSet) -> dict[str, Figures]:
    """How well a model finds a set's tools, ``dense`` and ``hybrid``."""
    dense, lexical = scores(bert, one)
    return {
        "dense": _measure(one.source.gold, top(dense)),
        "hybrid": _measure(one.source.gold, top(dense + lexical)),
    }


def top(found: Tensor) -> I64:
    """The first ten tools of each query, of scores ``[Q, N]``; the lower row where they tie."""
    order = torch.sort(found.float(), dim=1, descending=True, stable=True).indices
    return np.asarray(order[:, :DEPTH].cpu().numpy())


def _measure(gold: NDArray[np.int32], ranked: I64) -> Figures:
    # A group counts once, at the first rank where any of its tools stands.
    queries, group, tool = gold.astype(np.int64).T
    found = ranked[queries] == tool[:, None]
    ranks = np.where(found.any(axis=1), found.argmax(axis=1) + 1, _FAR)
    pairs, place = np.unique(np.stack((queries, group)), axis=1, return_inverse=True)
    best = np.full(pairs.shape[1], _FAR)
    np.minimum.at(best, place.ravel(), ranks)
    asked, owner, needed = np.unique(pairs[0], return_inverse=True, return_counts=True)
    recall = np.bincount(owner, best <= _FIRST, len(asked)) / needed
    first = np.full(len(asked), _FAR)
    np.minimum.at(first, owner, best)
    reciprocal = np.where(first <= DEPTH, 1 / first, 0.0)
    return Figures(float(recall.mean()), float(reciprocal.mean()), len(asked))
