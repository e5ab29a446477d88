"""What a batch of turns finds in one epoch: tools by score, and how likely they are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from ta_fast.pipeline import Routed
from ta_fast.snapshot import Snapshot
from ta_fast.types import F32, Turn


@dataclass(slots=True)
class Found:
    """What one turn finds.

    Attributes:
        scores: Of the tools to promote, by id, best first; none where the turn abstained.
        query: The turn's embedding ``[D]``, None where it stayed on a GPU.
        seconds: Durations of the batch by stage.
        right: With a calibration, the probability that each of the tools is right, by id.
        fit: With a calibration, the probability that some allowed tool fits the turn.
        abstained: ``fit`` is too low.
    """

    scores: dict[str, float]
    query: F32 | None
    seconds: dict[str, float]
    right: Mapping[str, float] = field(default_factory=dict)
    fit: float | None = None
    abstained: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a batch of turns asks of the pipeline.

    Attributes:
        k: Tools for each turn.
        thresholds: Their least scores, float32 ``[B]``.
        vectors: The embeddings are wanted on the host.
    """

    k: int
    thresholds: F32
    vectors: bool


def wanted(snapshot: Snapshot, turns: Sequence[Turn], *, vectors: bool) -> Wanted:
    """What these turns ask for; ``vectors`` if somebody else wants their embeddings."""
    k = min(max(turn.top_k for turn in turns), max(1, len(snapshot.index)))
    if snapshot.judge is None:
        thresholds = np.array([turn.threshold for turn in turns], dtype=np.float32)
        return Wanted(k, thresholds, vectors)
    # The calibration sees the two best tools whatever k and the threshold, applied after it.
    return Wanted(max(2, k), np.full(len(turns), -np.inf, dtype=np.float32), vectors=True)


def read(snapshot: Snapshot, turns: Sequence[Turn], routed: Routed) -> list[Found]:
    """What each of B turns found."""
    if snapshot.judge is None:
        return [_read_one(snapshot, turn, routed, b) for b, turn in enumerate(turns)]
    top, judge = routed.top, snapshot.judge
    limits = np.array([[turn.top_k] for turn in turns])
    kept = (top.rows >= 0) & (np.arange(top.rows.shape[1]) < limits)
    queries = cast(F32, routed.queries)
    judgement = judge(top.scores, top.rows, queries, routed.words)
    kept &= top.scores >= np.array([[turn.threshold] for turn in turns], dtype=np.float32)
    kept &= ~judgement.abstained[:, None]
    found = []
    for b in range(len(turns)):
        names = [snapshot.index.ids[row] for row in top.rows[b, kept[b]].tolist()]
        scores = dict(zip(names, top.scores[b, kept[b]].tolist(), strict=True))
        right = dict(zip(names, judgement.right[b, kept[b]].tolist(), strict=True))
        fit, abstained = float(judgement.fit[b]), bool(judgement.abstained[b])
        found.append(Found(scores, queries[b], routed.seconds, right, fit, abstained))
    return found


def _read_one(snapshot: Snapshot, turn: Turn, routed: Routed, b: int) -> Found:
    ids, top = snapshot.index.ids, routed.top
    rows, scores = top.rows[b, : turn.top_k].tolist(), top.scores[b, : turn.top_k].tolist()
    best = {ids[row]: score for row, score in zip(rows, scores, strict=True) if row >= 0}
    query = None if routed.queries is None else routed.queries[b]
    return Found(best, query, routed.seconds)
